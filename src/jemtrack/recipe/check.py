"""All that can be wrong with a recipe: with each value, between values, with the whole.

A default that a step cannot use, such as the optimizer of a model that it freezes, is no problem
of the step: it is left out.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from jemtrack.parameters import faults, parameters, shown, suggestion
from jemtrack.recipe.steps import LayeredStep, ResolvedStep, layered, listed
from jemtrack.recipe.yaml_lines import ValueProblem, YamlPath
from jemtrack.train.components import Component, option_problems
from jemtrack.train.optimizers import NO_SCHEDULER, OPTIMIZERS, SCHEDULERS, ReduceLROnPlateau
from jemtrack.train.recipe import Divergence, Family, Recipe, Step, Transition


def class_problem(path: str) -> str:
    """Say why `path`, such as `jemtrack.stages.mine.PseudoHuber`, names no class."""
    module, _, name = path.rpartition(".")
    file = _source(module)
    if file is None:
        return f"must be the dotted path of a class, got {path!r}: there is no module {module!r}"
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        return f"cannot be found in {module!r}, which is not valid Python: {error}"
    if name in _names(tree):
        return ""
    return f"must be the dotted path of a class, got {path!r}: {file.name} defines no {name!r}"


def _source(module: str) -> Path | None:
    """Find a module's file as an import would; that of a parent package is not run either."""
    folders: list[str] | None = None
    spec = None
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        spec = PathFinder.find_spec(name, folders)
        if spec is None:
            return None
        folders = [*(spec.submodule_search_locations or [])]
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _names(tree: ast.Module) -> set[str]:
    """Name the classes of a module, and what it imports: a class may come from elsewhere."""
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    imports = (node for node in tree.body if isinstance(node, ast.ImportFrom))
    return classes | {alias.asname or alias.name for node in imports for alias in node.names}


_PLAIN = ("name", "n_epochs", "freeze", "unfreeze", "max_steps")
_ABSENT = "is missing"


@parameters
class _NoScheduler:
    """The type `none`, which has no options."""


def step_names(family: Family) -> tuple[str, ...]:
    """Name the fields that a step of the family can have."""
    objective = ("objective",) if family.objectives else ()
    return (*_PLAIN, "optimization", "transition_on", *objective, *family.mode_names)


def step_problems(step: Mapping[str, Any], family: Family) -> Iterator[ValueProblem]:
    """Say what is wrong with the values of a step, one by one; places are those in the step."""
    yield from unknown_names(step, step_names(family), ())
    yield from value_problems(Step, {name: step[name] for name in _PLAIN if name in step}, ())
    for field in ("freeze", "unfreeze"):
        for number, name in enumerate(listed(step.get(field))):
            if isinstance(name, str) and name not in family.models:
                yield ValueProblem((field, number), _unknown("a model", name, family.models))
    if family.objectives:
        yield from _objective_faults(step, family)
    if family.modes:
        modes = {name: step[name] for name in family.mode_names if name in step}
        yield from value_problems(family.modes.options, modes, ())
    yield from _optimization_faults(step, family)
    if "transition_on" in step:
        yield from _transition_faults(step["transition_on"])


def value_problems(cls: type, values: Mapping[str, Any], at: YamlPath) -> Iterator[ValueProblem]:
    """Say which values the parameters class refuses."""
    for place, message in faults(cls, dict(values)):
        yield ValueProblem((*at, *place), message, absent=message == _ABSENT)


def unknown_names(
    values: Mapping[str, Any], known: Iterable[str], at: YamlPath
) -> Iterator[ValueProblem]:
    """Say which names do not belong into a mapping."""
    known = [*known]
    for name in values:
        if name not in known:
            yield ValueProblem((*at, name), f"is not known here; {suggestion(name, known)}")


def not_a_mapping(value: Any, holds: str, at: YamlPath) -> Iterator[ValueProblem]:
    """Say so where a value is no mapping; `holds` is what it must hold."""
    if not isinstance(value, Mapping):
        yield ValueProblem(at, f"must hold {holds}, got {shown(value)}")


def typed_problems(
    value: Any, table: Mapping[str, type], kind: str, at: YamlPath
) -> Iterator[ValueProblem]:
    """Say what is wrong with `{type: ..., ...options}` whose type is one of the table."""
    if not isinstance(value, Mapping):
        yield from not_a_mapping(value, "`type` and its options", at)
    elif fault := typed_name_problem(value, table, kind, at):
        yield fault
    else:
        options = {name: value[name] for name in value if name != "type"}
        yield from value_problems(table[value["type"]], options, at)


