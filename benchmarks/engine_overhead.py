"""Measure the overhead of the engine's loop over a hand-written PyTorch loop.

    python benchmarks/engine_overhead.py

trains the same networks three times on the same batches, which are drawn beforehand: with
`train.run.Run` and the JSONL record as its only tracker, with a bare loop (zero_grad, forward,
loss, backward, step), and with one that guards its weights as the engine does: it reads the losses
and the norm of the gradients, and steps only if they are finite. An ordinary step has one network,
an alternating one a generator and a critic that take turns. The loops alternate in
one process, a few steps each: the bare loops train inside the engine's iterator of batches. A ratio
compares a turn of the engine with the mean of a bare loop's turns before and after it, so that
other work of the machine affects both. It is printed for wall-clock time and for CPU time, which
other work affects less. At the end, all three must have the same weights, bit for bit.

With `--device cuda` all train on a GPU, for which each clock waits; the engine reads losses and
norms in each step, so it waits for the GPU in each, as the guarded loop does.
"""

import argparse
import math
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, softplus
from torch.nn.utils import get_total_norm

from jemtrack.events.events import BatchEnd, Position
from jemtrack.jem.networks.shape import WideResNetShape
from jemtrack.jem.networks.wide_resnet import build_model
from jemtrack.jem.objectives.cross_entropy import CrossEntropy
from jemtrack.jem.training.batches import Batch
from jemtrack.record.jsonl import JsonLines
from jemtrack.shared.hardware import chosen_device, reproducible
from jemtrack.shared.random_streams import generator
from jemtrack.train.launch import Runtime
from jemtrack.train.loop import gradient_norms
from jemtrack.train.optimizers import Adam
from jemtrack.train.phase import Objective, Phase, Turn
from jemtrack.train.recipe import Step
from jemtrack.train.run import Run
from jemtrack.train.state import TrainState, trained_weights

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
N_BATCHES = 16
LR = 1e-4
WARM_UP = 3  # turns that are not counted
LEAST = WARM_UP + 3  # quartiles need at least two ratios
BARE, GUARDED = "bare", "bare, guarded"
Models = Mapping[str, nn.Module]
Losses = Iterator[tuple[str, Tensor]]


@dataclass(frozen=True)
class Ordinary:
    """A residual network and its batches; `turn` is the number of steps in a turn."""

    depth: int
    width: int
    side: int
    channels: int
    batch_size: int
    turn: int

    @property
    def name(self) -> str:
        """The name of the network and the shape of a batch."""
        shape = f"{self.batch_size}x{self.channels}x{self.side}x{self.side}"
        return f"WideResNet-{self.depth}-{self.width}, {shape}"

    @property
    def objective(self) -> Objective:
        """The engine's form of `losses`."""
        return CrossEntropy()

    def models(self) -> dict[str, nn.Module]:
        """Build the network, always with the same weights."""
        torch.manual_seed(0)
        shape = WideResNetShape(
            depth=self.depth, width=self.width, channels=self.channels, n_classes=10
        )
        return {"network": build_model(shape)}

    def batches(self) -> list[Batch]:
        """Draw batches of digits, enlarged to the images' size."""
        images_NCHW, labels_N = digits(N_BATCHES * self.batch_size)
        images_NCHW = interpolate(images_NCHW, size=self.side).repeat(1, self.channels, 1, 1)
        pairs = zip(
            images_NCHW.split(self.batch_size), labels_N.split(self.batch_size), strict=True
        )
        return [Batch(*pair) for pair in pairs]

    def losses(self, models: Models, batch: Batch) -> Losses:
        """Yield the loss of each turn with the model that minimises it."""
        yield "network", cross_entropy(models["network"](batch.images_BCHW), batch.labels_B)


@dataclass(frozen=True)
class Alternating:
    """A generator of digits and its critic, which take turns; `turn` is as above."""

    width: int
    batch_size: int
    turn: int

    @property
    def name(self) -> str:
        """The size of the networks and of a batch."""
        return f"GAN of two perceptrons, {self.width} wide, {self.batch_size}x64"

    @property
    def objective(self) -> Objective:
        """The engine's form of `losses`."""
        return self._turns

    def _turns(self, models: Models, batch: tuple[Tensor, Tensor]) -> Iterator[Turn]:
        for name, loss in self.losses(models, batch):
            yield Turn({"loss": loss}, (name,))

    def models(self) -> dict[str, nn.Module]:
        """Build both, always with the same weights."""
        torch.manual_seed(0)
        return {
            name: nn.Sequential(
                *(nn.Linear(64, self.width), nn.ReLU(), nn.Linear(self.width, self.width)),
                *(nn.ReLU(), nn.Linear(self.width, n_outputs)),
            )
            for name, n_outputs in (("generator", 64), ("critic", 1))
        }

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """Draw batches of digits and of noise."""
        images_NF = digits(N_BATCHES * self.batch_size)[0].flatten(1)
        noise = torch.randn(images_NF.shape)
        return [*zip(images_NF.split(self.batch_size), noise.split(self.batch_size), strict=True)]

    def losses(self, models: Models, batch: tuple[Tensor, Tensor]) -> Losses:
        """Yield the loss of each turn with the model that minimises it."""
        (real, noise), generate, judge = batch, models["generator"], models["critic"]
        fake = generate(noise).detach()
        yield "critic", softplus(-judge(real)).mean() + softplus(judge(fake)).mean()
        yield "generator", softplus(-judge(generate(noise))).mean()


