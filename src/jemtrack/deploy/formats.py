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
import torch
from torch import Tensor, nn

from jemtrack.deploy.bundle import INT8, Exported, onnx_run
from jemtrack.deploy.exported import DeployedModel, Outputs
from jemtrack.deploy.figures import Run
from jemtrack.deploy.predict import INPUT, MODEL
from jemtrack.errors import InputError


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
        """Compute the `Outputs`."""
        outputs: Outputs = self.model(images_BCHW, self.temperature, self.threshold)
        return tuple(outputs)


@dataclass(frozen=True)
class Source:
    """What formats are made of: the bundle with its ONNX models, and the PyTorch model.

    Attributes:
        bundle: folder of the bundle.
        description: of the bundle.
        pytorch_export: None if there is the bundle alone.
    """

    bundle: Path
    description: Mapping[str, Any]
    pytorch_export: Exported | None = None

    def module(self) -> AtDefaults:
        """Return the PyTorch model at the bundle's temperature and threshold."""
        assert self.pytorch_export is not None
        about = self.description["models"][MODEL]
        return AtDefaults(self.pytorch_export.module, about["temperature"], about["threshold"])

    def program(self) -> torch.export.ExportedProgram:
        """Export the PyTorch model with a dynamic batch."""
        # Two images: a batch of one would be taken for a constant.
        example = torch.zeros((2, *self.description["input"]["shape"]), dtype=torch.uint8)
        batch = torch.export.Dim("batch", max=2**16)
        with torch.inference_mode(False), torch.no_grad():
            return torch.export.export(self.module(), (example,), dynamic_shapes=({0: batch},))


Writer = Callable[[Source, Path, str], object]  # into a file, at a precision
Opener = Callable[[Path, int], Run]  # with so many threads


@dataclass(frozen=True)
class Format:
    """A format by name.

    Attributes:
        files: their names, in which {} is the precision; the first is the one to open.
        precisions: those that it has; the first is the default.
        write: writes the files.
        open: makes what runs them.
        missing: says why it is not available here; "" if it is.
        of_pytorch: whether it is made of the PyTorch model, not of the bundle.
    """

    files: tuple[str, ...]
    precisions: tuple[str, ...]
    write: Writer
    open: Opener
    missing: Callable[[], str] = lambda: ""
    of_pytorch: bool = False

    def paths(self, folder: Path, precision: str | None = None) -> list[Path]:
        """Return its files in a folder."""
        return [folder / name.format(precision or self.precisions[0]) for name in self.files]


def available(name: str, precision: str | None = None) -> Format:
    """Return the format `name`, if it can be made here at this precision.

    Raises:
        UnavailableError: if not, with the reason.
        InputError: if there is no such format.
    """
    if name not in NAMES:
        raise InputError(f"format must be one of {', '.join(NAMES)}, got {name!r}")
    found = FORMATS.get(name)
    reason = found.missing() if found else UNAVAILABLE[name]
    if found is None or reason:
        raise UnavailableError(f"{name} is not available here, because {reason}")
    if precision and precision not in found.precisions:
        raise UnavailableError(
            f"{name} is not available at {precision}, because it is made at "
            f"{' or '.join(found.precisions)} alone"
        )
    return found


def written(name: str, source: Source, folder: Path, precision: str | None = None) -> Path:
    """Write the model in the format `name` into the folder, which is made; return the file.

    Raises:
        UnavailableError: if that is not possible here, or the format has no such precision.
        InputError: if there is no such format, or the bundle has no such model.
    """
    found = available(name, precision)
    if found.of_pytorch and source.pytorch_export is None:
        raise UnavailableError(
            f"{name} is made of the PyTorch model, not of a bundle: `jemtrack deploy` makes it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = found.paths(folder, precision)[0]
    found.write(source, path, precision or found.precisions[0])
    return path


def _copy(source: Source, path: Path, _precision: str) -> None:
    if path.name not in source.description["models"]:
        raise InputError(source.description["refused"] or f"the bundle has no {path.name}")
    if path.parent.resolve() != source.bundle.resolve():
        shutil.copy(source.bundle / path.name, path)


def _open_onnx(path: Path, threads: int) -> Run:
    return onnx_run(path.read_bytes(), threads)


def _write_openvino(source: Source, path: Path, precision: str) -> None:
    import openvino

    model = openvino.convert_model(source.bundle / MODEL)
    openvino.save_model(model, path, compress_to_fp16=precision == "fp16")


def _open_openvino(path: Path, threads: int) -> Run:
    import openvino

    # By itself it computes in bfloat16 where the processor has it, which here is slower, too.
    hints = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(path, "CPU", hints)

    def run(images_NCHW: np.ndarray) -> dict[str, np.ndarray]:
        found = compiled({INPUT: images_NCHW})
        return {name: found[name].copy() for name in Outputs._fields}

    return run


def _write_program(source: Source, path: Path, _precision: str) -> None:
    torch.export.save(source.program(), path)


def _open_program(path: Path, _threads: int) -> Run:
    return torch_run(torch.export.load(path).module())


def _write_aotinductor(source: Source, path: Path, _precision: str) -> None:
    from torch import _inductor

    _inductor.aoti_compile_and_package(source.program(), package_path=str(path.resolve()))


def _open_aotinductor(path: Path, _threads: int) -> Run:
    from torch import _inductor

    return torch_run(_inductor.aoti_load_package(str(path)))


def torch_run(module: Callable[..., Any]) -> Run:
    """Make what runs a module of PyTorch, on PyTorch's own threads."""

    @torch.inference_mode()
    def run(images_NCHW: np.ndarray) -> dict[str, np.ndarray]:
        found = module(torch.from_numpy(images_NCHW))
        return {name: each.numpy() for name, each in zip(Outputs._fields, found, strict=True)}

    return run


def _needs(module: str) -> Callable[[], str]:
    return lambda: "" if find_spec(module) else f"the package {module} is not installed"


def _compiler() -> str:
    return "" if shutil.which("g++") or shutil.which("clang++") else "there is no C++ compiler"


FORMATS: Mapping[str, Format] = {
    "onnx": Format((MODEL,), ("fp32",), _copy, _open_onnx),
    "int8": Format((INT8,), ("int8",), _copy, _open_onnx),
    "openvino": Format(
        ("openvino.{}.xml", "openvino.{}.bin"),
        ("fp32", "fp16"),
        _write_openvino,
        _open_openvino,
        _needs("openvino"),
    ),
    "aotinductor": Format(
        ("aotinductor.pt2",), ("fp32",), _write_aotinductor, _open_aotinductor, _compiler, True
    ),
    "torch.export": Format(
        ("torch.export.pt2",), ("fp32",), _write_program, _open_program, of_pytorch=True
    ),
}
UNAVAILABLE = {
    # Tried with 1.5: a dynamic batch ends in error 0x10, and grey images in 0x12.
    "executorch": "its XNNPACK backend runs neither a dynamic batch nor grey images",
    "tensorrt": "it needs TensorRT and a GPU, with which nothing was tried",
}
NAMES = (*FORMATS, *UNAVAILABLE)
