"""The one training loop."""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_

from jemtrack.errors import InputError, TrainingDivergedError
from jemtrack.events.events import PhaseEnd, PhaseStart, Status
from jemtrack.shared.metrics import Metric
from jemtrack.train.distributed import (
    all_reduce_gradients,
    all_reduce_mean,
    broadcast,
    is_rank_zero,
    local_shard,
)
from jemtrack.train.lifecycle import Lifecycle
from jemtrack.train.optimizers import Interval, warming_up
from jemtrack.train.phase import Models, Phase, Turn
from jemtrack.train.state import TrainState, trained_weights, weights_are_finite

Autocast = Callable[[], AbstractContextManager[Any]]

ADVICE = "a lower learning rate or weight of the penalty may help"


def fit(life: Lifecycle, phase: Phase, autocast: Autocast = nullcontext) -> None:
    """Train one phase, which the run's state has entered, from the state's position to its end.

    The models are applied in the context that `autocast` makes.

    Raises:
        TrainingDivergedError: before a loss or gradient that is not finite reaches the weights,
            and before an epoch ends whose steps made a weight infinite.
    """
    state = life.state
    start = PhaseStart(state.position, phase.name, life.n_phases, phase.n_epochs, phase.n_batches)
    with life.phase(start, lambda: _end(life, phase)):
        while not ended(state, phase):
            fit_epoch(life, phase, autocast)


def _end(life: Lifecycle, phase: Phase) -> PhaseEnd:
    state = life.state
    reason = ended(state, phase)
    status = Status.STOPPED if reason in (state.stop, state.stop_phase) else Status.SUCCESS
    # A callback may ask for the end of a phase in its last epoch, when it ends anyway.
    if reason != state.stop_phase:
        state.stop_phase = ""
    if state.stop or state.position.phase + 1 == life.n_phases:
        # A run that resumes from here has nothing left to train.
        life.checkpoints.save()
    return PhaseEnd(state.position, phase.name, reason, status)


def ended(state: TrainState, phase: Phase) -> str:
    """Return why the phase is over; nothing if it is not."""
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
    """Return the mean of the metric's last values, or the last epoch's; NaN before the first."""
    # Only whole epochs are judged: where a run resumes must not change what it does.
    if state.position.batch or not state.position.epoch:
        return math.nan
    if state.recent:
        return math.fsum(state.recent) / len(state.recent)
    return state.latest.get(metric, math.nan)


def fit_epoch(life: Lifecycle, phase: Phase, autocast: Autocast = nullcontext) -> None:
    """Train what is left of the epoch at the state's position."""
    state = life.state
    epoch, start = state.position.epoch, state.position.batch
    set_modes(state, phase)
    with life.epoch() as metrics:
        batches = phase.batches.epoch(epoch, start, state.retries)
        for batch in islice(batches, phase.n_batches - start):
            with life.batch() as values:
                batch = _with_step(batch, phase.steps_before(state.position))
                losses, norms = update(state, phase, batch, autocast)
                note(state, phase, losses)
                step_schedulers(state, phase, "batch", losses)
                values.update(losses | norms)
        if not weights_are_finite(state):
            raise TrainingDivergedError(
                f"the weights are not finite after epoch {epoch + 1}: {ADVICE}"
            )
        means = {f"train_{name}": total / phase.n_batches for name, total in state.totals.items()}
        if phase.validation and phase.validation.due(epoch, phase.n_epochs):
            with autocast():
                means |= broadcast(phase.validation.measure(state.served) if is_rank_zero() else {})
        step_schedulers(state, phase, "epoch", means)
        metrics.update(means)


def _with_step(batch: Any, step: int) -> Any:
    """Write `step` into a batch that has a field for it."""
    has_step = "step" in getattr(batch, "__dataclass_fields__", ())
    return replace(batch, step=step) if has_step else batch


def update(
    state: TrainState, phase: Phase, batch: Any, autocast: Autocast = nullcontext
) -> tuple[dict[str, float], dict[str, float]]:
    """Take one optimization step on `batch`, turn by turn.

    Returns:
        The losses from before each turn's step; `loss` is the sum of those that were minimised.
        The norms of the gradients before clipping, `gradient_norm.<optimizer>`.
    """
    losses: dict[str, float] = {}
    norms: dict[str, float] = {}
    for turn in _turns(phase, state.models, local_shard(batch), autocast):
        values, of_turn = _take(turn, state, phase)
        if twice := losses.keys() & values.keys() - {"loss"}:
            raise InputError(
                f"the losses of the turns of phase {phase.name!r} must have different names, "
                f"got {', '.join(sorted(twice))} twice"
            )
        values["loss"] += losses.get("loss", 0.0)
        losses |= values
        norms |= of_turn
    return losses, {f"{Metric.GRADIENT_NORM}.{name}": norm for name, norm in norms.items()}


def _turns(phase: Phase, models: Models, batch: Any, autocast: Autocast) -> Iterator[Turn]:
    with autocast():
        made = phase.objective(models, batch)
    if isinstance(made, Mapping):
        yield Turn(made)
        return
    # A context for each turn: autocast caches copies of weights, which the turn before changed.
    while True:
        with autocast():
            turn = next(made, None)
        if turn is None:
            return
        yield turn


