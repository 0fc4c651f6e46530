"""The rows of the table: what is measured, and its target."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import sides, whole_stage
from benchmarks.options import BenchOptions
from benchmarks.sides import Sides
from benchmarks.sizes import TINY, Size
from jemtrack.errors import InputError
from jemtrack.shared.hardware import Precision
from jemtrack.train.launch import Runtime

BOTH: tuple[Precision, ...] = ("fp32", "bf16-mixed")
SMALL = Size(depth=16, width=2, side=32, channels=3, batch_size=64)
SMALL_SAMPLED = Size(depth=16, width=2, side=32, channels=3, batch_size=32)
LARGE = Size(depth=28, width=10, side=32, channels=3, batch_size=64)


@dataclass(frozen=True)
class Row:
    """A task that both sides perform.

    Attributes:
        what: description of the task.
        bar: the target: the ratio that jemtrack should reach.
        make: builds both sides for a runtime.
        turns: timed turns of each side.
        n_steps: steps in a turn.
        unit: what one step processes.
        precisions: precisions of jemtrack's side.
        on_gpu: whether it runs on a GPU, and only there; else on the CPU.
        counted: whether its arithmetic is counted.
        warms_up: whether the first turn of each side is not counted.
    """

    what: str
    bar: float
    make: Callable[[Runtime, BenchOptions], Sides]
    turns: int = 11
    n_steps: int = 1
    unit: str = "step"
    precisions: tuple[Precision, ...] = BOTH
    on_gpu: bool = False
    counted: bool = True
    warms_up: bool = True


Maker = Callable[[Size, Runtime, BenchOptions], Sides]


def _sized(make: Maker, size: Size) -> Callable[[Runtime, BenchOptions], Sides]:
    return lambda runtime, options: make(TINY if options.tiny else size, runtime, options)


ROWS: dict[str, Row] = {
    "cross-entropy": Row(
        f"cross-entropy step, {SMALL.name}", 2.0, _sized(sides.cross_entropy, SMALL)
    ),
    "max-entropy": Row(f"max-entropy L2 step, {SMALL.name}", 2.0, _sized(sides.max_entropy, SMALL)),
    "sampled": Row(
        f"SampledJEM step, {sides.CHAIN_STEPS} chain steps, {SMALL_SAMPLED.name}",
        2.2,
        _sized(sides.sampled, SMALL_SAMPLED),
        turns=7,
    ),
    "evaluation": Row(
        f"evaluation, WRN-16-2, {sides.PART} images per turn",
        2.0,
        _sized(sides.evaluation, SMALL),
        turns=sides.EVALUATED // sides.PART,
        unit=f"{sides.PART} images",
        precisions=("fp32",),
    ),
    "augmentation": Row(
        "augmentation, 64x3x32x32",
        10.0,
        _sized(sides.augmentation, SMALL),
        turns=31,
        n_steps=4,
        unit="batch",
        precisions=("fp32",),
        counted=False,
    ),
    "stage": Row(
        "a whole trainer stage, MaxEntropyL2, Fashion-MNIST, WRN-10-2, batch 64",
        2.5,
        whole_stage.sides,
        turns=1,
        unit="training",
        counted=False,
        warms_up=False,
    ),
    "gpu-max-entropy": Row(
        f"max-entropy L2 step, {LARGE.name}",
        5.0,
        _sized(sides.max_entropy, LARGE),
        n_steps=5,
        on_gpu=True,
    ),
    "gpu-max-entropy-best": Row(
        "max-entropy L2 step, WRN-28-10, the batch size with most images per second",
        5.0,
        _sized(sides.max_entropy_best, LARGE),
        n_steps=3,
        on_gpu=True,
    ),
    "gpu-sampled": Row(
        f"SampledJEM step, {sides.CHAIN_STEPS} chain steps, {LARGE.name}",
        6.0,
        _sized(sides.sampled, LARGE),
        turns=7,
        n_steps=2,
        on_gpu=True,
    ),
}


def chosen_rows(options: BenchOptions) -> dict[str, Row]:
    """Return the chosen rows, or all.

    Raises:
        InputError: if there is no row of a chosen name.
    """
    if unknown := [name for name in options.rows if name not in ROWS]:
        raise InputError(f"--row must be one of {', '.join(ROWS)}, got {', '.join(unknown)}")
    # A whole training has no single step to profile.
    usual = [name for name in ROWS if not (options.profile and name == "stage")]
    return {name: ROWS[name] for name in options.rows or usual}
