"""The stage EvaluateX."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import zntrack
from pydantic import Field

from jemtrack.data.images import DataSplits, LabelledImages
from jemtrack.data.outliers import load_outliers
from jemtrack.errors import InputError
from jemtrack.evaluation.calibration_measures import CalibrationMeasures
from jemtrack.evaluation.model_outputs import save_outputs
from jemtrack.evaluation.results import Findings, Statistics, find_out
from jemtrack.jem.scores import ImageSets, looks
from jemtrack.parameters import parameters
from jemtrack.project.params import PARAMS
from jemtrack.project.provenance import provenance, read_others, stage_parameters
from jemtrack.stages.stage import Stage, plot
from jemtrack.train.hardware import DeviceName, chosen_device
from jemtrack.train.launch import keep_freed_memory


@parameters
class EvalArgs:
    """What the models are measured on.

    Attributes:
        split: the test, the training or the validation images of the data set.
        noise: add the noise that a model was trained with, the same for every model of equal
            `sigma`; or show the images as they are.
        images_per_pass: images in one forward pass; changes the speed and the memory alone.
        n_train_images: training images whose energies are set beside those of the others, and
            whose features say what is usual.
        n_resamples: of the bootstrap.
        level: of confidence, of all intervals.
        device: auto is a GPU where there is one, else the CPU.
    """

    split: Literal["test", "train", "valid"] = "test"
    noise: bool = True
    images_per_pass: Annotated[int, Field(ge=1)] = 500
    n_train_images: Annotated[int, Field(ge=1)] = 1000
    n_resamples: Annotated[int, Field(ge=100)] = 1000
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    device: DeviceName = "auto"


class EvaluateX(Stage):
    """Measures trained models side by side.

    Attributes:
        data: the file of prepared images.
        models: the trainers' model files; a trainer's folder gives its name here.
        outliers: files of images that the models have never seen, by PrepareOutliers.
        robustness: folders of curves, by MeasureRobustness, for the report.
        samples: folders of image grids, by DrawSamples, for the report.
        sample_metrics: files of what was measured on them, for the report.
        params: what to measure on.
        operation: what to measure, a dataclass called with logits and labels.
        metrics: an object a trainer.
        calibration: a reliability diagram's rows, a file a trainer.
        energies: how energies are spread, a file a trainer.
        risk_coverage: risk over coverage, a file a trainer.
        roc: the ROC curves of each score against each kind of outliers, a file a trainer.
        tables: all measures with their intervals, and all tests between trainers.
        outputs: what each model said of the images, for `jemtrack compare`.
        report: one page with all of it.
    """

    data: Path = zntrack.deps_path()
    models: list[Path] = zntrack.deps_path()
    outliers: list[Path] = zntrack.deps_path(default_factory=list)
    robustness: list[Path] = zntrack.deps_path(default_factory=list)
    samples: list[Path] = zntrack.deps_path(default_factory=list)
    sample_metrics: list[Path] = zntrack.deps_path(default_factory=list)
    params: EvalArgs = zntrack.deps(default_factory=EvalArgs)
    operation: Any = zntrack.deps(default_factory=CalibrationMeasures)
    metrics: Path = zntrack.metrics_path(zntrack.nwd / "metrics.json", cache=False)
    calibration: Path = plot(
        zntrack.nwd / "calibration", x="confidence", y="accuracy", template="confidence"
    )
    energies: Path = plot(zntrack.nwd / "energies", x="energy", y="share", template="energies")
    risk_coverage: Path = plot(zntrack.nwd / "risk_coverage", x="coverage", y="risk")
    roc: Path = plot(
        zntrack.nwd / "roc", x="false_positive_rate", y="true_positive_rate", template="roc"
    )
    tables: Path = zntrack.outs_path(zntrack.nwd / "tables")
    outputs: Path = zntrack.outs_path(zntrack.nwd / "outputs.safetensors")
    report: Path = zntrack.outs_path(zntrack.nwd / "report.html")

    def compute(self) -> None:
        """Let each model look at all images, once; measure, compare, and write it down."""
        keep_freed_memory()
        data = DataSplits.load(self.data)
        images = chosen_images(self.name, self.params, data)
        sets = ImageSets.of(data, images, self.params.n_train_images, self._outliers())
        looked = dict(
            looks(
                self.models,
                sets,
                noise=self.params.noise,
                seed=data.seed,
                batch_size=self.params.images_per_pass,
                device=chosen_device(self.params.device),
            )
        )
        findings = find_out(
            looked,
            images.labels_N,
            sets.valid.labels_N if sets.valid and self.params.split != "valid" else None,
            split=self.params.split,
            measures=self.operation,
            statistics=Statistics(data.seed, self.params.n_resamples, self.params.level),
        )
        self.metrics.write_text(json.dumps(findings.metrics, indent=2) + "\n")
        measured = {name: look.measured for name, look in looked.items()}
        save_outputs(measured, images.labels_N, self.outputs)
        self._write_tables(findings)
        self._write_report(findings, data, sets)

    def _outliers(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path in self.outliers:
            found |= load_outliers(path)
        return found

    def _write_tables(self, findings: Findings) -> None:
        for folder, tables in (
            (self.calibration, findings.calibration),
            (self.energies, findings.energies),
            (self.risk_coverage, findings.risk_coverage),
            (self.roc, findings.roc),
            (self.tables, findings.tables),
        ):
            folder.mkdir(parents=True, exist_ok=True)
            for name, table in tables.items():
                table.to_csv(folder / f"{name}.csv", index=False)

    def _write_report(self, findings: Findings, data: DataSplits, sets: ImageSets) -> None:
        # What draws takes a second to import.
        from jemtrack.evaluation.report.sections import evaluation_page

        others = read_others(self.robustness, self.samples, self.sample_metrics)
        inputs = [*self.models, self.data, *self.outliers, *self.robustness, *self.samples]
        stages = [self.name, *(path.parent.name for path in inputs)]
        written = evaluation_page(
            title=f"{self.name}: {data.dataset}, {len(findings.models)} models",
            facts={**self._measured_on(data, sets), **provenance()},
            findings=findings,
            others=others,
            parameters=stage_parameters(stages),
        )
        self.report.write_text(written)

    def _measured_on(self, data: DataSplits, sets: ImageSets) -> dict[str, str]:
        return {
            "measured on": f"{len(sets.measured)} {self.params.split} images of {data.dataset}",
            "noise": "as in training" if self.params.noise else "none",
            "outliers": ", ".join(f"{len(images)} {name}" for name, images in sets.outliers.items())
            or "none",
        }


def chosen_images(stage: str, params: EvalArgs, data: DataSplits) -> LabelledImages:
    """Give the images that the parameters of `stage` choose.

    Raises:
        InputError: when there are none.
    """
    images: LabelledImages = getattr(data, params.split)
    if len(images) == 0:
        raise InputError(
            f"{PARAMS}: {stage}.params.split must name images that there are, got "
            f"{params.split!r}: the data were prepared with n_valid 0"
        )
    return images
