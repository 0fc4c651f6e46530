"""What a page shows: results, images, histories, facts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from jemtrack.evaluation.models.results import EvaluationResults


class Misclassified(NamedTuple):
    """A PNG file of an image that a model classifies wrong, and how."""

    png: bytes
    label: int
    predicted: int
    confidence: float


@dataclass(frozen=True)
class Robustness:
    """What corruptions and attacks do.

    Attributes:
        curves: rows with the columns `model`, `group` (corruption or attack), `kind`, `strength`,
            `accuracy`, `low`, `high`, `count`.
        figures, tests: means over the strengths, as in
            `jemtrack.evaluation.statistics.means.MeansCompared`.
    """

    curves: pd.DataFrame = field(default_factory=pd.DataFrame)
    figures: pd.DataFrame = field(default_factory=pd.DataFrame)
    tests: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(frozen=True)
class Examples:
    """PNG files of images.

    Attributes:
        real: test images, a row for each class.
        outliers: some outliers of each kind.
        corruptions: an image at each strength of each kind of corruption.
        errors: by model, the images that it is most wrongly sure of.
    """

    real: bytes | None = None
    outliers: Mapping[str, bytes] = field(default_factory=dict)
    corruptions: Mapping[str, bytes] = field(default_factory=dict)
    errors: Mapping[str, Sequence[Misclassified]] = field(default_factory=dict)


@dataclass(frozen=True)
class PageContent:
    """What a page shows.

    Attributes:
        title: of the page.
        facts: what was measured on which images, as `EvaluateX` writes it.
        results: of the evaluation.
        code: the commit of the code that made the results.
        changed_files: source files that differed from it.
        robustness: what corruptions and attacks do.
        grids: by model, a PNG file of samples with a row for each class.
        samples: by model, what was measured on its samples.
        examples: of images.
        histories: by model, the metrics of each epoch.
        training: by model, its size and what its training took, as text.
        data: facts about the data set, as text.
        counts: images by class (rows) and split (columns).
        environment: versions and hardware.
        parameters: by stage, values by dotted name.
    """

    title: str
    facts: Mapping[str, Any]
    results: EvaluationResults
    code: str
    changed_files: Sequence[str] = ()
    robustness: Robustness = field(default_factory=Robustness)
    grids: Mapping[str, bytes] = field(default_factory=dict)
    samples: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    examples: Examples = field(default_factory=Examples)
    histories: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    training: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    counts: pd.DataFrame = field(default_factory=pd.DataFrame)
    environment: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
