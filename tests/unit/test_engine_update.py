"""An optimization step: which weights it changes, how far, and to what."""

from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from diverging_run import make, record_of
from small_run import (
    N_STEPS,
)

from jemtrack.errors import TrainingDivergedError
from jemtrack.train.events import BatchEnd, BatchStart, Diverged, Event, Status
from jemtrack.train.handlers import Callback
from jemtrack.train.loop import update
from jemtrack.train.phase import Phase
from jemtrack.train.state import TrainState


@pytest.mark.parametrize("max_steps", [1, 2], ids=["seen at the epoch's end", "by the next loss"])
def test_weights_that_are_not_finite_are_kept_nowhere(tmp_path, max_steps):
    """The losses before were finite, and the gradients: it is the step that is too large."""
    run = make(tmp_path, lr_factor=1e-39)
    optimizers = {"net": partial(torch.optim.SGD, lr=3e38)}
    run.phases = [replace(each, optimizers=optimizers, max_steps=max_steps) for each in run.phases]
    run.checkpoints.every_steps = 1
    run.train()

    record = record_of(run)
    assert [(event.step, event.lr_scale) for event in record.of(Diverged)] == [(0, 1e-39)]
    assert record.of(BatchEnd)[0].status == Status.SUCCESS
    assert record.events[-1].status == Status.SUCCESS
    assert all(weight.isfinite().all() for weight in run.state.models["net"].parameters())


def test_weights_that_are_not_finite_fail_a_run_that_may_not_go_back(tmp_path):
    run = make(tmp_path, action="fail")
    optimizers = {"net": partial(torch.optim.SGD, lr=3e38)}
    run.phases = [replace(each, optimizers=optimizers, max_steps=1) for each in run.phases]
    run.checkpoints.every_steps = 1

    with pytest.raises(TrainingDivergedError, match="the weights are not finite after epoch 1: a"):
        run.train()

    assert run.checkpoints.load() is None


def test_the_learning_rate_rises_over_the_warm_up():
    """On the loss w, a step of gradient descent is as long as the rate."""
    net = torch.nn.Linear(1, 1, bias=False)
    descent = {"net": partial(torch.optim.SGD, lr=0.5)}
    phase = Phase("x", sum_of_weights, [0] * 3, 2, descent, warm_up_steps={"net": 4})
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

    for name, clip_norms in (("free", {}), ("clipped", {"net": 0.01}), ("other", {"nett": 0.01})):
        run = make(tmp_path / name, Steps())
        optimizers = {"net": partial(torch.optim.SGD, lr=0.5)}
        run.phases = [replace(p, optimizers=optimizers, clip_norms=clip_norms) for p in run.phases]
        run.train()

    free, clipped, other = (lengths[i * N_STEPS : (i + 1) * N_STEPS] for i in range(3))
    assert free == other
    assert min(free) > 0.02
    assert clipped == pytest.approx([0.5 * 0.01] * N_STEPS, rel=1e-3)


def test_optimizers_train_the_modules_that_the_phase_names(tmp_path):
    """Two optimizers for parts of one model, one of them with nothing that the loss depends on."""
    run = make(tmp_path)
    net = run.state.models["net"]
    run.state.models["idle"] = torch.nn.Linear(2, 2)
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    sgd = partial(torch.optim.SGD, lr=0.1)
    run.phases = [
        replace(
            phase,
            optimizers={"ends": sgd, "idle": sgd},
            trained={"ends": ("net.0", "net.3")},
            clip_norms={"ends": 1.0, "idle": 1.0},
        )
        for phase in run.phases
    ]
    run.save_weights = None
    run.train()

    changed = {name for name, w in net.named_parameters() if not w.equal(before[name])}
    assert changed == {"0.weight", "0.bias", "3.weight", "3.bias"}
