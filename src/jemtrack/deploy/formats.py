"""The formats that a model can be exported to: what each needs, how it is written and run.

Each holds the same graph, at the temperature and the threshold of the float32 ONNX model; int8 has
its own. A format that cannot be made here says why.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from jemtrack.deploy.bundle import INT8, Exported, onnx_run
from jemtrack.deploy.exported import Answers, DeployedModel
from jemtrack.deploy.figures import Run
from jemtrack.deploy.predict import INPUT, MODEL
from jemtrack.errors import InputError

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
_TENSORRT = "TensorrtExecutionProvider"


class UnavailableError(InputError):
    """A format cannot be made or run here; the message says why."""


class AtDefaults(nn.Module):
    """The deployed model with a temperature and a threshold of its own."""

    temperature: Tensor
    threshold: Tensor

    def __init__(self, model: DeployedModel, temperature: float, threshold: float) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("temperature", torch.tensor(temperature))
        self.register_buffer("threshold", torch.tensor(threshold))

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Compute the `Answers`."""
        answers: Answers = self.model(images_BCHW, self.temperature, self.threshold)
        return tuple(answers)


@dataclass(frozen=True)
class Source:
    """What formats are made of: the bundle with its ONNX models, and the PyTorch model.

    Attributes:
        bundle: folder of the bundle.
        description: of the bundle.
        made: None if there is the bundle alone.
    """

    bundle: Path
    description: Mapping[str, Any]
    made: Exported | None = None

    def module(self) -> AtDefaults:
        """Return the PyTorch model at the bundle's temperature and threshold.

        Raises:
            UnavailableError: if there is the bundle alone.
        """
        if self.made is None:
            raise UnavailableError(
                "it is made of the PyTorch model, not of a bundle: `jemtrack deploy` makes it"
            )
        about = self.description["models"][MODEL]
        return AtDefaults(self.made.module, about["temperature"], about["threshold"])

    def program(self) -> torch.export.ExportedProgram:
        """Export the PyTorch model with a dynamic batch."""
        # Two images: a batch of one would be taken for a constant.
        example = torch.zeros((2, *self.description["input"]["shape"]), dtype=torch.uint8)
        batch = torch.export.Dim("batch", max=2**16)
        with torch.inference_mode(False), torch.no_grad():
            return torch.export.export(self.module(), (example,), dynamic_shapes=({0: batch},))


Writer = Callable[[Source, Path, str], Path]  # into a folder, at a precision; returns the file
Opener = Callable[[Path, int, str], Run]  # with so many threads, at a precision


@dataclass(frozen=True)
class Format:
    """A format by name.

    Attributes:
        precisions: those that it has; the first is the default.
        write: writes the file.
        open: makes what runs it.
        missing: says why it is not available here; "" if it is.
    """

    precisions: tuple[str, ...]
    write: Writer
    open: Opener
    missing: Callable[[], str] = lambda: ""


