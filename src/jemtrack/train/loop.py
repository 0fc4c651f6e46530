"""The one training loop."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from jemtrack.errors import TrainingDivergedError
from jemtrack.train.distributed import (
    all_reduce_gradients,
    all_reduce_mean,
    broadcast,
    is_rank_zero,
    local_shard,
)
from jemtrack.train.events import (
    BatchEnd,
    BatchStart,
    EpochEnd,
    EpochStart,
    Event,
    PhaseEnd,
    PhaseStart,
    Status,
)
from jemtrack.train.optimizers import Interval, warming_up
from jemtrack.train.phase import Phase
from jemtrack.train.state import TrainState

Autocast = Callable[[], AbstractContextManager[Any]]

ADVICE = "a lower learning rate or weight of the penalty may help"


def fit(
    state: TrainState, phase: Phase, n_phases: int = 1, autocast: Autocast = nullcontext
) -> Iterator[Event]:
    """Train one phase from where `state`, which has entered it, stands; yield what happens.

    The models are applied in the context that `autocast` makes.

    Raises:
        TrainingDivergedError: before a loss or gradient that is not finite reaches the weights,
            and before an epoch ends whose steps made a weight infinite.
    """
    yield PhaseStart(state.position, phase.name, n_phases, phase.n_epochs, phase.n_batches)
    while not (reason := ended(state, phase)):
        yield from fit_epoch(state, phase, autocast)
    status = Status.STOPPED if reason in (state.stop, state.stop_phase) else Status.SUCCESS
    if reason != state.stop_phase:  # a wish that came with the last epoch has nothing to stop
        state.stop_phase = ""
    yield PhaseEnd(state.position, phase.name, reason, status)


def ended(state: TrainState, phase: Phase) -> str:
    """Say why the phase is over; nothing where it is not."""
    if state.stop:
        return state.stop
    how = phase.step.transition
    if how.mode == "loss_threshold":
        assert how.metric is not None  # both are checked where the transition is made
        assert how.threshold is not None
        value = smoothed(state, how.metric)
        if value < how.threshold:
            return f"{how.metric} {value:g} is below {how.threshold:g}"
    # Only whole epochs are judged, and one is always trained.
    at_epoch_end = state.position.epoch and not state.position.batch
    if how.mode == "wall_clock" and at_epoch_end and state.seconds >= 3600 * (how.hours or 0):
        return f"{how.hours:g} hours are over"
    if state.position.epoch < phase.n_epochs:
        return state.stop_phase
    if how.mode == "loss_threshold":
        return f"{how.metric} never fell below {how.threshold:g}: moving on"
    return f"{phase.n_epochs} epochs are done"


def smoothed(state: TrainState, metric: str) -> float:
    """Give the mean of the metric's last values, or the last epoch's; NaN before the first."""
    # Only whole epochs are judged: where a run goes on must not change what it does.
    if state.position.batch or not state.position.epoch:
        return math.nan
    if state.recent:
        return math.fsum(state.recent) / len(state.recent)
    return state.latest.get(metric, math.nan)


def fit_epoch(state: TrainState, phase: Phase, autocast: Autocast = nullcontext) -> Iterator[Event]:
    """Train what is left of the epoch that `state` stands in."""
    epoch, start = state.position.epoch, state.position.batch
    set_modes(state, phase)
    yield EpochStart(state.position)
    batches = islice(phase.batches.epoch(epoch, start, state.retries), phase.n_batches - start)
    started = time.perf_counter()
    for batch in batches:
        yield BatchStart(state.position)
        losses = update(state, phase, batch, autocast)
        note(state, phase, losses)
        step_schedulers(state, phase, "batch", losses)
        before, started = started, time.perf_counter()
        state.seconds += started - before
        yield BatchEnd(state.position, losses, state.step, started - before)
    if not weights_are_finite(state):
        raise TrainingDivergedError(f"the weights are not finite after epoch {epoch + 1}: {ADVICE}")
    metrics = {f"train_{name}": total / phase.n_batches for name, total in state.totals.items()}
    if phase.validation and phase.validation.due(epoch, phase.n_epochs):
        with autocast():
            metrics |= broadcast(phase.validation.measure(state.served) if is_rank_zero() else {})
    step_schedulers(state, phase, "epoch", metrics)
    state.seconds = broadcast(state.seconds + time.perf_counter() - started)
    state.latest, state.totals = metrics, {}
    state.epochs += 1
    state.position = replace(state.position, epoch=epoch + 1, batch=0)
    yield EpochEnd(state.position, metrics, state.epochs, state.step)


def update(
    state: TrainState, phase: Phase, batch: Any, autocast: Autocast = nullcontext
) -> dict[str, float]:
    """Take one optimization step on `batch`; give its losses from before the step."""
    with autocast():
        losses = phase.objective(state.models, local_shard(batch))
    for optimizer in state.optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    losses["loss"].backward()  # type: ignore[no-untyped-call]
    for optimizer in state.optimizers.values():
        all_reduce_gradients(_weights(optimizer))
    values, norms = _read(losses, gradient_norms(state))
    # Written so that a NaN, which is never at most anything, counts too.
    if not abs(values["loss"]) <= min(phase.max_loss, sys.float_info.max):
        raise TrainingDivergedError(_divergence(_fault(values["loss"]), state, values), values)
    if not all(map(math.isfinite, norms.values())):
        raise TrainingDivergedError(_divergence("gradient is not finite", state, values), values)
    for name, optimizer in state.optimizers.items():
        limit = phase.step.optimizers[name].clip_norm
        if limit is not None and norms[name] > limit:
            clip_grads_with_norm_(_weights(optimizer), limit, torch.tensor(norms[name]))
        with warming_up(optimizer, phase.warm_up(name, state.position)):
            optimizer.step()
    return values


def note(state: TrainState, phase: Phase, losses: dict[str, float]) -> None:
    """Count a batch in that was trained on."""
    for name, value in losses.items():
        state.totals[name] = state.totals.get(name, 0.0) + value
    metric = phase.step.transition.metric
    if metric and not math.isnan(losses.get(metric, math.nan)):
        state.recent.append(losses[metric])
    state.last_losses.append(losses["loss"])
    state.step += 1
    state.position = replace(state.position, batch=state.position.batch + 1)


def set_modes(state: TrainState, phase: Phase) -> None:
    """Put the models into training mode, and what is frozen into evaluation mode."""
    for model in state.models.values():
        model.train()
    for model in state.averages.values():
        model.eval()
    for module in phase.frozen_modules(state.models):
        module.eval()


def step_schedulers(
    state: TrainState, phase: Phase, interval: Interval, metrics: Mapping[str, float]
) -> None:
    """Let each scheduler of that interval set the learning rate of the next epoch or batch."""
    for name, scheduler in state.schedulers.items():
        chosen = phase.step.schedulers[name]
        metric = getattr(chosen, "metric", None)
        if chosen.interval != interval:
            continue
        if not metric:
            scheduler.step()
        elif not math.isnan(metrics.get(metric, math.nan)):
            scheduler.step(metrics[metric])  # type: ignore[arg-type]


def gradient_norms(state: TrainState) -> dict[str, Tensor]:
    """Give the 2-norm of all gradients of each optimizer, by its name; 0 where there are none."""
    gradients = {
        name: [weight.grad for weight in _weights(optimizer) if weight.grad is not None]
        for name, optimizer in state.optimizers.items()
    }
    return {name: get_total_norm(each) for name, each in gradients.items()}


def _read(
    losses: Mapping[str, Tensor], norms: Mapping[str, Tensor]
) -> tuple[dict[str, float], dict[str, float]]:
    """Read losses, averaged over the processes, and norms: the device is waited for once."""
    means = all_reduce_mean(torch.stack([*losses.values()]).detach())
    parts = [
        means.double(),
        *(norm.double().reshape(1).to(means.device) for norm in norms.values()),
    ]
    values = torch.cat(parts).tolist()
    n_losses = len(losses)
    return (
        dict(zip(losses, values[:n_losses], strict=True)),
        dict(zip(norms, values[n_losses:], strict=True)),
    )


def weights_are_finite(state: TrainState) -> bool:
    """Say whether every weight that is trained is a finite number."""
    return all(
        bool(weight.isfinite().all())
        for optimizer in state.optimizers.values()
        for weight in _weights(optimizer)
    )


def _weights(optimizer: Optimizer) -> list[Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def _fault(loss: float) -> str:
    return "loss is too large" if math.isfinite(loss) else "loss is not finite"


def _divergence(what: str, state: TrainState, values: dict[str, float]) -> str:
    place = f"epoch {state.position.epoch + 1}, batch {state.position.batch + 1}"
    losses = ", ".join(f"{name} {value:g}" for name, value in values.items())
    before = ", ".join(f"{value:g}" for value in state.last_losses) or "none"
    return (
        f"the {what} at {place} ({losses}; the losses before: {before}); the weights were left as "
        f"they were: {ADVICE}"
    )
