"""Write a bundle: the exported models, their description, and what reads them without jemtrack.

Letters: N images.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
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
from jemtrack.deploy.exported import Answers, DeployedModel, WhitenedMahalanobis
from jemtrack.deploy.figures import (
    Run,
    answers,
    largest_differences,
    measured,
    reference,
    refuse_beyond,
)
from jemtrack.deploy.int8 import quantised
from jemtrack.deploy.onnx_file import exported, with_defaults
from jemtrack.errors import InputError
from jemtrack.evaluation.measures.inputs import LabelledLogits
from jemtrack.evaluation.measures.temperature import fit_temperature
from jemtrack.files import file_digest
from jemtrack.jem.networks.inference import noisy_batches, trunk_features
from jemtrack.jem.networks.model_file import load_model
from jemtrack.shared.random_streams import generator

INT8 = "model.int8.onnx"
# How far float32 may lead two orders of the same sums apart.
FP32_BOUNDS = {"probabilities": 1e-5, "log_density": 1e-4, "mahalanobis": 1e-4}
_VERSIONS = ("jemtrack", "torch", "onnx", "onnxscript", "onnxruntime")


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
        InputError: if there are too few validation images.
    """

    path: Path
    data: DataSplits
    outliers: Mapping[str, Tensor]
    args: DeployArgs
    evaluation: str = ""

    @property
    def name(self) -> str:
        """The model's name."""
        return self.path.parent.name

    def __post_init__(self) -> None:
        """Check that there are enough validation images, before the model is exported."""
        conformal_rank(len(self.data.valid), self.args.alpha)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.data.train.images_NCHW.shape[1:]
        return channels, height, width

    def seen(self) -> LabelledImages:
        """Draw training images, by the data's seed."""
        train, stream = self.data.train, generator(self.data.seed, "training images of a bundle")
        return train[torch.randperm(len(train), generator=stream)[: self.args.n_train_images]]


@dataclass(frozen=True)
class Exported:
    """A model as PyTorch has it, what it must agree with, and its graph.

    Attributes:
        module: computes the `Answers`.
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
        seen = material.seen()
        features_NF = trunk_features(network, noisy_batches(seen.images_NCHW, 0.0, 0))
        mahalanobis = WhitenedMahalanobis(features_NF, seen.labels_N)
        module = DeployedModel(network, mahalanobis)
        return cls(module, mahalanobis, exported(module, material.image_shape))


@dataclass(frozen=True)
class Finished:
    """A graph with its own temperature and threshold, and what was measured of it.

    Attributes:
        content: the bytes of the ONNX file.
        temperature: which fits the validation images best.
        threshold: of log p~(x).
        differences: the largest ones to PyTorch, by output.
        figures: on the test images and outliers; see `figures`.
    """

    content: bytes
    temperature: float
    threshold: float
    differences: dict[str, float]
    figures: dict[str, float]

    def about(self) -> dict[str, Any]:
        """Describe it, for bundle.json."""
        return {name: value for name, value in vars(self).items() if name != "content"} | {
            "bytes": len(self.content)
        }


def onnx_run(content: bytes, threads: int = 0) -> Run:
    """Make what runs a graph in onnxruntime, at its own temperature and threshold."""
    session = predict.open_session(content, threads)
    return lambda images: dict(
        zip(Answers._fields, session.run([*Answers._fields], {predict.INPUT: images}), strict=True)
    )


def finished(graph: onnx.ModelProto, name: str, made: Exported, material: Material) -> Finished:
    """Fit temperature and threshold of a graph on its own outputs, and measure it."""
    valid = material.data.valid
    threads = material.args.threads
    found = answers(onnx_run(with_defaults(graph, 1.0, 0.0, {}), threads), valid.images_NCHW)
    labelled = LabelledLogits(torch.from_numpy(found["logits"]), valid.labels_N)
    temperature = fit_temperature(labelled.logits_NC, labelled.labels_N)
    threshold = conformal_threshold(found["log_density"], material.args.alpha)
    notes = {
        "model": name,
        "alpha": repr(material.args.alpha),
        predict.TEMPERATURE: repr(temperature),
        predict.THRESHOLD: repr(threshold),
        "classes": json.dumps(_classes(material)),
    }
    content = with_defaults(graph, temperature, threshold, notes)
    test = material.data.test
    found, figures = measured(onnx_run(content, threads), test, material.outliers, temperature)
    plain = reference(made.module.network, made.mahalanobis, temperature)
    differences = largest_differences(found, answers(plain, test.images_NCHW))
    return Finished(content, temperature, threshold, differences, figures)


def finished_models(made: Exported, material: Material) -> tuple[dict[str, Finished], str]:
    """Make the models of a bundle, by file; and say why the int8 one is refused, else "".

    Raises:
        InputError: if the float32 one does not agree with PyTorch.
    """
    name = material.name
    plain = finished(made.graph, name, made, material)
    none = dict.fromkeys(FP32_BOUNDS, 0.0)
    refuse_beyond(f"{name}: {predict.MODEL}", plain.differences, none, FP32_BOUNDS)
    models = {predict.MODEL: plain}
    if not material.args.int8:
        return models, ""
    graph = quantised(made.graph, material.seen().images_NCHW.numpy())
    small = finished(graph, name, made, material)
    try:
        bounds = material.args.int8_bounds
        refuse_beyond(f"{name}: {INT8}", small.figures, plain.figures, bounds)
    except InputError as error:
        return models, str(error)
    return {**models, INT8: small}, ""


def write_bundle(made: Exported, material: Material, folder: Path) -> dict[str, Any]:
    """Write the bundle into `folder`, in the place of an earlier one; return its description.

    The same inputs give the same bytes.

    Raises:
        InputError: if the float32 model does not agree with PyTorch; then nothing is written.
    """
    models, refused = finished_models(made, material)
    files = {name: each.content for name, each in models.items()}
    files[predict.SAMPLES] = _samples(files, material)
    files["predict.py"] = Path(predict.__file__).read_bytes()
    description = _description(material, models, refused)
    files["card.md"] = card(description, material.evaluation).encode()
    description["files"] = {name: hashlib.sha256(each).hexdigest() for name, each in files.items()}
    description["sha256"] = predict.digest_of(description)
    files[predict.DESCRIPTION] = (json.dumps(description, indent=1) + "\n").encode()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INT8).unlink(missing_ok=True)  # of an earlier bundle, if this one has none
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return description


def _classes(material: Material) -> list[str]:
    return [str(label) for label in range(material.data.n_classes)]


def _description(
    material: Material, models: Mapping[str, Finished], refused: str
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
