"""Two sides that take turns in one process, so that what else the machine does weighs on both."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from jemtrack.train.launch import keep_freed_memory, set_thresholds

Step = Callable[[], object]

# The highest to which glibc raises its thresholds by itself: it keeps the most for the reference.
_GLIBC_S_OWN = (64 * 2**20, 32 * 2**20)


class Turn(NamedTuple):
    """Seconds of a turn of each side, and of a yardstick after them."""

    reference: float
    ours: float
    yardstick: float = math.nan

    @property
    def ratio(self) -> float:
        """How many times faster ours was."""
        return self.reference / self.ours


@dataclass(frozen=True)
class Turns:
    """What was measured; `n_steps` are the steps of a turn."""

    turns: Sequence[Turn]
    n_steps: int = 1

    @property
    def reference(self) -> float:
        """Median seconds of a step."""
        return statistics.median(turn.reference for turn in self.turns) / self.n_steps

    @property
    def ours(self) -> float:
        """Median seconds of a step."""
        return statistics.median(turn.ours for turn in self.turns) / self.n_steps

    @property
    def ratio(self) -> float:
        """Median of the ratios of each pair of turns."""
        return statistics.median(turn.ratio for turn in self.turns)

    @property
    def yardstick(self) -> float:
        """Median seconds of the yardstick."""
        return statistics.median(turn.yardstick for turn in self.turns)

    def yardsticks(self, side: Literal["reference", "ours"]) -> float:
        """How many times the yardstick's seconds a step of the side took; the median."""
        ratios = (getattr(turn, side) / turn.yardstick for turn in self.turns)
        return statistics.median(ratios) / self.n_steps

    @property
    def quartiles(self) -> tuple[float, float] | None:
        """The quartiles of these ratios; None of fewer than three."""
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
) -> Turns:
    """Time `n_turns` of `n_steps` steps of both sides; neither is always the first.

    After each pair of turns, the `yardstick` is timed once.
    """
    reference, ours = sides

    def plain() -> float:
        set_thresholds(*_GLIBC_S_OWN)
        return timed(reference, n_steps, device)

    def fast() -> float:
        keep_freed_memory()
        return timed(ours, n_steps, device)

    turns = []
    for number in range(n_turns):
        if number % 2:
            seconds = fast()
            turn = Turn(plain(), seconds)
        else:
            turn = Turn(plain(), fast())
        turns.append(turn._replace(yardstick=timed(yardstick, 1, device)) if yardstick else turn)
    return Turns(turns, n_steps)


def timed(step: Step, n_steps: int, device: torch.device) -> float:
    """Give the seconds of `n_steps` steps, until the device has done them."""
    _wait_for(device)
    started = time.perf_counter()
    for _ in range(n_steps):
        step()
    _wait_for(device)
    return time.perf_counter() - started


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
