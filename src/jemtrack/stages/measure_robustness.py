"""The stage MeasureRobustness."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import zntrack
from pydantic import AfterValidator, Field, WithJsonSchema

from jemtrack.data.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from jemtrack.data.images import DataSplits, LabelledImages
from jemtrack.evaluation.attacks import check_toolbox, correct_under_attack
from jemtrack.evaluation.measures.inputs import LabelledLogits
from jemtrack.evaluation.statistics.means import compare_means
from jemtrack.evaluation.statistics.resampling import wilson_interval
from jemtrack.jem.networks.inference import predict
from jemtrack.jem.networks.model_file import load_model, trained_noise
from jemtrack.parameters import parameters
from jemtrack.project.results import ResultTracking
from jemtrack.shared.hardware import (
    DEFAULT_THREADS,
    DeviceName,
    Threads,
    chosen_device,
    keep_freed_memory,
)
from jemtrack.shared.progress import track
from jemtrack.shared.random_streams import generator
from jemtrack.stages.stage import Stage, plot


def _known(kind: str) -> str:
    if kind not in CORRUPTIONS:
        raise ValueError(f"must be one of {', '.join(CORRUPTIONS)}, got {kind!r}")
    return kind


# Also in the schema, so that a misspelt kind stops the first stage and not the last one.
_KINDS = {"type": "string", "enum": [*CORRUPTIONS]}
Kind = Annotated[str, AfterValidator(_known), WithJsonSchema(_KINDS)]
Radii = list[Annotated[float, Field(gt=0, allow_inf_nan=False)]]


@parameters
class RobustnessArgs:
    """The corruptions and attacks of test images.

    Attributes:
        n_images: of the test images, drawn by chance; all where there are fewer.
        corruptions: which kinds, each at five strengths.
        linf_radii: of attacks that change each value, 0 to 1, by at most so much.
        l2_radii: of attacks that change the image by at most so much altogether.
        n_attacked: of the images; each up to the smallest radius within which the model fails.
        n_steps: of an attack.
        images_per_pass: images in one forward pass; changes the speed and the memory alone.
        device: auto is a GPU if there is one, else the CPU.
        threads: of the CPU; see `jemtrack.shared.hardware.Hardware`.
    """

    n_images: Annotated[int, Field(ge=1)] = 1000
    corruptions: list[Kind] = field(default_factory=lambda: [*CORRUPTIONS])
    linf_radii: Radii = field(default_factory=lambda: [0.02, 0.05, 0.1, 0.2])
    l2_radii: Radii = field(default_factory=lambda: [0.25, 0.5, 1.0, 2.0])
    n_attacked: Annotated[int, Field(ge=1)] = 200
    n_steps: Annotated[int, Field(ge=1)] = 20
    images_per_pass: Annotated[int, Field(ge=1)] = 500
    device: DeviceName = "auto"
    threads: Threads = DEFAULT_THREADS


class _Result(NamedTuple):
    """Which images, (N,), a model classifies right at one strength of a kind."""

    group: str
    kind: str
    strength: float
    right_N: np.ndarray

    def table_row(self) -> dict[str, Any]:
        """Compute the accuracy with its interval."""
        low, high = wilson_interval(self.right_N.sum(), len(self.right_N))
        return {
            **{"group": self.group, "kind": self.kind, "strength": self.strength},
            **{"accuracy": float(self.right_N.mean()), "low": float(low), "high": float(high)},
            "count": len(self.right_N),
        }


class MeasureRobustness(Stage):
    """Measure how often models are right when images are corrupted or attacked.

    Attributes:
        data: the file of prepared images.
        models: the trainers' model files; a trainer's folder is the model's name.
        params: what is done to the images.
        metrics: an object for each model; an output in DVC's cache, for as a DVC metric it would
            add a column for each model and measure.
        curves: accuracy by kind and strength, a file for each model.
        tables: mean accuracy over the strengths of each kind with intervals, and tests between
            models.
    """

    data: Path = zntrack.deps_path()
    models: list[Path] = zntrack.deps_path()
    params: RobustnessArgs = zntrack.deps(default_factory=RobustnessArgs)
    metrics: Path = zntrack.outs_path(zntrack.nwd / "metrics.json")
    curves: Path = plot(zntrack.nwd / "curves", x="strength", y="accuracy", template="robustness")
    tables: Path = zntrack.outs_path(zntrack.nwd / "tables")

    def compute(self) -> None:
        """Corrupt and attack the same images for each model."""
        radii = [*self.params.linf_radii, *self.params.l2_radii]
        if radii:
            check_toolbox()
        keep_freed_memory()
        tracking = ResultTracking(self.name)
        n_results = 1 + len(self.params.corruptions) * len(STRENGTHS) + len(radii)
        data = DataSplits.load(self.data)
        stream = generator(data.seed, "images of robustness")
        images = data.test[torch.randperm(len(data.test), generator=stream)[: self.params.n_images]]
        self.curves.mkdir(parents=True, exist_ok=True)
        results = {}
        for path in self.models:
            model, found = path.parent.name, self._results(path, images, data)
            results[model] = [*track(found, f"Testing {model}", n_results)]
        metrics = {}
        for model, rows in results.items():
            table = pd.DataFrame([row.table_row() for row in rows])
            table.to_csv(self.curves / f"{model}.csv", index=False)
            metrics[model] = _means(table)
        figures, tests = compare_means(_by_image(results), data.seed)
        self.tables.mkdir(parents=True, exist_ok=True)
        figures.to_csv(self.tables / "figures.csv", index=False)
        tests.to_csv(self.tables / "tests.csv", index=False)
        self.metrics.write_text(json.dumps(metrics, indent=2) + "\n")
        tracking.send({"params": self.params}, metrics, [self.metrics])

    def _results(self, path: Path, images: LabelledImages, data: DataSplits) -> Iterator[_Result]:
        model, _, notes = load_model(path)
        # An attack needs the gradients of the images alone.
        model.eval().requires_grad_(False).to(chosen_device(self.params.device))
        sigma, at_once = trained_noise(path, notes), self.params.images_per_pass
        for kind, strength, shown in self._corrupted(images, data.seed):
            logits_NC, _ = predict(model, shown, sigma=sigma, seed=data.seed, batch_size=at_once)
            right_N = LabelledLogits(logits_NC, images.labels_N).correct_N
            yield _Result("corruption", kind, strength, right_N)
        some = images[torch.arange(min(self.params.n_attacked, len(images)))]
        for norm in ("linf", "l2"):
            right_N = np.ones(len(some), bool)
            for radius in sorted(getattr(self.params, f"{norm}_radii")):
                right_N = correct_under_attack(
                    model,
                    some.images_NCHW,
                    some.labels_N,
                    right_N,
                    n_classes=data.n_classes,
                    norm=norm,
                    radius=radius,
                    n_steps=self.params.n_steps,
                    seed=data.seed,
                    batch_size=at_once,
                )
                yield _Result("attack", f"pgd_{norm}", radius, right_N)

    def _corrupted(
        self, images: LabelledImages, seed: int
    ) -> Iterator[tuple[str, int, LabelledImages]]:
        yield "none", 0, images
        for kind in self.params.corruptions:
            for strength in STRENGTHS:
                shown_NCHW = corrupt(images.images_NCHW, kind, strength, seed)
                yield kind, strength, LabelledImages(shown_NCHW, images.labels_N)


def _by_image(results: Mapping[str, Sequence[_Result]]) -> dict[str, dict[str, np.ndarray]]:
    """Average over strengths: by kind and model, the share of strengths at which an image is right.

    The groups (`corruption`, `attack`) come first, as means over all of their kinds.
    """
    rows = {model: [row for row in each if row.kind != "none"] for model, each in results.items()}
    every = [row for each in rows.values() for row in each]
    names = dict.fromkeys([*(row.group for row in every), *(row.kind for row in every)])
    return {
        name: {
            model: np.mean([row.right_N for row in each if name in (row.group, row.kind)], axis=0)
            for model, each in rows.items()
        }
        for name in names
    }


def _means(table: pd.DataFrame) -> dict[str, float]:
    """Average the accuracy of clean images, corrupted ones (all, each kind) and attacked ones."""
    corrupted = table[(table["group"] == "corruption") & (table["kind"] != "none")]
    by_kind = corrupted.groupby("kind", sort=False)["accuracy"].mean()
    means = {"accuracy": float(table["accuracy"].iloc[0])}
    if len(by_kind):
        means["corrupted"] = float(by_kind.mean())
        means |= {str(kind): float(mean) for kind, mean in by_kind.items()}
    for row in table[table["group"] == "attack"].to_dict("records"):
        means[f"{row['kind']}_{row['strength']:g}"] = row["accuracy"]
    return means
