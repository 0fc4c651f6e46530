"""The stage EvaluateCells: what an embedding of cells is worth, first on those held out."""

import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import zntrack
from pydantic import Field
from scipy import sparse
from torch import Tensor

from jemtrack.data.cells.cells import (
    BATCH,
    LABEL,
    NOTES,
    SPLIT,
    TEST,
    TRAIN,
    UNKNOWN,
    Cells,
    read_prepared,
)
from jemtrack.errors import InputError, ParameterError
from jemtrack.evaluation.cell_intervals import half_widths, subset_scores
from jemtrack.evaluation.cell_pictures import write_grid
from jemtrack.evaluation.cell_transfer import transfer_scores
from jemtrack.evaluation.integration import integration_scores, with_kbet
from jemtrack.files import atomic_write
from jemtrack.invae.inference import INVAE, SPURIOUS, bound_terms, latents, log_evidence
from jemtrack.invae.model_file import ModelFile, load_model
from jemtrack.parameters import FROM_LIST, AtLeastOne, Count, parameters, suggestion
from jemtrack.project.results import ResultTracking
from jemtrack.shared.hardware import DEFAULT_THREADS, DeviceName, Threads, chosen_device
from jemtrack.shared.progress import say, track
from jemtrack.stages.stage import Stage, plot

HELD_OUT, ALL = "held_out", "all"
PCA, HARMONY = "X_pca", "X_harmony"
_OWN = (INVAE, SPURIOUS, PCA, HARMONY)  # what this stage writes into obsm
_SCALE = 1e4  # counts of a cell, before their logarithm and principal components
_FEWEST, _FEWEST_IN_SUBSETS = 10, 50  # labelled cells that measures, and intervals, are of


@parameters
class CellEvalArgs:
    """What is measured, and beside what.

    Attributes:
        compare: embeddings of your own to measure as well, by their names in obsm of the raw file.
        n_components: principal components, of the training cells, that are the baseline.
        neighbours: of each cell in iLISI and cLISI, the cell itself among them.
        kbet: measure kBET too, and with it scib's total, by scib-metrics (extra `integration`).
        harmony: measure the principal components corrected by Harmony, too, which sees the
            held-out cells (extra `harmony`, whose licence is the GPL).
        n_subsets: random subsets of the held-out cells, for the intervals of their measures; 0:
            no intervals.
        iwae_samples: draws from the posterior of each held-out cell for its likelihood.
        projection: of the pictures to two dimensions.
        device: auto is a GPU if there is one, else the CPU.
        threads: of the CPU; see `jemtrack.shared.hardware.Hardware`.
    """

    compare: Annotated[tuple[str, ...], FROM_LIST] = ()
    n_components: AtLeastOne = 30
    neighbours: Annotated[int, Field(ge=6)] = 90  # for a perplexity of two and more
    kbet: bool = False
    harmony: bool = False
    n_subsets: Count = 20
    iwae_samples: AtLeastOne = 50
    projection: Literal["umap", "pca"] = "umap"
    device: DeviceName = "auto"
    threads: Threads = DEFAULT_THREADS


def check_extras(params: CellEvalArgs) -> None:
    """Check that what is to be measured can be.

    Raises:
        ParameterError: if a package is missing.
    """
    for name, extra, package in (
        ("kbet", "integration", "scib_metrics"),
        ("harmony", "harmony", "harmonypy"),
    ):
        if getattr(params, name) and importlib.util.find_spec(package) is None:
            raise ParameterError(
                f"{name} must be false without {package}, got true; pip install "
                f"'jemtrack[{extra}]' brings it"
            )