def digits(n_images: int) -> tuple[Tensor, Tensor]:
    """Pick images (N, 1, 8, 8) around [-1, 1] and their labels, always the same ones."""
    found = load_digits()
    order = torch.randperm(len(found.target), generator=generator(0, "digits"))
    rows = order[torch.arange(n_images) % len(order)]
    images_NCHW = torch.from_numpy(found.images).float()[:, None] / 8 - 1
    return images_NCHW[rows], torch.from_numpy(found.target)[rows]


Case = Ordinary | Alternating
CASES: dict[str, Case] = {
    "digits": Ordinary(depth=10, width=2, side=8, channels=1, batch_size=64, turn=8),
    "large": Ordinary(depth=16, width=2, side=32, channels=3, batch_size=32, turn=1),
    "alternating": Alternating(width=768, batch_size=96, turn=8),
    "gpu": Ordinary(depth=16, width=4, side=32, channels=3, batch_size=128, turn=4),
}


class BareLoop:
    """A training loop as one writes it by hand, one step per call."""

    def __init__(self, case: Case, device: torch.device, *, guards: bool) -> None:
        self.case = case
        self.models = {name: model.to(device).train() for name, model in case.models().items()}
        # As the engine does: the gradient of a turn reaches the weights of its model alone.
        self.weights = {name: [*model.parameters()] for name, model in self.models.items()}
        self.optimizers = {name: Adam(lr=LR).make(each) for name, each in self.weights.items()}
        self.guards = guards

    def step(self, batch: Any) -> None:
        """Train on one batch."""
        alone = len(self.models) == 1
        for name, loss in self.case.losses(self.models, batch):
            self.optimizers[name].zero_grad()
            loss.backward(inputs=None if alone else self.weights[name])
            if self.guards:
                gradients = [each.grad for each in self.weights[name] if each.grad is not None]
                read = torch.stack([loss.detach(), get_total_norm(gradients)]).tolist()
                assert all(map(math.isfinite, read)), "the loops diverge"
            self.optimizers[name].step()


@dataclass
class TakingTurns:
    """Batches for the engine; between its turns, the bare loops train.

    `seconds` has the times of all turns, by clock and by name of the loop.
    """

    batches: Sequence[Any]
    turn: int
    n_turns: int
    bare: dict[str, BareLoop]
    device: torch.device
    seconds: dict[str, dict[str, list[float]]] = field(
        default_factory=lambda: {clock: defaultdict(list) for clock in CLOCKS}
    )

    def __len__(self) -> int:
        """Return the number of the engine's batches."""
        return self.turn * self.n_turns

    def epoch(self, epoch: int, start: int = 0, retry: int = 0) -> Iterator[Any]:
        """Yield the engine's batches; the time of the bare loops is not counted as the engine's."""
        for number in range(self.n_turns):
            first = number * self.turn
            turn = [self.batches[i % len(self.batches)] for i in range(first, first + self.turn)]
            # Alternate the order, so that neither bare loop always runs right after the engine.
            for name in [*self.bare][:: 1 if number % 2 else -1]:
                with self._timed(name):
                    for batch in turn:
                        self.bare[name].step(batch)
            with self._timed("engine"):
                yield from turn

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        wait_for(self.device)
        started = {clock: read() for clock, read in CLOCKS.items()}
        yield
        wait_for(self.device)
        for clock, read in CLOCKS.items():
            self.seconds[clock][name].append(read() - started[clock])

    def ratios(self, clock: str, name: str) -> list[float]:
        """Return each turn's ratio of the engine's time to that of a bare loop around it."""
        around = [(before + after) / 2 for before, after in pairwise(self.seconds[clock][name])]
        engine = self.seconds[clock]["engine"][: len(around)]
        return [mine / each for mine, each in zip(engine, around, strict=True)][WARM_UP:]

    def step(self, clock: str, name: str) -> float:
        """Return the median seconds per step of a loop."""
        return statistics.median(self.seconds[clock][name][WARM_UP:]) / self.turn