def _loss(turn: Turn, phase: Phase) -> Tensor:
    """Return what the turn minimises.

    Raises:
        InputError: if the objective computed no such thing, or all that it depends on is frozen.
    """
    loss = turn.losses.get("loss")
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise InputError(
            f"the objective of phase {phase.name!r} must return `loss`, a tensor of one number"
        )
    if not loss.requires_grad:
        raise InputError(f"phase {phase.name!r} trains nothing that its loss depends on")
    return loss


def _take(turn: Turn, state: TrainState, phase: Phase) -> tuple[dict[str, float], dict[str, float]]:
    """Step the turn's optimizers down the gradient of its loss, if loss and gradient are finite."""
    optimizers = {name: state.optimizers[name] for name in turn.optimizers or state.optimizers}
    weights = {name: trained_weights(each) for name, each in optimizers.items()}
    for weight in chain.from_iterable(weights.values()):
        weight.grad = None
    # Where all take the turn, no other weight needs a gradient: to name them all costs time.
    inputs = [w for w in chain.from_iterable(weights.values()) if w.requires_grad]
    loss = _loss(turn, phase)
    loss.backward(inputs=inputs if turn.optimizers else None)  # type: ignore[no-untyped-call]
    for each in weights.values():
        all_reduce_gradients(each)
    values, norms = _read(turn.losses, gradient_norms(weights))
    # Written so that a NaN, which is never at most anything, counts too.
    if not abs(values["loss"]) <= min(phase.max_loss, sys.float_info.max):
        raise TrainingDivergedError(_divergence(_problem(values["loss"]), state, values), values)
    if not all(map(math.isfinite, norms.values())):
        raise TrainingDivergedError(_divergence("gradient is not finite", state, values), values)
    for name, optimizer in optimizers.items():
        limit = phase.step.optimizers[name].clip_norm
        if limit is not None and norms[name] > limit:
            clip_grads_with_norm_(weights[name], limit, torch.tensor(norms[name]))
        with warming_up(optimizer, phase.warm_up(name, state.position)):
            optimizer.step()
    return values, norms


def note(state: TrainState, phase: Phase, losses: Mapping[str, float]) -> None:
    """Add the losses of a batch to what the epoch's means and the phase's end are computed from."""
    for name, value in losses.items():
        state.totals[name] = state.totals.get(name, 0.0) + value
    metric = phase.step.transition.metric
    if metric and not math.isnan(losses.get(metric, math.nan)):
        state.recent.append(losses[metric])
    state.last_losses.append(losses["loss"])


def set_modes(state: TrainState, phase: Phase) -> None:
    """Put the models into training mode, and frozen modules into evaluation mode."""
    for model in state.models.values():
        model.train()
    for model in state.averages.values():
        model.eval()
    for module in phase.frozen_modules(state.models):
        module.eval()


def step_schedulers(
    state: TrainState, phase: Phase, interval: Interval, metrics: Mapping[str, float]
) -> None:
    """Step the schedulers of that interval."""
    for name, scheduler in state.schedulers.items():
        chosen = phase.step.schedulers[name]
        metric = getattr(chosen, "metric", None)
        if chosen.interval != interval:
            continue
        if not metric:
            scheduler.step()
        elif not math.isnan(metrics.get(metric, math.nan)):
            scheduler.step(metrics[metric])  # type: ignore[arg-type]


def gradient_norms(weights: Mapping[str, Sequence[nn.Parameter]]) -> dict[str, Tensor]:
    """Compute the norm of all gradients of each optimizer together, by its name."""
    norms = {}
    for name, each in weights.items():
        gradients = [weight.grad for weight in each if weight.grad is not None]
        # PyTorch's get_total_norm, without its sorting by device, which takes as long as the norm.
        parts = torch.stack(torch._foreach_norm(gradients)) if gradients else torch.zeros(1)
        norms[name] = torch.linalg.vector_norm(parts)
    return norms


def _read(
    losses: Mapping[str, Tensor], norms: Mapping[str, Tensor]
) -> tuple[dict[str, float], dict[str, float]]:
    """Read losses, averaged over the processes, and norms; wait for the device once."""
    device = losses["loss"].device
    parts = [each.detach().to(device) for each in (*losses.values(), *norms.values())]
    # The norms are those of the averaged gradients, equal in all processes.
    values = all_reduce_mean(torch.stack(parts).double()).tolist()
    n_losses = len(losses)
    return (
        dict(zip(losses, values[:n_losses], strict=True)),
        dict(zip(norms, values[n_losses:], strict=True)),
    )


def _problem(loss: float) -> str:
    return "loss is too large" if math.isfinite(loss) else "loss is not finite"


def _divergence(what: str, state: TrainState, values: dict[str, float]) -> str:
    place = f"epoch {state.position.epoch + 1}, batch {state.position.batch + 1}"
    losses = ", ".join(f"{name} {value:g}" for name, value in values.items())
    before = ", ".join(f"{value:g}" for value in state.last_losses) or "none"
    return (
        f"the {what} at {place} ({losses}; the losses before: {before}); the weights were left as "
        f"they were: {ADVICE}"
    )