class EvaluateCells(Stage):
    """Measure a model of cells beside principal components: mixing, types, likelihood, transfer.

    The encoder is given no label of any cell.

    Attributes:
        data: the file of prepared cells.
        model: the file of a trained model.
        params: what to measure.
        metrics: the measures of the held-out cells, then of all.
        scores: the same, a row for each embedding and set of cells, with half the widths of
            intervals at 95%; `..._gain_half` are those of the difference from the components.
        embedded: an .h5ad file of the cells, with the embeddings in obsm.
        pictures: the embeddings before and after, by batch and by type.
        report: all this as a page, which needs no network and no file beside it.
    """

    data: Path = zntrack.deps_path()
    model: Path = zntrack.deps_path()
    params: CellEvalArgs = zntrack.deps(default_factory=CellEvalArgs)
    metrics: Path = zntrack.metrics_path(zntrack.nwd / "metrics.json", cache=False)
    scores: Path = zntrack.outs_path(zntrack.nwd / "scores.csv")
    embedded: Path = zntrack.outs_path(zntrack.nwd / "embedded.h5ad")
    pictures: Path = plot(zntrack.nwd / "embeddings.png")
    report: Path = zntrack.outs_path(zntrack.nwd / "report.html")

    def compute(self) -> None:
        """Embed all cells, measure the embeddings, and write and draw them."""
        check_extras(self.params)
        tracking = ResultTracking(self.name)
        prepared = read_prepared(Path(self.data))
        model = load_model(Path(self.model))
        model.network.to(chosen_device(self.params.device))
        cells = Cells.of(prepared, model.vocabulary)
        seed = int(prepared.uns[NOTES]["seed"])
        found = latents(model.network, cells).obsm()
        embeddings = {INVAE: found[INVAE], **self._beside(prepared, cells)}
        held_out_N = (prepared.obs[SPLIT] == TEST).to_numpy()
        table = self._measured(prepared.obs, embeddings, held_out_N, seed)
        metrics = {name: _nested(table[table["cells"] == name]) for name in (HELD_OUT, ALL)}
        nats: dict[str, Tensor] = {}
        if held_out_N.any():
            nats = self._likelihood(model.network, _picked(cells, held_out_N), seed)
            metrics[HELD_OUT] |= {name: float(each.mean()) for name, each in nats.items()}
        self.metrics.write_text(json.dumps(metrics, indent=2) + "\n")
        table.to_csv(self.scores, index=False)
        prepared.obsm.update(found | embeddings)
        say(f"Drawing the embeddings, by {self.params.projection}")
        before_first = {PCA: embeddings[PCA], **embeddings}
        drawn = write_grid(before_first, prepared.obs, self.pictures, self.params.projection, seed)
        prepared.obsm.update(drawn)
        atomic_write(self.embedded, prepared.write_h5ad)
        self._write_report(prepared, model, table, nats)
        tracking.send({"params": self.params}, metrics, [self.scores, self.pictures, self.report])

    def _write_report(
        self, prepared: Any, model: ModelFile, table: pd.DataFrame, nats: Mapping[str, Tensor]
    ) -> None:
        # What fills the page takes a while to import.
        from jemtrack.evaluation.cell_report import CellPage, render
        from jemtrack.stages.report import code_version

        obs, file = prepared.obs, Path(self.model)
        code, changed_files = code_version()
        labels = obs[LABEL].astype(object).where(obs[LABEL].notna(), "no label")
        page = CellPage(
            title=f"{self.name}: {len(obs)} cells of {prepared.uns[NOTES]['dataset']}",
            scores=table,
            likelihood={name: _mean_and_half(each) for name, each in nats.items()},
            grid=self.pictures.read_bytes(),
            projection=self.params.projection.upper(),
            counts=pd.crosstab(labels, obs[BATCH]),
            parameters={name: str(value) for name, value in asdict(self.params).items()},
            model={
                "file": str(file),
                "MD5": hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest(),
                **{name: str(value) for name, value in asdict(model.network.shape).items()},
                **model.notes,
            },
            code=code,
            changed_files=changed_files,
        )
        sets = {HELD_OUT: "Held-out cells", ALL: "All cells"}
        atomic_write(self.report, lambda path: path.write_text(render(page, sets, INVAE, PCA)))
        print(f"Report: {self.report}")

    def _beside(self, prepared: Any, cells: Cells) -> dict[str, np.ndarray]:
        """Return the baselines, and the embeddings of the user's own."""
        for name in self.params.compare:
            if name in _OWN:
                raise ParameterError(
                    f"compare must hold no name that {self.name} writes ({', '.join(_OWN)}), got "
                    f"{name!r}: give the embedding another name in obsm of the raw file"
                )
            if name not in prepared.obsm:
                raise ParameterError(
                    f"compare must hold names of obsm in {self.data}, got {name!r}; "
                    f"{suggestion(name, prepared.obsm)}"
                )
        train_N = (prepared.obs[SPLIT] == TRAIN).to_numpy()
        own = {name: np.asarray(prepared.obsm[name], dtype=float) for name in self.params.compare}
        for name, embedding in own.items():
            if not np.isfinite(embedding).all():
                row = int(np.argmin(np.isfinite(embedding).all(axis=1)))
                raise InputError(
                    f"{self.data}: obsm[{name!r}] must hold finite numbers; that of cell "
                    f"{prepared.obs_names[row]} are not: leave it out of params.compare"
                )
        baselines = {PCA: principal_components(cells, train_N, self.params.n_components)}
        if self.params.harmony:
            seed = int(prepared.uns[NOTES]["seed"])
            baselines[HARMONY] = harmonised(baselines[PCA], prepared.obs[[BATCH]], seed)
        return {**baselines, **own}

    def _measured(
        self, obs: pd.DataFrame, embeddings: Mapping[str, np.ndarray], held_out_N: Any, seed: int
    ) -> pd.DataFrame:
        """Measure each embedding of the labelled cells, of those held out and of all."""
        labelled_N = obs[LABEL].notna().to_numpy()
        labels_N, batches_N = obs[LABEL].cat.codes.to_numpy(), obs[BATCH].cat.codes.to_numpy()
        train_N = labelled_N & (obs[SPLIT] == TRAIN).to_numpy()
        rows = []
        subsets: dict[str, pd.DataFrame] = {}
        for name, embedding in track(embeddings.items(), "Measuring the embeddings"):
            for cells, chosen_N in ((HELD_OUT, labelled_N & held_out_N), (ALL, labelled_N)):
                n_cells = int(chosen_N.sum())
                if n_cells < _FEWEST:
                    continue
                parts = [
                    each[chosen_N] for each in (embedding, embeddings[PCA], labels_N, batches_N)
                ]
                measure = partial(_scores_of, parts, n_neighbours=self.params.neighbours, seed=seed)
                row = measure(slice(None))
                if self.params.kbet:
                    row = with_kbet(row, parts[0], *parts[2:])
                if cells == HELD_OUT:
                    transfer = transfer_scores(
                        embedding[train_N], labels_N[train_N], parts[0], parts[2]
                    )
                    row |= {f"transfer_{measure}": value for measure, value in transfer.items()}
                    if self.params.n_subsets and n_cells >= _FEWEST_IN_SUBSETS:
                        subsets[name] = subset_scores(measure, n_cells, self.params.n_subsets, seed)
                rows.append({"cells": cells, "embedding": name, "n_cells": n_cells, **row})
        columns = None if rows else ["cells", "embedding", "n_cells"]
        return _with_half_widths(pd.DataFrame(rows, columns=columns), subsets)

    def _likelihood(self, network: Any, cells: Cells, seed: int) -> dict[str, Tensor]:
        """Measure the likelihood of held-out cells, in nats, with their label and without.

        Without a label, the prior of z is the mixture of the labels' priors. If no cell has a
        label, or no prior depends on it, there is nothing to measure given the label.
        """
        n_samples = self.params.iwae_samples
        measured = {}
        given = {"": _unlabelled(cells)}
        if network.prior.z_i is not None and (cells.labels_N >= 0).any():
            given["_given_label"] = cells
        for name, each in given.items():
            bound_N = bound_terms(network, each, n_samples, seed).bound
            evidence_N = log_evidence(network, each, n_samples, seed)
            measured[f"elbo{name}"] = bound_N.double()
            measured[f"nll{name}"] = -evidence_N.double()
        return measured