def typed_name_problem(
    value: Mapping[str, Any], known: Iterable[str], kind: str, at: YamlPath
) -> ValueProblem | None:
    """Say what is wrong with the `type` of a mapping."""
    if "type" not in value:
        return ValueProblem((*at, "type"), _ABSENT, absent=True)
    if not isinstance(value["type"], str) or value["type"] not in [*known]:
        return ValueProblem((*at, "type"), _unknown(kind, value["type"], known))
    return None


def _objective_faults(step: Mapping[str, Any], family: Family) -> Iterator[ValueProblem]:
    at = ("objective",)
    if "objective" not in step:
        if family.usual_objective:
            return
        yield ValueProblem(at, f"is missing; there are {', '.join(family.objectives)}", absent=True)
        return
    objective = step["objective"]
    kind = objective.get("type") if isinstance(objective, Mapping) else None
    if isinstance(kind, str) and "." in kind:
        if fault := class_problem(kind):
            yield ValueProblem((*at, "type"), fault)
        return
    options = {name: form.options for name, form in family.objectives.items()}
    yield from typed_problems(objective, options, "an objective", at)


def _optimization_faults(step: Mapping[str, Any], family: Family) -> Iterator[ValueProblem]:
    if "optimization" not in step:
        return
    at, optimization = ("optimization",), step["optimization"]
    tables: dict[str, tuple[str, Mapping[str, type]]] = {
        "optimizers": ("an optimizer", OPTIMIZERS),
        "schedulers": ("a scheduler", {**SCHEDULERS, NO_SCHEDULER: _NoScheduler}),
    }
    if not isinstance(optimization, Mapping):
        yield from not_a_mapping(optimization, "optimizers and schedulers", at)
        return
    yield from unknown_names(optimization, tables, at)
    for field, (kind, table) in tables.items():
        chosen = optimization.get(field, {})
        yield from not_a_mapping(chosen, "names of models", (*at, field))
        for name, choice in chosen.items() if isinstance(chosen, Mapping) else []:
            place = (*at, field, name)
            if name not in family.optimizers:
                yield ValueProblem(
                    place, f"is no model with {kind}; {suggestion(name, family.optimizers)}"
                )
            yield from typed_problems(choice, table, kind, place)


def _transition_faults(transition: Any) -> Iterator[ValueProblem]:
    at = ("transition_on",)
    if isinstance(transition, Mapping):
        yield from value_problems(Transition, transition, at)
    else:
        yield from not_a_mapping(transition, "mode, metric, threshold, max_epochs, window", at)


def _unknown(kind: str, name: Any, known: Iterable[str]) -> str:
    known = [*known]
    hint = suggestion(name, known) if isinstance(name, str) else f"there are {', '.join(known)}"
    return f"must be {kind}, got {shown(name)}; {hint.replace('it has', 'there are')}"


Components = Mapping[str, type[Component]]


def component_problems(
    value: Any, known: Components, kind: str, at: YamlPath
) -> Iterator[ValueProblem]:
    """Say what is wrong with a list of `{type: ..., ...options}`."""
    if not isinstance(value, list):
        yield ValueProblem(at, f"must be a list, got {shown(value)}")
    for number, entry in enumerate(listed(value)):
        place = (*at, number)
        if not isinstance(entry, Mapping):
            yield from not_a_mapping(entry, "`type` and its options", place)
        elif _is_own(entry):
            if own_fault := class_problem(entry["type"]):
                yield ValueProblem((*place, "type"), own_fault)
        elif fault := typed_name_problem(entry, known, kind, place):
            yield fault
        else:
            options = {name: entry[name] for name in entry if name != "type"}
            for name, message in option_problems(known[entry["type"]], options):
                yield ValueProblem((*place, name), message)


def name_problems(
    callbacks: Any, option: str, known: set[str] | None, what: str, at: YamlPath
) -> Iterator[ValueProblem]:
    """Say which `option` of a callback, such as its metric, names none of those that are known."""
    for number, entry in enumerate(listed(callbacks)):
        name = entry.get(option) if isinstance(entry, Mapping) and not _is_own(entry) else None
        if known and isinstance(name, str) and name not in known:
            text = f"must be {what}, got {shown(name)}; {suggestion(name, known)}"
            yield ValueProblem((*at, number, option), text)


def _is_own(entry: Mapping[str, Any]) -> bool:
    """Say whether the type is a dotted path: a class of the user's own."""
    return isinstance(entry.get("type"), str) and "." in entry["type"]


