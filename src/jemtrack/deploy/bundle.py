"""Write a bundle: the exported models, their description, and what reads them without jemtrack.

Letters: N images.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from jemtrack.data.images import DataSplits, LabelledImages
from jemtrack.deploy import predict
from jemtrack.deploy.args import DeployArgs
from jemtrack.deploy.card import card
from jemtrack.deploy.conformal import conformal_rank, conformal_threshold
from jemtrack.deploy.exported import DeployedModel, WhitenedMahalanobis
from jemtrack.deploy.figures import (
    Measurement,
    Measuring,
    Run,
    answers,
    evaluated,
    refuse_fp32,
    refuse_worse,
)
from jemtrack.deploy.gradient import BOUND, export_mass, mass_differences
from jemtrack.deploy.int8 import quantised
from jemtrack.deploy.onnx_file import export_model, with_defaults
from jemtrack.errors import InputError
from jemtrack.evaluation.measures.inputs import LabelledLogits
from jemtrack.evaluation.measures.temperature import fit_temperature
from jemtrack.files import atomic_write_all, file_digest
from jemtrack.jem.networks.inference import noisy_batches, trunk_features
from jemtrack.jem.networks.model_file import load_model
from jemtrack.shared.random_streams import generator

INT8 = "model.int8.onnx"
_VERSIONS = ("jemtrack", "torch", "onnx", "onnxscript", "onnxruntime")


def model_name(path: Path) -> str:
    """Name a model by the folder of its file."""
    return path.absolute().parent.name


@dataclass(frozen=True)
class Material:
    """A trained model, the images to fit and measure its exports on, and what to promise.

    Attributes:
        path: the model file; its folder is the model's name.
        data: its validation images fit temperature and threshold, its test images measure.
        outliers: uint8 images (N, C, H, W), by kind.
        args: of the bundle.
        evaluation: the section of the card with the evaluation's figures, if there is one.

    Raises:
        InputError: if there are too few validation images, or outliers of another shape.
    """

    path: Path
    data: DataSplits
    outliers: Mapping[str, Tensor]
    args: DeployArgs
    evaluation: str = ""

    @property
    def name(self) -> str:
        """The model's name."""
        return model_name(self.path)

    def __post_init__(self) -> None:
        """Check the images, before the model is exported."""
        conformal_rank(len(self.data.valid), self.args.alpha)
        for kind, images_NCHW in self.outliers.items():
            if (found := tuple(images_NCHW.shape[1:])) != self.image_shape:
                raise InputError(
                    f"outliers {kind!r} must be images of {self.image_shape}, as those of "
                    f"{self.data.dataset}, got {found}"
                )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.data.train.images_NCHW.shape[1:]
        return channels, height, width

    def training_images(self) -> LabelledImages:
        """Draw training images, by the data's seed."""
        train, stream = self.data.train, generator(self.data.seed, "training images of a bundle")
        return train[torch.randperm(len(train), generator=stream)[: self.args.n_train_images]]


@dataclass(frozen=True)
class Exported:
    """A model as PyTorch has it, what it must agree with, and its graph.

    Attributes:
        module: computes the `Outputs`.
        mahalanobis: the score as the evaluation computes it.
        graph: of the module, without temperature and threshold.
    """

    module: DeployedModel
    mahalanobis: WhitenedMahalanobis
    graph: onnx.ModelProto

    @classmethod
    def of(cls, material: Material) -> "Exported":
        """Load the model, fit the Mahalanobis score, and export both."""
        network, shape, _ = load_model(material.path)
        found = (material.data.n_classes, material.image_shape[0])
        if found != (shape.n_classes, shape.channels):
            raise InputError(
                f"{material.path} is for {shape.n_classes} classes and {shape.channels} channels, "
                f"the images have {found[0]} and {found[1]}: pass those that it was trained on"
            )
        train = material.training_images()
        features_NF = trunk_features(network, noisy_batches(train.images_NCHW, 0.0, 0))
        mahalanobis = WhitenedMahalanobis(features_NF, train.labels_N)
        module = DeployedModel(network, mahalanobis)
        return cls(module, mahalanobis, export_model(module, material.image_shape))

    def measuring(self, material: Material) -> Measuring:
        """Make what measures exports of the model."""
        pytorch = evaluated(self.module.network, self.mahalanobis)
        return Measuring(pytorch, material.data.test, material.outliers)


@dataclass(frozen=True)
class FittedModel:
    """A graph with its own temperature and threshold, and what was measured of it.

    Attributes:
        content: the bytes of the ONNX file.
        temperature: which fits the validation images best.
        threshold: of log p~(x).
        measured: on the test images and outliers.
    """

    content: bytes
    temperature: float
    threshold: float
    measured: Measurement

    def about(self) -> dict[str, Any]:
        """Describe it, for bundle.json."""
        return {
            "temperature": self.temperature,
            "threshold": self.threshold,
            "differences": self.measured.differences,
            "figures": self.measured.figures,
            "bytes": len(self.content),
        }


def onnx_run(content: bytes, threads: int = 0) -> Run:
    """Make what runs a graph in onnxruntime, at its own temperature and threshold."""
    session = predict.open_session(content, threads)
    names = [each.name for each in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(None, {predict.INPUT: images}), strict=True))


