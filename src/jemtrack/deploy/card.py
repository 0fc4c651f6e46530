"""The model card of a bundle: what it answers, how well, and what it must not be used for."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from jemtrack.errors import InputError
from jemtrack.evaluation.models.results import read_tables

_NAMES = {
    "accuracy": "accuracy",
    "nll": "NLL, at the temperature",
    "auroc": "AUROC of log p~(x), mean over the kinds of outliers",
    "refused": "test images refused",
    "outliers_refused": "outliers refused, mean over their kinds",
}


def card(description: Mapping[str, Any], evaluation: str = "") -> str:
    """Write the card of the bundle that `description` describes; see `evaluation_section`."""
    parts = [_answers(description), _figures(description), evaluation, _limits(description)]
    return "\n\n".join([f"# {description['name']}", *filter(None, parts)]) + "\n"


def evaluation_section(model: str, tables: Path) -> str:
    """Write the figures of a model with their intervals, from the tables of EvaluateX.

    Raises:
        InputError: if it has none of this model.
    """
    return "\n\n".join(_evaluation(model, tables))


def _answers(description: Mapping[str, Any]) -> str:
    channels, height, width = description["input"]["shape"]
    return f"""\
A joint energy-based model: a classifier of {len(description["classes"])} classes that also says how
probable an image is. It takes uint8 images of {channels} x {height} x {width}, 0 to 255, as they
are: scaling is in the graph. For each image it answers

- `probabilities` of the classes, at a temperature fitted on validation images;
- `log_density`, log p~(x) in nats: log p(x) up to a constant of this model. Only differences
  between images mean something, never those between models;
- `mahalanobis`, minus the squared distance to the nearest class among the features;
- `refused`: whether log p~(x) is below the threshold, "I have not seen this".

`python predict.py --self-test` computes the stored samples again; numpy and onnxruntime suffice."""


def _figures(description: Mapping[str, Any]) -> str:
    models, on = description["models"], description["measured_on"]
    lines = [
        f"## Measured as it is, on {on['n_test']} test images of {on['dataset']}",
        "",
        "| | " + " | ".join(models) + " |",
        "|---|" + "---|" * len(models),
    ]
    columns = [{**each, **each["figures"], **each["differences"]} for each in models.values()]
    rows = {
        **{name: label for name, label in _NAMES.items() if name in columns[0]},
        "temperature": "temperature",
        "threshold": "threshold of log p~(x)",
        "probabilities": "largest difference to PyTorch of a probability",
        "log_density": "and of log p~(x)",
        "mahalanobis": "and of the Mahalanobis score, as a share of it",
        "bytes": "bytes",
    }
    for name, label in rows.items():
        values = (column[name] for column in columns)
        cells = (str(each) if isinstance(each, int) else f"{each:.4g}" for each in values)
        lines.append(f"| {label} | {' | '.join(cells)} |")
    if mass := description.get("approximate_mass"):
        lines += [
            "",
            "`mass.onnx` computes the approximate mass -||d log p~(x) / dx||, which differs from "
            f"PyTorch's by at most {mass['difference']:.2g} of it for 99% of the images, and by "
            f"{mass['largest']:.2g} at most.",
        ]
    if description["refused"]:
        lines += ["", f"{description['refused']}."]
    return "\n".join(lines)


def _evaluation(model: str, tables: Path) -> Iterator[str]:
    found = read_tables(tables)
    figures = found["figures"]
    figures = figures[figures["model"] == model]
    if not len(figures):
        raise InputError(f"{tables}/figures.csv has no model {model!r}: evaluate it first")
    yield "## By the evaluation, beside the other models\n\n" + _intervals(figures, "measure")
    if "outliers" in found:
        rows = found["outliers"]
        rows = rows[(rows["model"] == model) & (rows["score"] == "log_density")]
        rows = rows.rename(columns={"auroc": "value", "auroc_low": "low", "auroc_high": "high"})
        yield "AUROC of log p~(x) against each kind of outliers:\n\n" + _intervals(rows, "partner")


def _intervals(rows: pd.DataFrame, name: str) -> str:
    lines = ["| | value | interval |", "|---|---|---|"]
    for row in rows.to_dict("records"):
        lines.append(
            f"| {row[name]} | {row['value']:.4f} | {row['low']:.4f} to {row['high']:.4f} |"
        )
    return "\n".join(lines)


def _limits(description: Mapping[str, Any]) -> str:
    on, alpha = description["measured_on"], description["alpha"]
    return f"""\
## What the threshold promises

It is the split-conformal one of the {on["n_valid"]} validation images: of images of the same kind,
at most {100 * alpha:g}% are refused, on average over draws of validation images and of new ones. It
promises nothing about the share of other images that is caught: the table says what was measured.
The promise needs validation images that chose neither the weights nor the epoch: with the callback
`best_weights` it is an estimate. A caller may pass another threshold.

## What it must not be used for

- Images of another kind than {on["dataset"]}, other sizes, or images that were resized or scaled
  in another way than these.
- Decisions about people, unless it was evaluated for them.
- log p~(x) as a probability, or compared between models."""