_OPTIMIZERS = ("optimization", "optimizers")
_SCHEDULERS = ("optimization", "schedulers")


def relation_problems(resolved: ResolvedStep) -> Iterator[ValueProblem]:
    """Say what does not go together in a step; places are those in the step."""
    yield from _freeze_faults(resolved)
    yield from _optimizer_faults(resolved)
    yield from _scheduler_faults(resolved)
    yield from _training_faults(resolved)
    yield from _threshold_faults(resolved)
    yield from _plateau_faults(resolved)


def _freeze_faults(resolved: ResolvedStep) -> Iterator[ValueProblem]:
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
            yield ValueProblem(
                (later, number), f"{shown(name)} stands in `{other}` too: it must be in one"
            )


def _optimizer_faults(resolved: ResolvedStep) -> Iterator[ValueProblem]:
    family = resolved.family
    for name in resolved.given:
        place = (*_OPTIMIZERS, name)
        if name not in resolved.usable and resolved.step.is_own(place):
            yield ValueProblem(place, "has an optimizer, but all of it is frozen")
    usable = [*resolved.usable]
    for number, name in enumerate(usable):
        for other in usable[:number]:
            if family.overlap(name, other):
                text = f"trains weights that the optimizer of '{other}' trains too"
                yield ValueProblem((*_OPTIMIZERS, name), f"{text}; a null takes a default away")


def _scheduler_faults(resolved: ResolvedStep) -> Iterator[ValueProblem]:
    step = resolved.step
    for name in resolved.given_schedulers:
        place = (*_SCHEDULERS, name)
        if not step.is_own(place) or name in resolved.usable:
            continue
        if name not in resolved.given:
            yield ValueProblem(place, "has a scheduler, but no optimizer")
        elif not step.is_own((*_OPTIMIZERS, name)):
            yield ValueProblem(place, "has a scheduler, but all of it is frozen")


def _training_faults(resolved: ResolvedStep) -> Iterator[ValueProblem]:
    family = resolved.family
    if family.modes:
        if resolved.modes is None:
            return
        if fault := family.modes.fault(resolved.modes):
            yield ValueProblem((), fault)
            return
    own = any(resolved.step.is_own((*_OPTIMIZERS, name)) for name in resolved.given)
    if not resolved.usable and not resolved.usual and not own:
        yield ValueProblem((), "trains nothing: all that it would train is frozen")


def _threshold_faults(resolved: ResolvedStep) -> Iterator[ValueProblem]:
    transition = resolved.step.mapping("transition_on")
    if transition.get("mode") != "loss_threshold":
        return
    for name in ("metric", "threshold"):
        if name not in transition:
            yield ValueProblem(
                ("transition_on", name), "is missing: the mode loss_threshold needs it"
            )
    batch, epoch = resolved.batch_metrics, resolved.epoch_metrics
    known = None if batch is None or epoch is None else (*batch, *epoch)
    metric = transition.get("metric")
    yield from _metric_faults(metric, known, resolved.step.title, ("transition_on", "metric"))


def _plateau_faults(resolved: ResolvedStep) -> Iterator[ValueProblem]:
    for name, choice in resolved.usable_schedulers.items():
        if isinstance(choice, Mapping) and choice.get("type") == ReduceLROnPlateau.__name__:
            metric = choice.get("metric", ReduceLROnPlateau.metric)
            place = (*_SCHEDULERS, name, "metric")
            yield from _metric_faults(metric, resolved.epoch_metrics, resolved.step.title, place)


def _metric_faults(
    metric: Any, known: Iterable[str] | None, step: str, place: YamlPath
) -> Iterator[ValueProblem]:
    if known is None or not isinstance(metric, str):
        return
    known = [*known]
    if metric not in known:
        hint = suggestion(metric, known)
        yield ValueProblem(place, f"must be a metric of {step}, got {shown(metric)}; {hint}")


