"""The stage EvaluateFlux: what reconstructions and samples are worth, beside real images."""

import json
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import zntrack
from pydantic import Field
from torch import Tensor

from jemtrack.data.images import DataSplits
from jemtrack.errors import InputError
from jemtrack.flux.captions import captions_of
from jemtrack.flux.evaluation.judge import trained_judge
from jemtrack.flux.evaluation.measure import (
    GUIDED,
    PLAIN,
    Evaluation,
    Findings,
    Measures,
    measured,
    spread,
)
from jemtrack.flux.evaluation.page import FluxPage, render
from jemtrack.flux.sampling.generate import FlowSampler
from jemtrack.flux.sampling.grid import load_flow
from jemtrack.parameters import FROM_LIST, AtLeastOne, parameters
from jemtrack.project.results import ResultTracking
from jemtrack.shared.hardware import (
    DEFAULT_THREADS,
    DeviceName,
    Threads,
    chosen_device,
    keep_freed_memory,
)
from jemtrack.shared.pictures import as_pixels, encoded, grid, write_picture
from jemtrack.shared.progress import say
from jemtrack.stages.stage import Stage, plot

_COLUMNS, _MOST_ROWS = 10, 12  # of a grid of samples
_N_PAIRS, _PAIRS_IN_ROW = 40, 5
_SCALE = 3  # screen pixels a pixel


@parameters
class FluxEvalArgs:
    """What is measured.

    Attributes:
        n_images: test images, and samples by each sampler, at most.
        judge_steps: optimization steps of the judge, each on 64 training images.
        evaluations: numbers of evaluations of the flow processor to compare samples by.
        device: auto is a GPU if there is one, else the CPU.
        threads: of the CPU; see `jemtrack.shared.hardware.Hardware`.
    """

    n_images: Annotated[int, Field(ge=2)] = 2000
    judge_steps: AtLeastOne = 2000
    evaluations: Annotated[tuple[AtLeastOne, ...], FROM_LIST, Field(min_length=1)] = (4, 8, 16, 32)
    device: DeviceName = "auto"
    threads: Threads = DEFAULT_THREADS


class EvaluateFlux(Stage):
    """Measure a model by a classifier that no training has seen, and write a page on it.

    Attributes:
        data: the file of prepared images.
        model: the file of a model with a flow.
        params: what to measure.
        sampler: how samples are drawn; the page has them without guidance, too.
        metrics: of real images, reconstructions and samples.
        curve: samples without guidance over the number of evaluations.
        pictures: samples with guidance, a row for each class.
        report: the page; it needs no network and no file beside it.
    """

    data: Path = zntrack.deps_path()
    model: Path = zntrack.deps_path()
    params: FluxEvalArgs = zntrack.deps(default_factory=FluxEvalArgs)
    sampler: FlowSampler = zntrack.deps(default_factory=FlowSampler)
    metrics: Path = zntrack.metrics_path(zntrack.nwd / "metrics.json", cache=False)
    curve: Path = plot(zntrack.nwd / "curve.csv", x="evaluations", y=["judged_right", "distance"])
    pictures: Path = plot(zntrack.nwd / "samples.png")
    report: Path = zntrack.outs_path(zntrack.nwd / "report.html")

    def compute(self) -> None:
        """Train the judge, measure real images, reconstructions and samples, and write."""
        keep_freed_memory()
        tracking = ResultTracking(self.name)
        params, data = self.params, DataSplits.load(self.data)
        if data.captions:
            raise InputError(
                f"{self.data}: the judge finds classes, and {data.dataset} has captions alone; "
                "jemtrack sample draws by them"
            )
        device = chosen_device(params.device)
        file = load_flow(self.model, device)
        say("Training the judge")
        judge = trained_judge(data.train, data.n_classes, params.judge_steps, data.seed, device)
        evaluation = Evaluation(file, data, judge, params.n_images, data.seed)
        found = measured(evaluation, self.sampler, params.evaluations)
        curve = pd.DataFrame(found.curve)
        curve.to_csv(self.curve, index=False)
        metrics = {name.replace(" ", "_"): _numbers(each) for name, each in found.measures.items()}
        metrics["samples_without_guidance"]["memorised"] = found.memorised
        self.metrics.write_text(json.dumps(metrics, indent=2) + "\n")
        rows, labels = _rows(evaluation)
        write_picture(self.pictures, _of_classes(found.samples[GUIDED], rows), _SCALE)
        page = FluxPage(
            title=f"{self.model.parent.name} on {data.dataset}",
            n_images=len(evaluation.test),
            sampler=_in_words(self.sampler),
            measures=found.measures,
            memorised=found.memorised,
            curve=curve,
            samples={
                name: encoded(_of_classes(each, rows)) for name, each in found.samples.items()
            },
            rows=[captions_of(data)[label][0] for label in labels],
            pairs=_pairs(evaluation, found),
            parameters=file.metadata | _texts(self.params) | _texts(self.sampler),
        )
        self.report.write_text(render(page))
        say(f"Report: {self.report}")
        parameters = {"params": self.params, "sampler": self.sampler}
        tracking.send(parameters, metrics, [self.metrics, self.curve, self.pictures, self.report])


def _pairs(evaluation: Evaluation, found: Findings) -> dict[str, bytes]:
    """Draw pairs of images side by side, by what they show."""
    chosen = spread(len(evaluation.test), _N_PAIRS)
    samples_NCHW = found.samples[PLAIN][chosen]
    nearest = evaluation.nearest(samples_NCHW).index_N
    beside = {
        "Test images, each beside its reconstruction": (
            as_pixels(evaluation.real_images[chosen]),
            as_pixels(found.reconstructions_NCHW[chosen]),
        ),
        "Samples without guidance, each beside its nearest training image": (
            as_pixels(samples_NCHW),
            evaluation.data.train.images_NCHW[nearest],
        ),
    }
    return {
        name: encoded(grid(torch.cat(both, dim=3), _PAIRS_IN_ROW)) for name, both in beside.items()
    }


def _numbers(measures: Measures) -> dict[str, float]:
    """Return what is the same whenever the stage runs, and was measured."""
    found = {name: each for name, each in measures._asdict().items() if name != "milliseconds"}
    return {name: each for name, each in found.items() if each is not None}


def _rows(evaluation: Evaluation) -> tuple[Tensor, list[int]]:
    """Choose the first test images of each of the first classes; return them in rows, and these."""
    labels_N = evaluation.test.labels_N
    labels = sorted({*labels_N.tolist()})[:_MOST_ROWS]
    of_each = [torch.nonzero(labels_N == label)[:, 0] for label in labels]
    columns = min(_COLUMNS, *map(len, of_each))
    return torch.stack([each[:columns] for each in of_each]), labels


def _of_classes(images_NCHW: Tensor, rows_LN: Tensor) -> Tensor:
    return grid(as_pixels(images_NCHW[rows_LN.flatten()]), rows_LN.shape[1])


def _in_words(sampler: FlowSampler) -> str:
    return f"{sampler.solver}, {sampler.n_steps} steps, guidance {sampler.guidance:g}"


def _texts(parameters: Any) -> dict[str, str]:
    return {name: str(value) for name, value in vars(parameters).items()}
