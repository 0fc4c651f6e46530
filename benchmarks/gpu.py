"""Try jemtrack on a GPU: does it train, are results the same each time, how fast is it.

    python -m benchmarks.gpu

prints a table for each part, and needs no data and no network; `--device cpu` runs the same on a
CPU, with few steps. The parts:

- `steps`: the time of a training step and its peak of memory, by trainer, precision and device;
  and what the operations cost that give the same bits each time, and convolutions without TF32.
- `samples`: the time of Langevin chains.
- `memory`: what a user sees whose training does not fit.
- `trainings`: all kinds of trainings, twice and killed in the middle (`gpu_trainings`), and what
  a model of the device says in a process that sees no GPU.
"""

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.gpu_trainings import HEAD, NAMES, Trained, own_environment, trained
from benchmarks.machine import description
from benchmarks.tables import markdown
from jemtrack import load_model
from jemtrack.data.images import DataSplits, LabelledImages
from jemtrack.data.splits import prepare
from jemtrack.errors import InputError
from jemtrack.events.events import BatchEnd, Event
from jemtrack.events.handlers import Recorder
from jemtrack.jem.networks.shape import NetworkShape, WideResNetShape
from jemtrack.jem.networks.wide_resnet import build_model
from jemtrack.jem.sampling.langevin import LangevinSampler
from jemtrack.jem.trained_model import TrainedModel
from jemtrack.jem.training.family import FAMILY
from jemtrack.jem.training.forms import OBJECTIVES, JemSettings, JemStep
from jemtrack.shared.hardware import (
    DeviceName,
    Precision,
    available_cpus,
    chosen_device,
    use_device,
)
from jemtrack.shared.random_streams import generator
from jemtrack.train.launch import Runtime, launch
from jemtrack.train.optimizers import Adam
from jemtrack.train.recipe import Recipe
from jemtrack.train.run import Training

SIDE, CHANNELS, N_CLASSES = 32, 3, 10
SHAPE = NetworkShape(depth=16, width=4)
BATCH_SIZE, CHAIN_STEPS = 128, 20
N_CHAINS, SAMPLE_STEPS, SAMPLE_STEPS_CPU = 64, 100, 20
TOLERANCE = 1e-4
_TOO_LARGE = NetworkShape(depth=28, width=10), 8192
_MIB = 2**20
_TINY = NetworkShape(depth=10, width=1)
Lines = Iterator[str]


@dataclass(frozen=True)
class Options:
    """The device, a folder for trainings, and whether networks are small, to try the command."""

    device: DeviceName
    folder: Path
    tiny: bool = False

    @property
    def shape(self) -> NetworkShape:
        """The network that is timed."""
        return _TINY if self.tiny else SHAPE

    @property
    def devices(self) -> list[DeviceName]:
        """The device and, beside it, the CPU."""
        return [*dict.fromkeys((self.device, "cpu"))]