def _scores_of(parts: Sequence[np.ndarray], chosen: Any, **options: int) -> dict[str, float]:
    embedding, before, labels, batches = (part[chosen] for part in parts)
    return integration_scores(embedding, before, labels, batches, **options)


def _with_half_widths(table: pd.DataFrame, subsets: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Add to the held-out rows half the widths of their intervals, from measures of subsets."""
    for name, measured in subsets.items():
        gains = (measured - subsets[PCA])[["bio", "batch", "total"]].add_suffix("_gain")
        widths = half_widths(pd.concat([measured, gains], axis=1))
        row = (table["cells"] == HELD_OUT) & (table["embedding"] == name)
        for column, width in widths.items():
            table.loc[row, f"{column}_half"] = width
    return table


def _mean_and_half(nats_N: Tensor) -> tuple[float, float]:
    """Return the mean, and half the width of its interval at 95%."""
    spread = float(nats_N.std()) if len(nats_N) > 1 else 0.0
    return float(nats_N.mean()), 1.96 * spread / len(nats_N) ** 0.5


def principal_components(cells: Cells, train_N: np.ndarray, n_components: int) -> np.ndarray:
    """Compute components of log(1 + 10,000 times a gene's share), fitted to the training cells.

    Raises:
        InputError: if there are too few cells.
    """
    from sklearn import decomposition

    totals_N = np.maximum(np.asarray(cells.counts_NG.sum(axis=1)).ravel(), 1)
    logs_NG = (sparse.diags(_SCALE / totals_N) @ cells.counts_NG).log1p().tocsr()
    n_most = min(int(train_N.sum()), logs_NG.shape[1]) - 1
    if n_most < 1:
        raise InputError(f"principal components need two training cells, got {train_N.sum()}")
    # Arpack takes sparse rows as they are.
    fitted = decomposition.PCA(min(n_components, n_most), svd_solver="arpack", random_state=0)
    components_ND: np.ndarray = fitted.fit(logs_NG[train_N]).transform(logs_NG)
    return components_ND


def harmonised(components_ND: np.ndarray, batches: pd.DataFrame, seed: int) -> np.ndarray:
    """Correct components for the batches by Harmony (Korsunsky et al. 2019); it sees all cells."""
    from harmonypy import run_harmony

    fitted = run_harmony(components_ND, batches, [*batches], random_state=seed, verbose=False)
    return np.asarray(fitted.Z_corr, dtype=float)


def _picked(cells: Cells, chosen_N: np.ndarray) -> Cells:
    return Cells(cells.counts_NG[chosen_N], cells.batches_N[chosen_N], cells.labels_N[chosen_N])


def _unlabelled(cells: Cells) -> Cells:
    return Cells(cells.counts_NG, cells.batches_N, np.full_like(cells.labels_N, UNKNOWN))


def _nested(rows: pd.DataFrame) -> dict[str, Any]:
    """Write rows as objects by their embedding; what could not be measured is left out."""
    return {
        str(row.pop("embedding")): {
            str(name): value
            for name, value in row.items()
            if pd.notna(value) and not str(name).endswith("_half")
        }
        for row in rows.drop(columns="cells").to_dict("records")
    }
