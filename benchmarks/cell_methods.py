"""Compare forms of inVAE with PCA, Harmony, scVI and scANVI, over several seeds.

`.venv-cells/bin/python benchmarks/cell_methods.py FILE`, of a file that PrepareCells wrote, in the
environment of `make test-cells`. All are fitted to the training cells, for the same epochs, but
Harmony, which has no model of other cells and sees all of them. scVI and scANVI have the sizes, the
batches, the learning rate and the warm-up of inVAE, and else their defaults; a weight is that of
the divergence, 1 unless said, and 4 of inVAE. scANVI is given the labels of the training cells, as
inVAE's prior is, after scVI's training.

The embeddings and their scores are kept in a folder, so that a run that is broken off goes on, and
methods and seeds can be trained and measured side by side (`--train-only`, `--seeds`, `--methods`).
"""

import argparse
import dataclasses
import functools
import json
import logging
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats

from jemtrack.data.cells.cells import (
    BATCH,
    LABEL,
    SPLIT,
    TEST,
    TRAIN,
    UNKNOWN,
    Cells,
    CellSplits,
    read_prepared,
)
from jemtrack.evaluation.integration import integration_scores, with_kbet
from jemtrack.invae.inference import latents, log_evidence
from jemtrack.stages.evaluate_cells import harmonised, principal_components
from jemtrack.stages.train_invae import InVAEArgs
from jemtrack.train.launch import Runtime
from jemtrack.train.recipe import Recipe
from jemtrack.train.run import Training

_PUBLISHED = {"batch_in_decoder": "none", "labels_in_encoder": True, "batch_in_encoder": True}
FORMS: dict[str, dict[str, Any]] = {
    "inVAE": {},
    "inVAE, weight 1": {"kl_weight": 1.0},
    "inVAE, no labels, weight 1": {"kl_weight": 1.0, "labels_in_prior": False},
    "inVAE, published form": {"kl_weight": 1.0, **_PUBLISHED},
    "inVAE, published form, weight 4": _PUBLISHED,
}
DEFAULT = "inVAE"
SHOWN = {
    "bio": "types",
    "ilisi": "iLISI",
    "kbet": "kBET",
    "pcr": "PCR",
    "total": "total of nine",
    "scib_total": "scib total",
}
_SCANVI_EPOCHS = 20  # after those of scVI, as its tutorial has it
_UNKNOWN = "Unknown"
_DRAWS = 100  # of z for a cell's likelihood


