"""Models that train against one another: a turn of each in every batch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from small_run import BreakOff, PowerCutError, Seen
from torch import Tensor, nn
from torch.nn.functional import mse_loss, softplus

from jemtrack.errors import InputError
from jemtrack.shared.hardware import Hardware
from jemtrack.shared.metrics import declare_metric
from jemtrack.shared.random_streams import generator
from jemtrack.train.checkpoint import Checkpoints
from jemtrack.train.distributed import is_rank_zero
from jemtrack.train.launch import Runtime, launch
from jemtrack.train.optimizers import SGD, Adam
from jemtrack.train.phase import Phase, Turn
from jemtrack.train.recipe import Step
from jemtrack.train.run import Run
from jemtrack.train.state import TrainState

N_EPOCHS, N_BATCHES = 2, 2
N_STEPS = 3 * N_EPOCHS * N_BATCHES
CLIP = 0.05
CPU = Runtime(torch.device("cpu"))
declare_metric("critic_loss")


@dataclass(frozen=True)
class Pairs:
    """Batches of eight points and the noise to make such points of."""

    phase: int

    def __len__(self) -> int:
        return N_BATCHES

    def epoch(self, epoch: int, start: int = 0, retry: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in range(start, N_BATCHES):
            stream = generator(1, "pairs", self.phase, epoch, batch)
            yield torch.randn(8, 2, generator=stream), torch.randn(8, 3, generator=stream)


def imitate(models, batch) -> dict[str, Tensor]:
    real, noise = batch
    return {"loss": mse_loss(models["generator"](noise), real)}


def critic_loss(models, batch) -> Tensor:
    real, noise = batch
    fake = models["generator"](noise).detach()
    return softplus(-models["critic"](real)).mean() + softplus(models["critic"](fake)).mean()


def generator_loss(models, batch) -> Tensor:
    return softplus(-models["critic"](models["generator"](batch[1]))).mean()


def adversarial(models, batch) -> Iterator[Turn]:
    loss = critic_loss(models, batch)
    yield Turn({"loss": loss, "critic_loss": loss}, ("critic",))
    yield Turn({"loss": generator_loss(models, batch)}, ("generator",))


def make_models() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    sizes = {"generator": (3, 2), "critic": (2, 1)}
    return {
        name: nn.Sequential(nn.Linear(n_in, 8), nn.SiLU(), nn.Linear(8, n_out))
        for name, (n_in, n_out) in sizes.items()
    }


def make_phases() -> list[Phase]:
    """Make three: the generator alone, both in turns, and both with a part of one frozen."""
    adam, sgd = Adam(lr=0.01, betas=(0.5, 0.9)), SGD(lr=0.1, momentum=0.9, clip_norm=CLIP)
    both = {"generator": adam, "critic": sgd}
    steps = [
        Step(name="alone", n_epochs=N_EPOCHS, optimizers={"generator": adam}),
        Step(name="turns", n_epochs=N_EPOCHS, optimizers=both),
        Step(name="frozen", n_epochs=N_EPOCHS, optimizers=both, freeze=("generator.0",)),
    ]
    objectives = (imitate, adversarial, adversarial)
    return [
        Phase(step, objective, Pairs(number))
        for number, (step, objective) in enumerate(zip(steps, objectives, strict=True))
    ]


def train(folder: Path | None = None, cut: int = 0, runtime: Runtime = CPU) -> Run:
    """Train the three phases, with a checkpoint after every step; cut off after the step `cut`."""
    checkpoints = Checkpoints(folder, every_steps=1) if folder and is_rank_zero() else None
    run = Run(
        "turns",
        {},
        TrainState(make_models()),
        make_phases(),
        [Seen()],
        [BreakOff(cut)],
        checkpoints,
        runtime=runtime,
    )
    if cut:
        with pytest.raises(PowerCutError):
            run.train()
    else:
        run.train()
    return run


def weights(run: Run) -> dict[str, Tensor]:
    return nn.ModuleDict({**run.state.models}).state_dict()


def by_hand() -> dict[str, Tensor]:
    """Train the three phases by a loop of PyTorch alone."""
    models = make_models()
    generator_, critic = models["generator"], models["critic"]
    for number in range(3):
        # A part that is frozen gets no gradient, and an optimizer skips such weights.
        generator_[0].requires_grad_(number < 2)
        adam = torch.optim.Adam(generator_.parameters(), lr=0.01, betas=(0.5, 0.9), fused=True)
        sgd = torch.optim.SGD(critic.parameters(), lr=0.1, momentum=0.9, fused=True)
        for epoch in range(N_EPOCHS):
            for batch in Pairs(number).epoch(epoch):
                if number:
                    sgd.zero_grad()
                    critic_loss(models, batch).backward()
                    nn.utils.clip_grad_norm_(critic.parameters(), CLIP)
                    sgd.step()
                adam.zero_grad()
                (generator_loss if number else lambda *of: imitate(*of)["loss"])(
                    models, batch
                ).backward()
                adam.step()
    return nn.ModuleDict(models).state_dict()


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name


def test_turns_train_as_a_loop_by_hand_does():
    run = train()

    assert_equal(weights(run), by_hand())
    first, *_, last = run.trackers[0].metrics
    assert first.keys() == {"loss", "gradient_norm.generator"}
    assert last.keys() == {
        "loss", "critic_loss", "gradient_norm.generator", "gradient_norm.critic",
    }  # fmt: skip
    assert last["loss"] > last["critic_loss"] > 0
    # Norms are those before clipping.
    assert last["gradient_norm.critic"] > CLIP


@pytest.mark.parametrize("at", range(1, N_STEPS + 1))
def test_a_kill_between_any_two_batches_changes_nothing(tmp_path, at):
    train(tmp_path, cut=at)
    torch.rand(7)

    run = train(tmp_path)

    whole = train()
    assert_equal(weights(run), weights(whole))
    assert run.trackers[0].metrics == whole.trackers[0].metrics


def train_in_processes(runtime: Runtime, folder: Path) -> None:
    whole = train(folder / "whole", runtime=runtime)
    for cut in (3, 7):
        train(folder / "broken", cut=cut, runtime=runtime)
    resumed = train(folder / "broken", runtime=runtime)
    if is_rank_zero():
        torch.save((weights(whole), weights(resumed), whole.trackers[0].metrics), folder / "both")


def test_two_processes_take_turns_as_one_does(tmp_path):
    launch(Hardware(device="cpu", processes=2), train_in_processes, tmp_path)

    together, resumed, metrics = torch.load(tmp_path / "both")
    alone = train()
    assert_equal(resumed, together)
    for found, expected in zip(metrics, alone.trackers[0].metrics, strict=True):
        assert found == pytest.approx(expected, rel=1e-5)
    for name, weight in weights(alone).items():
        torch.testing.assert_close(together[name], weight, rtol=1e-5, atol=1e-6)


def test_losses_of_one_name_are_refused():
    def twice(models, batch):
        for name in ("critic", "generator"):
            loss = critic_loss(models, batch) + generator_loss(models, batch)
            yield Turn({"loss": loss, "critic_loss": loss}, (name,))

    (_, phase, _) = make_phases()
    phase = Phase(phase.step, twice, phase.batches)

    with pytest.raises(InputError, match=r"turns of phase 'turns' must have .* got critic_loss"):
        Run("x", {}, TrainState(make_models()), [phase]).train()
