"""An optimization step: which weights it changes, how far, and to what."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar

import pytest
import torch
from diverging_run import make, record_of
from small_run import (
    N_STEPS,
    with_step,
)

from jemtrack.errors import TrainingDivergedError
from jemtrack.events.events import BatchEnd, BatchStart, Diverged, Event, Status
from jemtrack.events.handlers import Callback
from jemtrack.parameters import parameters
from jemtrack.train.loop import update
from jemtrack.train.optimizers import SGD
from jemtrack.train.phase import Phase
from jemtrack.train.recipe import Step
from jemtrack.train.state import TrainState


@pytest.mark.parametrize("max_steps", [1, 2], ids=["seen at the epoch's end", "by the next loss"])
def test_weights_that_are_not_finite_are_kept_nowhere(tmp_path, max_steps):
    """The losses before were finite, and the gradients: it is the step that is too large."""
    run = make(tmp_path, lr_factor=1e-39)
    optimizers = {"net": SGD(lr=3e38)}
    run.phases = [
        with_step(each, optimizers=optimizers, max_steps=max_steps) for each in run.phases
    ]
    run.checkpoints.every_steps = 1
    run.train()

    record = record_of(run)
    assert [(event.step, event.lr_scale) for event in record.of(Diverged)] == [(0, 1e-39)]
    assert record.of(BatchEnd)[0].status == Status.SUCCESS
    assert record.events[-1].status == Status.SUCCESS
    assert all(weight.isfinite().all() for weight in run.state.models["net"].parameters())


def test_weights_that_are_not_finite_fail_a_run_that_may_not_go_back(tmp_path):
    run = make(tmp_path, action="fail")
    optimizers = {"net": SGD(lr=3e38)}
    run.phases = [with_step(each, optimizers=optimizers, max_steps=1) for each in run.phases]
    run.checkpoints.every_steps = 1

    with pytest.raises(TrainingDivergedError, match="the weights are not finite after epoch 1: a"):
        run.train()

    assert run.checkpoints.load() is None


def test_the_learning_rate_rises_over_the_warm_up():
    """On the loss w, a step of gradient descent is as long as the rate."""
    net = torch.nn.Linear(1, 1, bias=False)
    step = Step(name="x", n_epochs=2, optimizers={"net": SGD(lr=0.5, warm_up_steps=4)})
    phase = Phase(step, sum_of_weights, [0] * 3)
    state, places = TrainState({"net": net}), []
    state.enter(phase)
    for _ in range(6):
        places.append(net.weight.item())
        update(state, phase, None)
        assert state.optimizers["net"].param_groups[0]["lr"] == 0.5
        epoch, batch = divmod(len(places), 3)
        state.position = replace(state.position, epoch=epoch, batch=batch)

    lengths = [before - after for before, after in pairwise([*places, net.weight.item()])]
    assert lengths == [pytest.approx(0.5 * share, abs=1e-6) for share in (0.25, 0.5, 0.75, 1, 1, 1)]


def sum_of_weights(models, batch) -> dict[str, torch.Tensor]:
    return {"loss": models["net"].weight.sum()}


def test_an_optimizer_clips_all_of_its_gradients_to_its_norm(tmp_path):
    """Steps of plain gradient descent are as long as the clipped gradient, times the rate."""
    lengths = []

    class Steps(Callback):
        def __call__(self, event: Event, state: TrainState) -> None:
            if isinstance(event, BatchStart | BatchEnd):
                weights = state.models["net"].parameters()
                now = torch.cat([weight.detach().flatten().double() for weight in weights])
                if isinstance(event, BatchEnd):
                    lengths.append(float((now - self.before).norm()))
                self.before = now

    for name, clip_norm in (("free", None), ("clipped", 0.01), ("never", 1e9)):
        run = make(tmp_path / name, Steps())
        optimizers = {"net": SGD(lr=0.5, clip_norm=clip_norm)}
        run.phases = [with_step(phase, optimizers=optimizers) for phase in run.phases]
        run.train()

    free, clipped, never = (lengths[i * N_STEPS : (i + 1) * N_STEPS] for i in range(3))
    assert free == never
    assert min(free) > 0.02
    assert clipped == pytest.approx([0.5 * 0.01] * N_STEPS, rel=1e-3)


@parameters
class EndsStep(Step):
    """A step whose optimizer `ends` trains two parts of a model."""

    optimized: ClassVar[Mapping[str, tuple[str, ...]]] = {"ends": ("net.0", "net.3")}


def test_optimizers_train_the_modules_that_the_phase_names(tmp_path):
    """Two optimizers for parts of one model, one of them with nothing that the loss depends on."""
    run = make(tmp_path)
    net = run.state.models["net"]
    run.state.models["idle"] = torch.nn.Linear(2, 2)
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    sgd = SGD(lr=0.1, clip_norm=1.0)
    run.phases = [
        replace(
            phase,
            step=EndsStep(
                name=phase.name, n_epochs=phase.n_epochs, optimizers={"ends": sgd, "idle": sgd}
            ),
        )
        for phase in run.phases
    ]
    run.save_weights = None
    run.train()

    changed = {name for name, w in net.named_parameters() if not w.equal(before[name])}
    assert changed == {"0.weight", "0.bias", "3.weight", "3.bias"}
