"""Export to ONNX: one graph with a dynamic batch, equal bytes for equal inputs.

The temperature and the threshold are inputs with a default: a caller may pass others.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping

import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from jemtrack.deploy.exported import DeployedModel, Outputs
from jemtrack.deploy.predict import INPUT, TEMPERATURE, THRESHOLD
from jemtrack.shared.evaluation_mode import evaluation_mode

_OPSET = 20


def export_model(model: DeployedModel, image_shape: tuple[int, int, int]) -> onnx.ModelProto:
    """Export the model for images of (C, H, W), as `run` by onnxruntime with three inputs."""
    # The example has two images: the exporter takes a batch of one for a constant.
    images = torch.zeros((2, *image_shape), dtype=torch.uint8)
    arguments = (images, torch.tensor(1.0), torch.tensor(0.0))
    names = [INPUT, TEMPERATURE, THRESHOLD]
    return export_module(model, arguments, names, [*Outputs._fields])


def exported_module(module: nn.Module, example: Tensor) -> bytes:
    """Export any module of one tensor to one, for batches of any size of inputs like `example`."""
    # A batch of one would be taken for a constant.
    several = example.repeat(2, *[1] * (example.ndim - 1)) if len(example) == 1 else example
    proto = export_module(module, (several,), [INPUT])
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def export_module(
    module: nn.Module,
    arguments: tuple[Tensor, ...],
    input_names: list[str],
    output_names: list[str] | None = None,
) -> onnx.ModelProto:
    """Export a module in evaluation mode; the first argument has a dynamic batch."""
    batch = torch.export.Dim("batch")
    with _quiet(), torch.inference_mode(), evaluation_mode(module):
        program = torch.onnx.export(
            module,
            arguments,
            dynamo=True,
            opset_version=_OPSET,
            input_names=input_names,
            output_names=output_names,
            dynamic_shapes=({0: batch}, *({} for _ in arguments[1:])),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    _remove_notes(proto)
    return proto


def with_defaults(
    proto: onnx.ModelProto, temperature: float, threshold: float, notes: Mapping[str, str]
) -> bytes:
    """Serialise the graph with both defaults and the `notes`, which runtimes show as metadata."""
    finished = onnx.ModelProto()
    finished.CopyFrom(proto)
    for name, value in ((TEMPERATURE, temperature), (THRESHOLD, threshold)):
        # An input that is an initializer, too, has a default: ONNX's IR specification, version 4.
        finished.graph.initializer.append(
            helper.make_tensor(name, onnx.TensorProto.FLOAT, [], [value])
        )
    helper.set_model_props(finished, dict(notes))
    onnx.checker.check_model(finished)
    content: bytes = finished.SerializeToString(deterministic=True)
    return content


def _remove_notes(proto: onnx.ModelProto) -> None:
    """Remove stack traces, in which the exporter names local paths."""
    parts = [proto.graph, *proto.functions]
    for part in parts:
        for each in (part, *part.node, *part.value_info):
            each.ClearField("metadata_props")
            each.ClearField("doc_string")
    for each in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        each.ClearField("metadata_props")
    proto.ClearField("metadata_props")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the exporter prints on its own progress, and its hints to developers."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
