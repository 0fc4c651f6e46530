"""An evaluator of a model, over the measures, tests and pictures that the stages use."""

from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from jemtrack.data.images import LabelledImages
from jemtrack.errors import InputError
from jemtrack.evaluation.measures.calibration_measures import CalibrationMeasures
from jemtrack.evaluation.models.comparison import Comparison, compare_classifiers
from jemtrack.evaluation.models.evaluate import MEASURED, TRAIN, VALID, Statistics, evaluate
from jemtrack.evaluation.models.results import EvaluationResults
from jemtrack.evaluation.statistics.seeds import over_folds
from jemtrack.factories.configuration import Config, Configuration, configured
from jemtrack.factories.model import ConfiguredModel, create_model, labelled_images
from jemtrack.factories.trainer import create_trainer
from jemtrack.jem.networks.energy_model import JointEnergyModel
from jemtrack.jem.networks.inference import predict
from jemtrack.jem.scores import image_set_outputs
from jemtrack.shared.hardware import cpu_threads

MODEL, BASELINE = "model", "baseline"
_BATCH_SIZE = 500


class Evaluator:
    """Measures a model on images without noise; see `create_evaluator`.

    Attributes:
        results: of the last `evaluate`: tables with intervals, calibration, ROC curves.
    """

    results: EvaluationResults | None = None

    def __init__(self, model: JointEnergyModel, configuration: Configuration) -> None:
        self.model, self.configuration = model, configuration

    def evaluate(self, data: Any = "test") -> dict[str, float]:
        """Measure the model: accuracy, NLL, Brier score, calibration errors and their kin.

        Args:
            data: as for `create_dataloader`.

        Raises:
            InputError: if the images do not fit, or the model has diverged.
        """
        images, all_data = self._images(data), self.configuration.data
        sets = {MEASURED: images, TRAIN: all_data.train}
        if len(all_data.valid):
            sets[VALID] = all_data.valid
        with cpu_threads(self.configuration.file.training.threads):
            outputs = image_set_outputs(
                self.model,
                {name: each.images_NCHW for name, each in sets.items()},
                all_data.train,
                sigma=0.0,
                seed=all_data.seed,
                batch_size=_BATCH_SIZE,
            )
        del sets[TRAIN]
        self.results = evaluate(
            {MODEL: outputs},
            {name: each.labels_N for name, each in sets.items()},
            split="images",
            measures=CalibrationMeasures(),
            statistics=Statistics(all_data.seed),
        )
        return {**self.results.metrics[MODEL]}

    def compare(self, baseline: JointEnergyModel, data: Any = "test") -> Comparison:
        """Compare the model with a baseline on the same images, with tests for each difference.

        Raises:
            InputError: if the images do not fit, or a model has diverged.
        """
        images = self._images(data)
        logits = {MODEL: self._logits(self.model, images), BASELINE: self._logits(baseline, images)}
        return compare_classifiers(logits, images.labels_N, seed=self.configuration.data.seed)

    def cross_validate(self, n_folds: int = 5, epochs: int | None = None) -> pd.DataFrame:
        """Train and measure a new model of the configuration for each fold of all images.

        Each fold's training is in a folder of its own, and is resumed after an interruption.

        Returns:
            A row a measure: its `mean` over the folds, `std`, and `low` and `high` of an interval
            that allows for the folds' common images.

        Raises:
            InputError: if a class has fewer images than there are folds.
        """
        rows = []
        for number in range(n_folds):
            configuration = self.configuration.of_fold(number, n_folds)
            model = create_model(configuration)
            trainer = create_trainer(model)
            trainer.folder = trainer.folder / f"fold_{number}_of_{n_folds}"
            trainer.fit(epochs=epochs)
            rows.append(Evaluator(model, configuration).evaluate())
        columns = pd.DataFrame(rows)
        found = {name: over_folds(columns[name].tolist())._asdict() for name in columns}
        return pd.DataFrame.from_dict(found, orient="index").rename(columns={"n_seeds": "n_folds"})

    def plot(self, folder: str | Path) -> list[Path]:
        """Draw the last `evaluate` into SVG files; needs the extra `plots`.

        Raises:
            InputError: if nothing was evaluated yet.
        """
        from jemtrack.evaluation.report import pictures

        if self.results is None:
            raise InputError("there is nothing to draw: call evaluate first")
        panels = {
            "intervals": pictures.intervals(self.results.tables["figures"]),
            "reliability": pictures.reliability(self.results.calibration),
            "risk_coverage": pictures.risk_coverage(self.results.risk_coverage),
            "confusion": pictures.confusion(self.results.tables["confusion"]),
            "energies": pictures.energies(self.results.energies),
        }
        Path(folder).mkdir(parents=True, exist_ok=True)
        paths = []
        for name, figures in panels.items():
            for number, figure in enumerate(figures):
                paths.append(Path(folder) / f"{name}_{number}.svg")
                paths[-1].write_text(pictures.as_svg(figure))
        return paths

    def _images(self, data: Any) -> LabelledImages:
        return labelled_images(data, self.configuration)

    def _logits(self, model: JointEnergyModel, images: LabelledImages) -> Tensor:
        with cpu_threads(self.configuration.file.training.threads):
            return predict(model, images, sigma=0.0, seed=0).logits_NC


def create_evaluator(model: ConfiguredModel, config: Config | None = None) -> Evaluator:
    """Create the evaluator of a model of `create_model`, by its own configuration or another.

    Raises:
        InputError: a line for each problem of the configuration.
    """
    return Evaluator(model, model.configuration if config is None else configured(config))
