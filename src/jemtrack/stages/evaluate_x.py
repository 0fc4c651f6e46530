"""The stage EvaluateX."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import zntrack
from pydantic import Field

from jemtrack.data.images import DataSplits, LabelledImages
from jemtrack.engine.memory import keep_freed_memory
from jemtrack.errors import InputError
from jemtrack.evaluation.calibration_measures import CalibrationMeasures
from jemtrack.jem.inference import predict
from jemtrack.jem.model_file import load_model
from jemtrack.parameters import parameters
from jemtrack.stages.parameter_file import PARAMS
from jemtrack.stages.stage import Stage, plot


@parameters
class EvalArgs:
    """What the models are measured on.

    Attributes:
        split: the test, the training or the validation images of the data set.
        noise: add the noise that a model was trained with, the same for every model of equal
            `sigma`; or show the images as they are.
        images_per_pass: images in one forward pass; changes the speed and the memory alone.
    """

    split: Literal["test", "train", "valid"] = "test"
    noise: bool = True
    images_per_pass: Annotated[int, Field(ge=1)] = 500


class EvaluateX(Stage):
    """Measures trained models side by side.

    Attributes:
        data: the file of prepared images.
        models: the trainers' model files; a trainer's folder gives its name here.
        params: what to measure on.
        operation: what to measure, a dataclass called with logits and labels.
        metrics: an object a trainer.
        calibration: a reliability diagram's rows, a file a trainer.
    """

    data: Path = zntrack.deps_path()
    models: list[Path] = zntrack.deps_path()
    params: EvalArgs = zntrack.deps(default_factory=EvalArgs)
    operation: Any = zntrack.deps(default_factory=CalibrationMeasures)
    metrics: Path = zntrack.metrics_path(zntrack.nwd / "metrics.json", cache=False)
    calibration: Path = plot(
        zntrack.nwd / "calibration", x="confidence", y="accuracy", template="confidence"
    )

    def compute(self) -> None:
        """Let each model classify the images, and measure how well and how honestly it does."""
        keep_freed_memory()
        data = DataSplits.load(self.data)
        images = chosen_images(self.name, self.params, data)
        self.calibration.mkdir(parents=True, exist_ok=True)
        metrics = {}
        for path in self.models:
            name = path.parent.name
            measured = self.measure(path, images, data.seed)
            metrics[name] = measured.metrics
            measured.reliability.to_csv(self.calibration / f"{name}.csv", index=False)
        self.metrics.write_text(json.dumps(metrics, indent=2) + "\n")

    def measure(self, path: Path, images: LabelledImages, seed: int) -> Any:
        """Give what the operation says of the model at `path`."""
        model, _, notes = load_model(path)
        predictions = predict(
            model,
            images,
            sigma=float(notes["sigma"]) if self.params.noise else 0.0,
            seed=seed,
            batch_size=self.params.images_per_pass,
        )
        return self.operation(predictions.logits_NC, images.labels_N)


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
