"""A small real run that diverges where a test wants it to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from small_run import (
    N_BATCHES,
    Record,
    make_run,
)
from torch import Tensor

from jemtrack.shared.random_streams import generator
from jemtrack.train.recipe import Divergence
from jemtrack.train.run import Run

HUGE, CUSP = 1e5, 0.0
Bad = Mapping[tuple[int, int, int], float]


@dataclass(frozen=True)
class Points:
    """Batches of eight points; `bad` are factors of those at (epoch, batch, returns so far)."""

    bad: Bad = field(default_factory=dict)
    asked: list[tuple[int, int, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return N_BATCHES

    def epoch(self, epoch: int, start: int = 0, retry: int = 0) -> Iterator[Tensor]:
        self.asked.append((epoch, start, retry))
        for batch in range(start, N_BATCHES):
            points = torch.randn(8, 3, generator=generator(1, "points", epoch, batch))
            yield points * self.bad.get((epoch, batch, retry), 1.0)


def loss(models, batch) -> dict[str, Tensor]:
    """Give the mean square; the gradient is infinite where the batch is all 0."""
    outputs = models["net"](batch)
    if not batch.any():
        return {"loss": (outputs * 0).abs().sqrt().mean()}
    return {"loss": (outputs - batch[:, :2]).square().mean()}


def make(folder, *callbacks, bad: Bad | None = None, phase=0, values=(), **divergence) -> Run:
    """Make a run with checkpoints after every third step, that goes back; `bad` are of `phase`."""
    run = make_run(folder, *callbacks, values=values)
    run.divergence = Divergence(**{"action": "retry", **divergence})
    run.phases = [
        replace(
            each,
            objective=loss,
            batches=Points((bad or {}) if number == phase else {}),
            max_loss=run.divergence.max_loss,
        )
        for number, each in enumerate(run.phases)
    ]
    return run


def record_of(run: Run) -> Record:
    return run.trackers[0]