class Seconds(Recorder):
    """Keeps the time of every batch."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def __call__(self, event: Event) -> None:
        """Keep it."""
        if isinstance(event, BatchEnd):
            self.found.append(event.seconds)


@dataclass(frozen=True)
class Case:
    """A training of a few steps: the trainer, and how PyTorch computes."""

    objective: str
    device: DeviceName
    precision: Precision = "fp32"
    same_bits: bool = True
    tf32: bool = True
    n_steps: int = 30
    shape: NetworkShape = SHAPE
    batch_size: int = BATCH_SIZE

    def run(self) -> tuple[str, ...]:
        """Train; return the cells of its row."""
        settings = JemSettings(
            batch_size=self.batch_size, n_steps=CHAIN_STEPS, device=self.device,
            precision=self.precision, threads=available_cpus(),
        )  # fmt: skip
        with _convolutions_in_tf32(self.tf32):
            seconds, n_bytes = launch(settings, self._train, settings)
        notes = [
            *(["other bits each time"] if not self.same_bits else []),
            *(["no TF32"] if not self.tf32 else []),
        ]
        median = statistics.median(seconds[len(seconds) // 3 :])
        return (
            self.objective, self.device, self.precision, ", ".join(notes),
            f"{1000 * median:.1f}", f"{n_bytes / _MIB:.0f}" if n_bytes else "",
        )  # fmt: skip

    def _train(self, runtime: Runtime, settings: JemSettings) -> tuple[list[float], int]:
        if not self.same_bits:
            torch.set_deterministic_debug_mode("default")
        if runtime.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        form = OBJECTIVES[self.objective]()
        optimizers = {"network": Adam(lr=1e-4)}
        step = JemStep(name="train", n_epochs=1, objective=form, optimizers=optimizers)
        data = _random_data(self.batch_size * self.n_steps)
        # Chains are a part of the step of SampledJEM; after the others, they would measure density.
        settings = replace(settings, n_steps=CHAIN_STEPS if self.objective == "sampled_jem" else 0)
        clock = Seconds()
        Training("steps", FAMILY, Recipe(steps=(step,)), self.shape, settings, data, runtime).train(
            [clock], None
        )
        peak = torch.cuda.max_memory_allocated() if runtime.device.type == "cuda" else 0
        return clock.found, peak


@contextlib.contextmanager
def _convolutions_in_tf32(allowed: bool) -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _random_data(n_images: int) -> DataSplits:
    stream = generator(1, "benchmark")
    train = LabelledImages(
        torch.randint(
            256, (n_images, CHANNELS, SIDE, SIDE), generator=stream, dtype=torch.uint8
        ),
        torch.randint(N_CLASSES, (n_images,), generator=stream),
    )  # fmt: skip
    none = train[torch.arange(0)]
    return DataSplits("random", N_CLASSES, True, 1, train, valid=none, test=none)


def steps(options: Options) -> Lines:
    """Time a step of each trainer, on the device and on the CPU."""
    cases = [Case(name, "cpu", n_steps=3) for name in OBJECTIVES]
    if options.device == "cuda":
        for name in OBJECTIVES:
            cases += [Case(name, "cuda"), Case(name, "cuda", "bf16-mixed")]
        for name in ("max_entropy_l2", "sampled_jem"):
            cases += [Case(name, "cuda", tf32=False), Case(name, "cuda", same_bits=False)]
            cases.append(Case(name, "cuda", "bf16-mixed", same_bits=False))
    if options.tiny:
        cases = [replace(case, shape=_TINY, batch_size=4) for case in cases]
    shape = options.shape
    yield f"WideResNet-{shape.depth}-{shape.width}, batches of {cases[0].batch_size}x3x32x32"
    head = ("trainer", "device", "precision", "", "ms per step", "peak MiB")
    yield from markdown(head, [_row(case) for case in cases])


def _row(case: Case) -> tuple[str, ...]:
    try:
        cells = case.run()
    except Exception as error:
        cells = case.objective, case.device, case.precision, f"failed: {error!r}", "", ""
    print(*cells, file=sys.stderr, flush=True)
    return cells


def samples(options: Options) -> Lines:
    """Time chains of a model, which a user draws by `TrainedModel.sample`."""
    shape = WideResNetShape(
        depth=options.shape.depth, width=options.shape.width, channels=CHANNELS, n_classes=N_CLASSES
    )
    rows = []
    for name in options.devices:
        chosen = chosen_device(name)
        n_steps = SAMPLE_STEPS if chosen.type == "cuda" else SAMPLE_STEPS_CPU
        model = TrainedModel(build_model(shape).to(chosen), shape, noise_std=0.03)
        sampler = LangevinSampler(n_steps=n_steps, pixel_clamp=True)
        with use_device(chosen):
            model.sample(N_CHAINS, (SIDE, SIDE), sampler=replace(sampler, n_steps=2))
            started = time.perf_counter()
            model.sample(N_CHAINS, (SIDE, SIDE), sampler=sampler)
            seconds = (time.perf_counter() - started) / n_steps * SAMPLE_STEPS
        rows.append((chosen.type, f"{n_steps}", f"{seconds:.2f}"))
    head = ("device", "steps that were run", f"s for {N_CHAINS} chains of {SAMPLE_STEPS} steps")
    yield from markdown(head, rows)


def memory(options: Options) -> Lines:
    """Show what a training says that does not fit into the GPU's memory."""
    if options.device != "cuda":
        yield "a CPU's memory is not filled"
        return
    shape, batch_size = _TOO_LARGE
    case = Case("cross_entropy", "cuda", shape=shape, batch_size=batch_size, n_steps=1)
    try:
        case.run()
        yield "it fits"
    except InputError as error:
        yield f"jemtrack: {error}"
    # The next training has the memory again.
    yield f"a training after it: {Case('cross_entropy', 'cuda', n_steps=3).run()[4]} ms per step"


