"""Time two sides alternately in one process, so that other work of the machine affects both."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from jemtrack.shared.hardware import keep_freed_memory, set_thresholds

Step = Callable[[], object]
Clock = Callable[[], float]  # in seconds, of any beginning

# The highest values to which glibc raises its thresholds by itself: the best case for the
# reference, as glibc then keeps the most memory.
_GLIBC_THRESHOLDS = (64 * 2**20, 32 * 2**20)


class Turn(NamedTuple):
    """The seconds of a turn of each side, and of the yardstick after them."""

    reference: float
    ours: float
    yardstick: float = math.nan

    @property
    def ratio(self) -> float:
        """The reference's time divided by jemtrack's."""
        return self.reference / self.ours


@dataclass(frozen=True)
class Turns:
    """The timed turns, each of `n_steps` steps."""

    turns: Sequence[Turn]
    n_steps: int = 1

    @property
    def reference(self) -> float:
        """The median seconds per step."""
        return statistics.median(turn.reference for turn in self.turns) / self.n_steps

    @property
    def ours(self) -> float:
        """The median seconds per step."""
        return statistics.median(turn.ours for turn in self.turns) / self.n_steps

    @property
    def ratio(self) -> float:
        """The median of the ratios over the pairs of turns."""
        return statistics.median(turn.ratio for turn in self.turns)

    @property
    def yardstick(self) -> float:
        """The median seconds of the yardstick."""
        return statistics.median(turn.yardstick for turn in self.turns)

    def yardsticks(self, side: Literal["reference", "ours"]) -> float:
        """Return the median ratio of a step's time to the yardstick's."""
        ratios = (getattr(turn, side) / turn.yardstick for turn in self.turns)
        return statistics.median(ratios) / self.n_steps

    @property
    def quartiles(self) -> tuple[float, float] | None:
        """The quartiles of the ratios; None if there are fewer than three."""
        if len(self.turns) < 3:
            return None
        low, _, high = statistics.quantiles([turn.ratio for turn in self.turns], n=4)
        return low, high


def take_turns(
    sides: tuple[Step, Step],
    n_turns: int,
    n_steps: int,
    device: torch.device,
    yardstick: Step | None = None,
    clock: Clock = time.perf_counter,
) -> Turns:
    """Time `n_turns` turns of `n_steps` steps of both sides, which alternate in going first.

    After each pair of turns, the `yardstick` is timed once.
    """
    reference, ours = sides

    def plain() -> float:
        set_thresholds(*_GLIBC_THRESHOLDS)
        return timed(reference, n_steps, device, clock)

    def fast() -> float:
        keep_freed_memory()
        return timed(ours, n_steps, device, clock)

    turns = []
    for number in range(n_turns):
        if number % 2:
            seconds = fast()
            turn = Turn(plain(), seconds)
        else:
            turn = Turn(plain(), fast())
        if yardstick:
            turn = turn._replace(yardstick=timed(yardstick, 1, device, clock))
        turns.append(turn)
    return Turns(turns, n_steps)


def timed(
    step: Step, n_steps: int, device: torch.device, clock: Clock = time.perf_counter
) -> float:
    """Return the seconds of `n_steps` steps, until the device has finished them."""
    _wait_for(device)
    started = clock()
    for _ in range(n_steps):
        step()
    _wait_for(device)
    return clock() - started


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
