"""What Report reads: example images, trainings, the data set, the environment."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from torch import Tensor

from jemtrack.data.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from jemtrack.data.images import PARTS, DataSplits, LabelledImages, load_outliers
from jemtrack.evaluation.measures.inputs import LabelledLogits
from jemtrack.evaluation.models.model_outputs import StoredOutputs
from jemtrack.evaluation.report.content import Examples, Misclassified
from jemtrack.shared.pictures import encoded, grid

_PER_ROW = 10
# Under which terms the known data sets may be used, as their publishers say.
_LICENCES = {
    "digits": "CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits)",
    "mnist": "CC BY-SA 3.0 (LeCun and Cortes)",
    "mnist5k": "CC BY-SA 3.0 (LeCun and Cortes)",
    "fashion-mnist": "MIT (Zalando SE)",
    "cifar10": "none stated by the publisher (Krizhevsky)",
    "cifar100": "none stated by the publisher (Krizhevsky)",
}


def examples(
    data: DataSplits,
    split: str,
    outliers: Iterable[Path],
    kinds: Iterable[str],
    stored: StoredOutputs,
) -> Examples:
    """Choose images: of each class, outliers, one under each kind of corruption, errors."""
    measured: LabelledImages = getattr(data, split)
    found = {name: each for path in outliers for name, each in load_outliers(path).items()}
    first = data.test.images_NCHW[:1]
    shown = {
        kind: torch.cat([first, *(corrupt(first, kind, each, data.seed) for each in STRENGTHS)])
        for kind in kinds
        if kind in CORRUPTIONS
    }
    return Examples(
        real=png(*_of_each_class(data.test, data.n_classes)),
        outliers={name: png(each[:_PER_ROW], _PER_ROW) for name, each in found.items()},
        corruptions={kind: png(each, len(each)) for kind, each in shown.items()},
        errors={
            model: errors(measured, LabelledLogits(each.logits_NC, stored.labels_N))
            for model, each in stored.outputs.items()
        },
    )


def errors(images: LabelledImages, checked: LabelledLogits) -> list[Misclassified]:
    """Choose up to ten images that are classified wrong, the most confident first."""
    wrong = np.flatnonzero(~checked.correct_N)
    chosen = wrong[np.argsort(-checked.confidence_N[wrong], kind="stable")][:_PER_ROW]
    predicted_N = checked.probabilities_NC.argmax(dim=1)
    return [
        Misclassified(
            png(images.images_NCHW[at : at + 1], 1),
            int(checked.labels_N[at]),
            int(predicted_N[at]),
            float(checked.confidence_N[at]),
        )
        for at in chosen.tolist()
    ]


def png(images_NCHW: Tensor, columns: int) -> bytes:
    """Write uint8 images as one PNG file, side by side in `columns`, a pixel a pixel."""
    return encoded(grid(images_NCHW, columns))


def _of_each_class(images: LabelledImages, n_classes: int) -> tuple[Tensor, int]:
    """Choose equally many images of each class, ten at most, and how many these are."""
    counts = torch.bincount(images.labels_N, minlength=n_classes)
    columns = max(1, min(_PER_ROW, *counts[counts > 0].tolist()))
    chosen = [torch.nonzero(images.labels_N == each)[:columns, 0] for each in range(n_classes)]
    return images.images_NCHW[torch.cat(chosen)], columns


def training_costs(model: Path, epochs: pd.DataFrame | None) -> dict[str, str]:
    """Count a model's weights and epochs; read what its training took, if that is beside it."""
    with safe_open(model, framework="pt") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    found = {"weights": f"{sum(int(np.prod(shape)) for shape in shapes):,}"}
    if epochs is not None:
        found["epochs"] = str(len(epochs))
    if costs := _costs(model):
        found["seconds"] = f"{costs['seconds']:.0f}"
        found["peak memory (MiB)"] = f"{costs['peak_memory_mib']:.0f}"
    return found


def data_facts(data: DataSplits, path: Path) -> dict[str, str]:
    """Describe a prepared data set: its images, licence and digest."""
    channels, height, width = data.train.images_NCHW.shape[1:]
    return {
        "images": ", ".join(f"{len(getattr(data, part))} {part}" for part in PARTS),
        "size": f"{height} x {width} pixels, {channels} channel{'s' if channels > 1 else ''}",
        "classes": str(data.n_classes),
        "licence": _LICENCES.get(data.dataset, "not known to jemtrack"),
        "seed of the split": str(data.seed),
        "MD5 of the prepared file": hashlib.md5(
            path.read_bytes(), usedforsecurity=False
        ).hexdigest(),
    }


def class_counts(data: DataSplits) -> pd.DataFrame:
    """Count the images of each class (rows) in each split (columns)."""
    parts: Mapping[str, LabelledImages] = {part: getattr(data, part) for part in PARTS}
    return pd.DataFrame(
        {
            part: torch.bincount(images.labels_N, minlength=data.n_classes).numpy()
            for part, images in parts.items()
        }
    )


def environment(models: Iterable[Path]) -> dict[str, str]:
    """List the versions and the hardware that models were made with; those that differ, all."""
    found: dict[str, dict[str, None]] = {}
    for model in models:
        for name, value in _costs(model).get("environment", {}).items():
            found.setdefault(name, {})[value] = None
    return {name: ", ".join(values) for name, values in found.items()}


def _costs(model: Path) -> dict[str, Any]:
    """Read what the stage that made a model has noted of its run; empty if it is not there."""
    path = model.with_name("resources.json")
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found
