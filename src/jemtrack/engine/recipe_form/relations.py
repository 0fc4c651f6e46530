"""What is wrong between the values of a step, which may each be sound by itself.

A default that a step cannot use, such as the optimizer of a model that it freezes, is no fault
of the step's: it is left out.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jemtrack.engine.choices import ReduceLROnPlateau
from jemtrack.engine.recipe_form.document import Fault, Place
from jemtrack.engine.recipe_form.resolved import ResolvedStep
from jemtrack.engine.recipe_form.values import listed
from jemtrack.parameters import shown, suggestion

_OPTIMIZERS = ("optimization", "optimizers")
_SCHEDULERS = ("optimization", "schedulers")


def relation_faults(resolved: ResolvedStep) -> Iterator[Fault]:
    """Say what does not go together in a step; places are those in the step."""
    yield from _freeze_faults(resolved)
    yield from _optimizer_faults(resolved)
    yield from _scheduler_faults(resolved)
    yield from _training_faults(resolved)
    yield from _threshold_faults(resolved)
    yield from _plateau_faults(resolved)


def _freeze_faults(resolved: ResolvedStep) -> Iterator[Fault]:
    step = resolved.step
    lists = {field: listed(step.values.get(field)) for field in ("freeze", "unfreeze")}
    # To unfreeze what the defaults freeze is what `unfreeze` is for.
    if step.is_own(("unfreeze",)) and not step.is_own(("freeze",)):
        return
    later, other = "unfreeze", "freeze"
    if not step.is_own((later,)) and step.is_own((other,)):
        later, other = other, later
    for number, name in enumerate(lists[later]):
        if name in lists[other]:
            yield Fault(
                (later, number), f"{shown(name)} stands in `{other}` too: it must be in one"
            )


def _optimizer_faults(resolved: ResolvedStep) -> Iterator[Fault]:
    family = resolved.family
    for name in resolved.given:
        place = (*_OPTIMIZERS, name)
        if name not in resolved.usable and resolved.step.is_own(place):
            yield Fault(place, "has an optimizer, but all of it is frozen")
    usable = [*resolved.usable]
    for number, name in enumerate(usable):
        for other in usable[:number]:
            if family.overlap(name, other):
                text = f"trains weights that the optimizer of '{other}' trains too"
                yield Fault((*_OPTIMIZERS, name), f"{text}; a null takes a default away")


def _scheduler_faults(resolved: ResolvedStep) -> Iterator[Fault]:
    step = resolved.step
    for name in resolved.given_schedulers:
        place = (*_SCHEDULERS, name)
        if not step.is_own(place) or name in resolved.usable:
            continue
        if name not in resolved.given:
            yield Fault(place, "has a scheduler, but no optimizer")
        elif not step.is_own((*_OPTIMIZERS, name)):
            yield Fault(place, "has a scheduler, but all of it is frozen")


def _training_faults(resolved: ResolvedStep) -> Iterator[Fault]:
    family = resolved.family
    if family.modes:
        if resolved.modes is None:
            return
        if fault := family.modes.fault(resolved.modes):
            yield Fault((), fault)
            return
    own = any(resolved.step.is_own((*_OPTIMIZERS, name)) for name in resolved.given)
    if not resolved.usable and not resolved.usual and not own:
        yield Fault((), "trains nothing: all that it would train is frozen")


def _threshold_faults(resolved: ResolvedStep) -> Iterator[Fault]:
    transition = resolved.step.mapping("transition_on")
    if transition.get("mode") != "loss_threshold":
        return
    for name in ("metric", "threshold"):
        if name not in transition:
            yield Fault(("transition_on", name), "is missing: the mode loss_threshold needs it")
    batch, epoch = resolved.batch_metrics, resolved.epoch_metrics
    known = None if batch is None or epoch is None else (*batch, *epoch)
    metric = transition.get("metric")
    yield from _metric_faults(metric, known, resolved.step.title, ("transition_on", "metric"))


def _plateau_faults(resolved: ResolvedStep) -> Iterator[Fault]:
    for name, choice in resolved.usable_schedulers.items():
        if isinstance(choice, Mapping) and choice.get("type") == ReduceLROnPlateau.__name__:
            metric = choice.get("metric", ReduceLROnPlateau.metric)
            place = (*_SCHEDULERS, name, "metric")
            yield from _metric_faults(metric, resolved.epoch_metrics, resolved.step.title, place)


def _metric_faults(
    metric: Any, known: Iterable[str] | None, step: str, place: Place
) -> Iterator[Fault]:
    if known is None or not isinstance(metric, str):
        return
    known = [*known]
    if metric not in known:
        hint = suggestion(metric, known)
        yield Fault(place, f"must be a metric of {step}, got {shown(metric)}; {hint}")