class Pipeline:
    """The defaults and steps of a recipe, at their places; what is of no use is passed over."""

    def __init__(self, value: Any, family: Family, at: YamlPath) -> None:
        self.value = value
        self.at = at
        self.family = family
        mapping = value if isinstance(value, Mapping) else {}
        defaults = mapping.get("defaults")
        self.defaults = defaults if isinstance(defaults, Mapping) else {}
        self.at_defaults = (*at, "defaults")
        # A list where `steps:` is missing is read as the steps that it is meant to be.
        self.at_steps = at if isinstance(value, list) else (*at, "steps")
        self.listed = listed(value) or listed(mapping.get("steps"))
        self.steps = {
            number: ResolvedStep(self._layered(own, number), family)
            for number, own in enumerate(self.listed)
            if isinstance(own, Mapping)
        }

    def faults(self) -> Iterator[ValueProblem]:
        """Say what is wrong; what the defaults bring into each step is said once."""
        told: set[YamlPath] = set()
        for fault in self._all_faults():
            in_defaults = fault.place[: len(self.at_defaults)] == self.at_defaults
            if not (in_defaults and fault.place in told):
                yield fault
            told.add(fault.place)

    def build(self, divergence: Mapping[str, Any], callbacks: Iterable[dict[str, Any]]) -> Recipe:
        """Make the recipe, which must be without a fault."""
        return Recipe(
            steps=tuple(step.build() for step in self.steps.values()),
            divergence=Divergence(**divergence),
            callbacks=tuple(callbacks),
        )

    def epoch_metrics(self) -> set[str] | None:
        """Name the metrics that some step's epochs have; None where they are not known."""
        found: set[str] = set()
        for step in self.steps.values():
            metrics = step.epoch_metrics
            if metrics is None:
                return None
            found |= {*metrics}
        return found or None

    def step_names(self) -> set[str]:
        """Name the steps that have names."""
        names = (step.step.values.get("name") for step in self.steps.values())
        return {name for name in names if isinstance(name, str)}

    def _layered(self, own: Mapping[str, Any], number: int) -> LayeredStep:
        return layered(self.defaults, own, self.at_defaults, (*self.at_steps, number))

    def _all_faults(self) -> Iterator[ValueProblem]:
        yield from self._form_faults()
        yield from self._default_faults()
        for number, own in enumerate(self.listed):
            yield from not_a_mapping(own, "the fields of a step", (*self.at_steps, number))
        for resolved in self.steps.values():
            step = resolved.step
            for fault in step_problems(step.values, self.family):
                yield fault._replace(place=step.place(fault.place))
            for fault in relation_problems(resolved):
                yield fault._replace(place=step.place(fault.place))
        yield from self._name_faults()
        yield from self._unused_faults("optimizers", "its model is frozen in each")
        yield from self._unused_faults("schedulers", "none has an optimizer for it")

    def _form_faults(self) -> Iterator[ValueProblem]:
        value = self.value
        if isinstance(value, list):
            text = "holds a list where `steps:` is missing: put `steps:` above the list"
            yield ValueProblem(self.at, f"{text}, and indent it")
            return
        if not isinstance(value, Mapping):
            yield from not_a_mapping(value, "`steps:`, a list of steps", self.at)
            return
        yield from unknown_names(value, ("defaults", "steps"), self.at)
        if "steps" not in value:
            yield ValueProblem(self.at_steps, "is missing: it must hold a list of steps")
        elif not isinstance(value["steps"], list):
            yield ValueProblem(
                self.at_steps, f"must be a list of steps, got {shown(value['steps'])}"
            )
        elif not value["steps"]:
            yield ValueProblem(self.at_steps, "must hold at least one step")
        if value.get("defaults") is not None:
            yield from not_a_mapping(value["defaults"], "fields of steps", self.at_defaults)

    def _default_faults(self) -> Iterator[ValueProblem]:
        if "name" in self.defaults:
            yield ValueProblem((*self.at_defaults, "name"), "belongs into each step")
        # What is absent may stand in the steps; they are looked at filled up.
        for fault in step_problems(self.defaults, self.family):
            if not fault.absent and fault.place != ("name",):
                yield fault._replace(place=(*self.at_defaults, *fault.place))

    def _name_faults(self) -> Iterator[ValueProblem]:
        first: dict[str, int] = {}
        for number, resolved in self.steps.items():
            name = resolved.step.values.get("name")
            if not isinstance(name, str) or not resolved.step.is_own(("name",)):
                continue
            holder = first.setdefault(name.lower(), number)
            if holder != number:
                text = f"must be a name of its own, but step {holder + 1} has {shown(name)}"
                yield ValueProblem((*self.at_steps, number, "name"), text)

    def _unused_faults(self, field: str, reason: str) -> Iterator[ValueProblem]:
        left_out = [step.left_out(field) for step in self.steps.values()]
        for name in sorted(set.intersection(*left_out)) if left_out else []:
            place = (*self.at_defaults, "optimization", field, name)
            yield ValueProblem(place, f"serves no step: {reason}")