def trainings(options: Options) -> Lines:
    """Run all kinds of trainings."""
    names = NAMES[:1] if options.tiny else NAMES
    found = trained(options.device, options.folder, names)
    yield from markdown(HEAD, [each.cells for each in found])
    for each in found[:1]:
        yield from predictions(each, options)


def predictions(of: Trained, options: Options) -> Lines:
    """Compare what its model says on the device, and in a process that sees no GPU."""
    device, folder = options.device, options.folder
    images_NCHW = _test_images(folder)
    command = [sys.executable, "-m", "benchmarks.gpu", "--predict", str(of.model), str(folder)]
    subprocess.run(command, check=True, env={**own_environment(), "CUDA_VISIBLE_DEVICES": ""})
    wanted_NC = torch.load(folder / "predicted.pt")
    model = load_model(of.model, device=device)
    for tf32 in (True, False):
        with _convolutions_in_tf32(tf32):
            difference = float((model.predict(images_NCHW) - wanted_NC).abs().max())
        how = "with TF32, PyTorch's default" if tf32 else "without TF32"
        met = "at most" if difference <= TOLERANCE else "NOT at most"
        yield (
            f"p(y|x) of {len(images_NCHW)} images on {device} {how}: {difference:.1e} from the "
            f"CPU's at the largest, {met} {TOLERANCE:.0e}"
        )
    model.score(images_NCHW, "approximate_mass")
    drawn = model.sample(4, images_NCHW.shape[2:], sampler=LangevinSampler(n_steps=5))
    yield f"log density, scores and samples on {device}: {tuple(drawn.shape)}"


def _test_images(folder: Path) -> Tensor:
    data = prepare("digits", folder / "data", N_CLASSES, 180, 1)
    return data.test.images_NCHW


PARTS: dict[str, Callable[[Options], Lines]] = {
    each.__name__: each for each in (steps, samples, memory, trainings)
}


def report(names: Sequence[str], options: Options) -> int:
    """Print the tables of these parts; return 1 if one of them fails, else 0."""
    print(f"{description(chosen_device(options.device))}\n", flush=True)
    status = 0
    for name in names:
        started = time.perf_counter()
        print(f"## {name}\n", flush=True)
        try:
            for line in PARTS[name](options):
                print(line, flush=True)
        except Exception:
            status = 1
            print(traceback.format_exc(), flush=True)
        print(f"\n({time.perf_counter() - started:.0f} s)\n", flush=True)
    return status


def main() -> int:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(description="Try jemtrack on a GPU.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="(cuda)")
    parser.add_argument("--part", choices=PARTS, action="append", help="run this part (all)")
    parser.add_argument("--folder", type=Path, help="for the trainings' folders (a temporary one)")
    parser.add_argument("--tiny", action="store_true", help="small networks, to try the command")
    parser.add_argument("--predict", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.predict:
        model, folder = options.predict
        assert not torch.cuda.is_available()
        torch.save(load_model(model).predict(_test_images(folder)), folder / "predicted.pt")
        return 0
    with tempfile.TemporaryDirectory() as made:
        folder = (options.folder or Path(made)).resolve()
        chosen = Options(options.device, folder, options.tiny)
        return report(options.part or [*PARTS], chosen)


if __name__ == "__main__":
    sys.exit(main())