class Comparison:
    """Prepared cells, and the embeddings of all of them by each method."""

    def __init__(self, path: Path, n_epochs: int) -> None:
        self.n_epochs = n_epochs
        self.data, self.prepared = CellSplits.load(path), read_prepared(path)
        self.cells = Cells.of(self.prepared, self.data.vocabulary)
        obs = self.prepared.obs
        self.train_N = (obs[SPLIT] == TRAIN).to_numpy()
        labelled_N = obs[LABEL].notna().to_numpy()
        held_out_N = labelled_N & (obs[SPLIT] == TEST).to_numpy()
        self.sets = {"held-out": held_out_N, "all": labelled_N}
        self.components = principal_components(self.cells, self.train_N, 30)
        self.methods: dict[str, Callable[[int], np.ndarray]] = {
            "PCA": lambda seed: self.components,
            "Harmony": lambda seed: harmonised(self.components, obs[[BATCH]], seed),
            "scVI": lambda seed: self.scvi(seed)[0],
            "scANVI": self.scanvi,
            "scVI, weight 4": lambda seed: self.scvi(seed, weight=4.0)[0],
            **{name: lambda seed, name=name: self.invae(name, seed) for name in FORMS},
        }

    def invae(self, form: str, seed: int) -> np.ndarray:
        """Train a form with this seed, and embed all cells."""
        return latents(self.trained(form, seed), self.cells).z_i_NZ.numpy()

    def likelihoods(self, form: str, seed: int) -> tuple[float, float]:
        """Train a form and scVI; return the mean -log p(x) of the held-out cells by each, in nats.

        Both by importance sampling with as many draws; neither is given the cells' labels.
        """
        test_N = (self.prepared.obs[SPLIT] == TEST).to_numpy()
        unknown_N = np.full(test_N.sum(), UNKNOWN)
        cells = Cells(self.cells.counts_NG[test_N], self.cells.batches_N[test_N], unknown_N)
        own_N = log_evidence(self.trained(form, seed), cells, _DRAWS, seed)
        _, model = self.scvi(seed)
        held_out = self._with_labels()[test_N].copy()
        scvi_N = model.get_marginal_ll(held_out, n_mc_samples=_DRAWS, return_mean=False)
        return -float(own_N.double().mean()), -float(np.mean(np.asarray(scvi_N, float)))

    def trained(self, form: str, seed: int) -> Any:
        """Train a form with this seed; return the network."""
        params = InVAEArgs(
            **FORMS[form],
            n_epochs=self.n_epochs,
            kl_warmup_epochs=self.warm_up,
            device="cpu",
            eval_every=10_000,
        )
        training = Training(
            name="form",
            family=params.family,
            recipe=Recipe(steps=(params.ordinary_step(),)),
            model=params,
            settings=params,
            data=dataclasses.replace(self.data, seed=seed),
            runtime=Runtime(torch.device("cpu")),
        )
        training.train((), None)
        return training.state.models["network"]

    @property
    def warm_up(self) -> int:
        """Epochs over which the divergence's weight rises, for all methods."""
        return round(0.4 * self.n_epochs)

    @functools.lru_cache(1)  # noqa: B019 (there is one comparison)
    def scvi(self, seed: int, weight: float = 1.0) -> tuple[np.ndarray, Any]:
        """Train scVI on the training cells; return the embedding of all cells, and the model."""
        import scvi

        scvi.settings.seed = seed
        whole = self._with_labels()
        train = whole[self.train_N].copy()
        scvi.model.SCVI.setup_anndata(train, batch_key=BATCH)
        args = InVAEArgs()
        model = scvi.model.SCVI(
            train,
            n_hidden=args.hidden,
            n_latent=args.z_i_dim,
            n_layers=args.n_layers,
            gene_likelihood="nb",
        )
        plan = {"n_epochs_kl_warmup": self.warm_up, "max_kl_weight": weight, **_adam(args)}
        model.train(max_epochs=self.n_epochs, plan_kwargs=plan, **_quiet(args))
        return model.get_latent_representation(whole), model

    def scanvi(self, seed: int) -> np.ndarray:
        """Train scANVI after scVI, with the labels of the training cells."""
        import scvi

        _, trained = self.scvi(seed)
        model = scvi.model.SCANVI.from_scvi_model(trained, _UNKNOWN, labels_key=LABEL)
        args = InVAEArgs()
        model.train(max_epochs=_SCANVI_EPOCHS, plan_kwargs=_adam(args), **_quiet(args))
        return model.get_latent_representation(self._with_labels())

    def _with_labels(self) -> Any:
        """Return the cells with the labels of the training cells alone."""
        whole = self.prepared.copy()
        whole.X = whole.X.astype(np.float32)
        labels_N = whole.obs[LABEL].astype(object).where(whole.obs[LABEL].notna(), _UNKNOWN)
        whole.obs[LABEL] = pd.Categorical(labels_N.where(self.train_N, _UNKNOWN))
        return whole

    def kept_scores(self, path: Path, kbet: bool) -> dict[str, dict[str, float]]:
        """Measure the embedding in a file, or read what was measured of it."""
        kept = path.with_suffix(".ten.json" if kbet else ".nine.json")
        if not kept.exists():
            kept.write_text(json.dumps(self.scores(np.load(path), kbet)))
        found: dict[str, dict[str, float]] = json.loads(kept.read_text())
        return found

    def scores(self, embedding_ND: np.ndarray, kbet: bool) -> dict[str, dict[str, float]]:
        """Measure an embedding, with or without kBET: the held-out cells, and all."""
        labels_N = self.prepared.obs[LABEL].cat.codes.to_numpy()
        found = {}
        for name, chosen_N in self.sets.items():
            parts = (labels_N[chosen_N], self.cells.batches_N[chosen_N])
            embedding = embedding_ND[chosen_N]
            row = integration_scores(embedding, self.components[chosen_N], *parts)
            found[name] = with_kbet(row, embedding, *parts) if kbet else row
        return found