def fit_and_measure(
    graph: onnx.ModelProto, material: Material, measuring: Measuring
) -> FittedModel:
    """Fit temperature and threshold of a graph on its own outputs, and measure it."""
    valid = material.data.valid
    threads = material.args.threads
    found = answers(onnx_run(with_defaults(graph, 1.0, 0.0, {}), threads), valid.images_NCHW)
    labelled = LabelledLogits(torch.from_numpy(found["logits"]), valid.labels_N)
    temperature = fit_temperature(labelled.logits_NC, labelled.labels_N)
    threshold = conformal_threshold(found["log_density"], material.args.alpha)
    notes = {
        "model": material.name,
        "alpha": repr(material.args.alpha),
        predict.TEMPERATURE: repr(temperature),
        predict.THRESHOLD: repr(threshold),
        "classes": json.dumps(_classes(material)),
    }
    content = with_defaults(graph, temperature, threshold, notes)
    measured = measuring(onnx_run(content, threads), temperature)
    return FittedModel(content, temperature, threshold, measured)


def fitted_models(exported: Exported, material: Material) -> tuple[dict[str, FittedModel], str]:
    """Make the models of a bundle, by file; and say why the int8 one is refused, else "".

    Raises:
        InputError: if the float32 one does not agree with PyTorch.
    """
    measuring = exported.measuring(material)
    plain = fit_and_measure(exported.graph, material, measuring)
    refuse_fp32(f"{material.name}: {predict.MODEL}", plain.measured)
    models = {predict.MODEL: plain}
    if not material.args.int8:
        return models, ""
    graph = quantised(exported.graph, material.training_images().images_NCHW.numpy())
    small = fit_and_measure(graph, material, measuring)
    try:
        what, bounds = f"{material.name}: {INT8}", material.args.int8_bounds
        refuse_worse(what, small.measured.figures, plain.measured.figures, bounds)
    except InputError as error:
        return models, str(error)
    return {**models, INT8: small}, ""


def write_bundle(exported: Exported, material: Material, folder: Path) -> dict[str, Any]:
    """Write the bundle into `folder`, in the place of an earlier one; return its description.

    The same inputs give the same bytes.

    Raises:
        InputError: if the float32 model, or the approximate mass, does not agree with PyTorch; then
            nothing is written.
    """
    models, refused = fitted_models(exported, material)
    description = _description(material, models, refused)
    files = {name: each.content for name, each in models.items()}
    if material.args.gradient:
        files[predict.MASS_FILE], description[predict.MASS] = _mass(exported, material)
    files[predict.SAMPLES] = _samples(files, material)
    files["predict.py"] = Path(predict.__file__).read_bytes()
    files["card.md"] = card(description, material.evaluation).encode()
    description["files"] = {name: hashlib.sha256(each).hexdigest() for name, each in files.items()}
    description["sha256"] = predict.digest_of(description)
    files[predict.DESCRIPTION] = (json.dumps(description, indent=1) + "\n").encode()
    _write(files, folder)
    return description


def _write(files: Mapping[str, bytes], folder: Path) -> None:
    for old in (folder / name for name in (*files, INT8, predict.MASS_FILE)):
        if old.is_symlink() or old.name not in files:  # into DVC's cache; of an earlier bundle
            old.unlink(missing_ok=True)
    atomic_write_all(
        {folder / name: partial(Path.write_bytes, data=each) for name, each in files.items()}
    )


def _mass(exported: Exported, material: Material) -> tuple[bytes, dict[str, Any]]:
    """Export the approximate mass, and measure it on the test images."""
    network, images_NCHW = exported.module.network, material.data.test.images_NCHW
    graph = export_mass(network, material.image_shape)
    content: bytes = graph.SerializeToString(deterministic=True)
    found = answers(onnx_run(content, material.args.threads), images_NCHW)
    found_N = found[predict.MASS]
    return content, {
        "bound": BOUND,
        **mass_differences(network, images_NCHW, found_N),
        "bytes": len(content),
    }


def _classes(material: Material) -> list[str]:
    return [str(label) for label in range(material.data.n_classes)]


def _description(
    material: Material, models: Mapping[str, FittedModel], refused: str
) -> dict[str, Any]:
    data, path = material.data, material.path
    return {
        "kind": predict.KIND,
        "format": predict.FORMAT,
        "name": material.name,
        "input": {"type": "uint8", "shape": [*material.image_shape], "range": [0, 255]},
        "classes": _classes(material),
        "alpha": material.args.alpha,
        "models": {name: each.about() for name, each in models.items()},
        "refused": refused,
        "measured_on": {
            "dataset": data.dataset,
            "seed": data.seed,
            "n_valid": len(data.valid),
            "n_test": len(data.test),
            "outliers": {kind: len(images) for kind, images in material.outliers.items()},
        },
        "made_of": {"model_md5": file_digest(path, "md5")},
        "versions": {name: version(name) for name in _VERSIONS},
    }


def _samples(models: Mapping[str, bytes], material: Material) -> bytes:
    """Store some test images with the outputs of each model; one thread's, though all agree."""
    images_NCHW = material.data.test.images_NCHW[: material.args.n_samples].numpy()
    stored = {predict.INPUT: images_NCHW}
    for file, content in models.items():
        found = onnx_run(content, threads=1)(images_NCHW)
        stored |= {f"{file}/{name}": values for name, values in found.items()}
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **stored)
    return stream.getvalue()