def written(name: str, source: Source, folder: Path, precision: str | None = None) -> Path:
    """Write the model in the format `name` into the folder, which is made; return the file.

    Raises:
        UnavailableError: if that is not possible here, or the format has no such precision.
        InputError: if there is no such format.
    """
    if name not in FORMATS:
        raise InputError(f"format must be one of {', '.join(FORMATS)}, got {name!r}")
    found = FORMATS[name]
    if reason := found.missing():
        raise UnavailableError(f"{name} is not available here, because {reason}")
    precision = precision or found.precisions[0]
    if precision not in found.precisions:
        raise UnavailableError(
            f"{name} is not available at {precision}, because it is made at "
            f"{' or '.join(found.precisions)} alone"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return found.write(source, folder, precision)


def _of_bundle(file: str) -> Writer:
    def write(source: Source, folder: Path, _precision: str) -> Path:
        if file not in source.description["models"]:
            raise InputError(source.description["refused"] or f"the bundle has no {file}")
        if folder.resolve() == source.bundle.resolve():
            return source.bundle / file
        return Path(shutil.copy(source.bundle / file, folder))

    return write


def _open_onnx(path: Path, threads: int, _precision: str) -> Run:
    return onnx_run(path.read_bytes(), threads)


def _write_openvino(source: Source, folder: Path, precision: str) -> Path:
    import openvino

    path = folder / f"openvino.{precision}.xml"
    model = openvino.convert_model(source.bundle / MODEL)
    openvino.save_model(model, path, compress_to_fp16=precision == "fp16")
    return path


def _open_openvino(path: Path, threads: int, precision: str) -> Run:
    import openvino

    # By itself it computes in bfloat16 where the processor has it, which here is slower, too.
    hints = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(path, "CPU", hints)

    def run(images_NCHW: np.ndarray) -> dict[str, np.ndarray]:
        found = compiled({INPUT: images_NCHW})
        return {name: found[name].copy() for name in Answers._fields}

    return run


def _write_program(source: Source, folder: Path, _precision: str) -> Path:
    path = folder / "torch.export.pt2"
    torch.export.save(source.program(), path)
    return path


def _open_program(path: Path, _threads: int, _precision: str) -> Run:
    return torch_run(torch.export.load(path).module())


def _write_aotinductor(source: Source, folder: Path, _precision: str) -> Path:
    from torch import _inductor

    program = source.program()
    path = folder / "aotinductor.pt2"
    return Path(_inductor.aoti_compile_and_package(program, package_path=str(path.resolve())))


def _open_aotinductor(path: Path, _threads: int, _precision: str) -> Run:
    from torch import _inductor

    return torch_run(_inductor.aoti_load_package(str(path)))


def torch_run(module: Callable[..., Any]) -> Run:
    """Make what runs a module of PyTorch, on PyTorch's own threads."""

    @torch.inference_mode()
    def run(images_NCHW: np.ndarray) -> dict[str, np.ndarray]:
        found = module(torch.from_numpy(images_NCHW))
        return {name: each.numpy() for name, each in zip(Answers._fields, found, strict=True)}

    return run


def _open_tensorrt(path: Path, _threads: int, precision: str) -> Run:
    options = {"trt_fp16_enable": precision == "fp16"}
    session = onnxruntime.InferenceSession(path, providers=[(_TENSORRT, options)])
    names = [*Answers._fields]
    return lambda images: dict(zip(names, session.run(names, {INPUT: images}), strict=True))


def _needs(module: str) -> Callable[[], str]:
    return lambda: "" if find_spec(module) else f"the package {module} is not installed"


def _compiler() -> str:
    return "" if shutil.which("g++") or shutil.which("clang++") else "there is no C++ compiler"


def _tensorrt() -> str:
    if _TENSORRT in onnxruntime.get_available_providers():
        return ""
    return f"this onnxruntime has no {_TENSORRT}: it needs onnxruntime-gpu, TensorRT and a GPU"


def _executorch() -> str:
    # Tried with 1.5: a dynamic batch ends in error 0x10, and grey images in 0x12.
    return "its XNNPACK backend runs neither a dynamic batch nor grey images"


FORMATS: Mapping[str, Format] = {
    "onnx": Format(("fp32",), _of_bundle(MODEL), _open_onnx),
    "int8": Format(("int8",), _of_bundle(INT8), _open_onnx),
    "openvino": Format(
        ("fp32", "fp16", "bf16"), _write_openvino, _open_openvino, _needs("openvino")
    ),
    "aotinductor": Format(("fp32",), _write_aotinductor, _open_aotinductor, _compiler),
    "torch.export": Format(("fp32",), _write_program, _open_program),
    "executorch": Format(("fp32",), _of_bundle(MODEL), _open_onnx, _executorch),
    "tensorrt": Format(("fp32", "fp16"), _of_bundle(MODEL), _open_tensorrt, _tensorrt),
}