def _adam(args: InVAEArgs) -> dict[str, float]:
    return {"lr": args.lr, "weight_decay": args.weight_decay}


def _quiet(args: InVAEArgs) -> dict[str, Any]:
    """Return how scvi-tools trains on all cells that it is given, without a word."""
    return {
        "batch_size": args.batch_size,
        "train_size": 1.0,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
    }


def mean_and_spread(values: np.ndarray) -> str:
    """Write the mean and, of several different values, their standard deviation."""
    spread = values.std(ddof=1) if len(values) > 1 else 0
    return f"{values.mean():.3f}" + f" ({spread:.3f})" * bool(spread > 5e-4)


def paired(differences: np.ndarray) -> str:
    """Write the mean difference and its interval at 95%, by Student's t over the seeds."""
    half = stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences)
    mean = differences.mean()
    return f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})"


def show(
    scores: dict[str, dict[str, Any]], sets: list[str], methods: list[str], seeds: Sequence[int]
) -> None:
    """Print a row for each method and set, and the default form's difference from the others."""
    measured = next(iter(scores.values()))[sets[0]]
    shown = {name: title for name, title in SHOWN.items() if name in measured}
    total = [*shown][-1]
    packages = ("scib-metrics", "scvi-tools", "harmonypy")
    print(", ".join(f"{name} {version(name)}" for name in packages) + "\n")
    print(f"| | cells | {' | '.join(shown.values())} | {DEFAULT} less this |")
    print(f"|{'---|' * (len(shown) + 3)}")
    for method in methods:
        for cells in sets:
            rows = [scores[f"{method}/{seed}"][cells] for seed in seeds]
            own = [scores[f"{DEFAULT}/{seed}"][cells] for seed in seeds]
            columns = [mean_and_spread(np.array([row[name] for row in rows])) for name in shown]
            pairs = zip(own, rows, strict=True)
            differences = np.array([a[total] - b[total] for a, b in pairs])
            last = paired(differences) if method != DEFAULT and len(seeds) > 1 else ""
            print(f"| {method} | {cells} | {' | '.join(columns)} | {last} |")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, help="a file that PrepareCells wrote")
    parser.add_argument("--seeds", type=int, nargs="+", default=range(1, 6), help="(1 to 5)")
    parser.add_argument("--epochs", type=int, default=InVAEArgs().n_epochs, help="(%(default)s)")
    parser.add_argument("--methods", nargs="+", help="(all)")
    parser.add_argument(
        "--train-only", dest="score", action="store_false", help="keep the embeddings, measure none"
    )
    parser.add_argument("--nine", action="store_true", help="leave out kBET, which takes minutes")
    parser.add_argument(
        "--likelihood", action="store_true", help="that of held-out cells, by inVAE and scVI, alone"
    )
    parser.add_argument("--folder", type=Path, default=Path("cell_methods"), help="(%(default)s)")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    comparison = Comparison(options.path, options.epochs)
    if options.likelihood:
        for seed in options.seeds:
            own, scvi = comparison.likelihoods(DEFAULT, seed)
            print(f"seed {seed}: {own:.1f} nats a cell, scVI {scvi:.1f} ({own / scvi - 1:+.2%})")
        return
    methods = options.methods or [*comparison.methods]
    options.folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    # JAX, which kBET takes, would slow the trainings down: all of them come first.
    for seed in options.seeds:
        for method in methods:
            path = options.folder / f"{method}-{options.epochs}-{seed}.npy"
            if not path.exists():
                np.save(path, comparison.methods[method](seed))
            paths[f"{method}/{seed}"] = path
    if options.score:
        scores = {
            name: comparison.kept_scores(path, not options.nine) for name, path in paths.items()
        }
        show(scores, [*comparison.sets], methods, options.seeds)


if __name__ == "__main__":
    main()
