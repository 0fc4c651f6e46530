"""Stages declared, written into the graph's files and run in this process, on a few images."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from jemtrack.data.images import DataSplits, LabelledImages
from jemtrack.evaluation.models.results import metrics_of
from jemtrack.jem.networks.model_file import ModelFile, load_model
from jemtrack.project import graph as files
from jemtrack.stages.stage import Stage

N_CLASSES = 4
SMALL = {"width": 1, "n_epochs": 1, "batch_size": 16, "n_steps": 0, "sigma": 0.1, "threads": 1}

Weights = dict[str, torch.Tensor]


def some_images(n: int, seed: int) -> LabelledImages:
    """Make images whose class can be seen: a bright quarter on noise."""
    stream = torch.Generator().manual_seed(seed)
    images = torch.randint(128, (n, 1, 8, 8), dtype=torch.uint8, generator=stream)
    labels = torch.arange(n) % N_CLASSES
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[:, row : row + 4, column : column + 4] += 127
    return LabelledImages(images, labels)


def prepared_file(seed: int = 1) -> Path:
    parts = (some_images(n, n) for n in (48, 12, 16))
    DataSplits("quarters", N_CLASSES, False, seed, *parts).save(Path("images.safetensors"))
    return Path("images.safetensors")


def ran(*nodes: Stage) -> Path:
    """Write the nodes into the graph and run them; give the folder of the last one's outs."""
    files.write_graph(nodes)
    for node in nodes:
        node.run()
    return nodes[-1].nwd


def model_in(folder: Path) -> ModelFile:
    return load_model(folder / "model.safetensors")


def weights_in(folder: Path) -> Weights:
    return model_in(folder).model.state_dict()


def metrics_in(folder: Path) -> dict[str, Any]:
    """Read the metrics of a stage, those of an evaluation from its table of all measures."""
    table = folder / "tables" / "measures.csv"
    if table.exists():
        return metrics_of(pd.read_csv(table))
    return json.loads((folder / "metrics.json").read_text())


def history_in(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "history.csv")


def final_metrics_in(folder: Path) -> dict[str, Any]:
    """Read the metrics of a trained model from the last line of the record."""
    *_, last = (folder / "record" / "run.jsonl").read_text().splitlines()
    metrics: dict[str, Any] = json.loads(last)["metrics"]
    return metrics


def are_equal(first: Weights, second: Weights, only: str = "") -> bool:
    return all(first[name].equal(second[name]) for name in first if name.startswith(only))