def wait_for(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def on_device(batch: Any, device: torch.device) -> Any:
    """Copy a batch of `Case.batches` to the device."""
    if isinstance(batch, Batch):
        return Batch(batch.images_BCHW.to(device), batch.labels_B.to(device))
    return tuple(each.to(device) for each in batch)


def measured(case: Case, n_turns: int, device: torch.device) -> str:
    """Train with all loops on the device; return the table.

    Raises:
        AssertionError: if the loops end with different weights.
    """
    bare = {name: BareLoop(case, device, guards=name == GUARDED) for name in (BARE, GUARDED)}
    batches = [on_device(batch, device) for batch in case.batches()]
    turns = TakingTurns(batches, case.turn, n_turns, bare, device)
    state = TrainState({name: model.to(device) for name, model in case.models().items()})
    step = Step(name="train", n_epochs=1, optimizers=dict.fromkeys(state.models, Adam(lr=LR)))
    phase = Phase(step, case.objective, turns)
    with tempfile.TemporaryDirectory() as folder:
        record = JsonLines(folder=folder)
        Run("overhead", {}, state, [phase], [record], runtime=Runtime(device)).train()
        parts = part_seconds(state, record)
    for loop in bare.values():
        for name, model in state.models.items():
            for mine, theirs in zip(model.parameters(), loop.weights[name], strict=True):
                assert torch.equal(mine, theirs), "the loops end with different weights"
    return table(case, turns, parts)


def part_seconds(state: TrainState, record: JsonLines) -> dict[str, float]:
    """Time each part of a step that the engine has and the bare loop has not."""
    weights = {name: trained_weights(each) for name, each in state.optimizers.items()}
    device = next(iter(weights.values()))[0].device
    losses = dict.fromkeys(("loss", "cross_entropy"), torch.tensor(0.5, device=device))
    event = BatchEnd(Position(0, 1, 2), dict.fromkeys(losses, 0.123456789), 3, 0.1)
    parts: dict[str, Callable[[], object]] = {
        "reading the losses": lambda: torch.stack([*losses.values()]).tolist(),
        "the gradient's norm": lambda: gradient_norms(weights),
        "a line of the record": lambda: record(event),
    }
    found = {name: seconds_of(part) for name, part in parts.items()}
    record.close()
    return found


def seconds_of(part: Callable[[], object], times: int = 200) -> float:
    """Return the median CPU seconds of a call."""
    samples = []
    for _ in range(times):
        started = time.process_time()
        part()
        samples.append(time.process_time() - started)
    return statistics.median(samples)


def table(case: Case, turns: TakingTurns, parts: dict[str, float]) -> str:
    """Format the ratios with their quartiles, and the times of the parts."""
    lines = [
        f"{case.name}, {turns.device.type}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, {turns.n_turns} turns of {case.turn} steps",
        f"  {'engine /':24}{'clock':>10}  {'ratio':6}  {'quartiles':16}  ms per step",
    ]
    for name in (BARE, GUARDED):
        for clock in CLOCKS:
            low, middle, high = statistics.quantiles(turns.ratios(clock, name), n=4)
            mine, theirs = (turns.step(clock, each) * 1e3 for each in ("engine", name))
            lines.append(
                f"  {name:24}{clock:>10}  {middle:.4f}  {low:.4f} to {high:.4f}  "
                f"{mine:.2f} / {theirs:.2f}"
            )
    for name, seconds in parts.items():
        share = seconds / turns.step("processor", BARE)
        lines.append(f"  {name:24}{seconds * 1e6:6.0f} us per step, {share:.2%} of a bare step")
    return "\n".join(lines)


def main() -> None:
    """Measure each case and print its table."""
    parser = argparse.ArgumentParser(description="Overhead of the engine over a hand-written loop.")
    parser.add_argument(
        "--case", choices=CASES, action="append", help="the case to measure (all; gpu on one)"
    )
    parser.add_argument("--turns", type=int, default=150, help="turns of each loop (150)")
    parser.add_argument("--steps", type=int, help="steps per turn (depends on the case)")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (1)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(cpu)")
    options = parser.parse_args()
    if options.turns < LEAST:
        parser.error(f"--turns must be >= {LEAST}, got {options.turns}")
    torch.set_num_threads(options.threads)
    device = chosen_device(options.device)
    # Of a size that takes minutes on a CPU.
    usual = [name for name in CASES if name != "gpu" or device.type == "cuda"]
    for name in options.case or usual:
        case = CASES[name]
        steps = options.steps or case.turn
        with reproducible(device):
            print(measured(replace(case, turn=steps), options.turns, device), flush=True)


if __name__ == "__main__":
    main()
