"""All that can be wrong with a recipe: with each value, between values, with the whole.

A default that a step cannot use, such as the optimizer of a model that it freezes, is no problem
of the step: it is left out.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jemtrack.documents import Problem, format_place
from jemtrack.errors import InputError
from jemtrack.parameters import (
    Place,
    ValueProblem,
    format_value,
    not_a_mapping,
    parameter_names,
    section_problems,
    suggestion,
    type_problems,
    unknown_names,
    value_problems,
)
from jemtrack.recipe.read import (
    BESIDE_PIPELINE,
    DataSettings,
    RawPipeline,
    RawRecipe,
    RawStep,
    RecipeFile,
    deploy_args,
    families,
    list_at,
    mapping_at,
)
from jemtrack.record.paths import shared_places
from jemtrack.shared import class_path
from jemtrack.shared.class_path import class_problem, declared_component
from jemtrack.shared.components import (
    CALLBACK,
    TRACKER,
    Component,
    load_components,
    option_problems,
)
from jemtrack.train.optimizers import SCHEDULERS
from jemtrack.train.recipe import FORM, Divergence, Step

Problems = Iterator[ValueProblem]
Components = Mapping[str, type[Component]]

_ROLES = {"a callback": class_path.CALLBACK, "a tracker": class_path.TRACKER}


def load_recipe(path: Path) -> RecipeFile:
    """Read a recipe file.

    Raises:
        InputError: a line for each problem.
    """
    return sound_recipe(RecipeFile(path))


def sound_recipe(file: RecipeFile) -> RecipeFile:
    """Return `file` if it has no problem.

    Raises:
        InputError: a line for each problem.
    """
    if problems := recipe_problems(file):
        raise InputError("\n".join(problem.of(file.path) for problem in problems))
    return file


def checked_recipe(path: Path) -> tuple[RecipeFile | None, list[Problem]]:
    """Read a recipe file once; return what it holds if it is sound, and its problems by line."""
    file = RecipeFile(path)
    problems = recipe_problems(file)
    return (None if problems else file), problems


def recipe_problems(file: RecipeFile) -> list[Problem]:
    """List every problem of a recipe file, and of its steps with the model, by line."""
    problems = file_problems(file)
    if not problems:
        found = file.family.recipe_problems(file.recipe, file.model, None)
        at = ("training", "pipeline")
        problems = file.document.problems(each._replace(place=(*at, *each.place)) for each in found)
    return problems


def mapping_problems(raw: RawRecipe, where: str, *, validates: bool = True) -> list[str]:
    """List what is wrong with a recipe as a mapping, a line a problem; `where` leads to it."""
    found = [*unknown_names(raw.rest, ("defaults", "steps"), ())] if raw.ordinary else []
    found += [] if raw.ordinary else pipeline_problems(raw.pipeline, validates)
    found += _beside_problems(raw.beside, raw.pipeline, validates, ())
    return [*dict.fromkeys(_sentence(where, problem) for problem in found)]


def _sentence(where: str, problem: ValueProblem) -> str:
    inner = format_place(problem.place)
    joint = "" if inner.startswith("[") or not inner else "."
    return f"{where}{joint}{inner} {problem.message}"


def file_problems(raw: RecipeFile, *, validates: bool = True) -> list[Problem]:
    """List every problem of a recipe file, in the order of lines.

    Without images to validate on (`validates`), there are no metrics of validation.
    """
    document = raw.document
    return document.problems([] if document.broken else _section_problems(raw, validates))


def _section_problems(raw: RecipeFile, validates: bool) -> Problems:
    content, names = raw.document.content, ("data", "model", "training", "trackers", "deploy")
    if not isinstance(content, Mapping):
        yield ValueProblem((), f"must hold {', '.join(names)}, got {format_value(content)}")
        return
    yield from unknown_names(content, names, ())
    if "data" in raw.sections:
        yield from section_problems(DataSettings, raw.sections["data"], ("data",))
    if "model" in raw.sections:
        yield from _model_problems(raw)
    yield from _training_problems(raw, validates)
    if "trackers" in raw.sections:
        trackers, known = raw.sections["trackers"], load_components(TRACKER)
        yield from component_problems(trackers, known, "a tracker", ("trackers",))
    if "deploy" in raw.sections:
        yield from section_problems(deploy_args(), raw.sections["deploy"], ("deploy",))


def _model_problems(raw: RecipeFile) -> Problems:
    yield from not_a_mapping(raw.sections["model"], "names and values", ("model",))
    name, known = raw.family_name, families()
    if name is not None and name not in [*known]:
        text = f"must be a family of models, got {format_value(name)}"
        yield ValueProblem(("model", "family"), f"{text}; {suggestion(str(name), known)}")
    yield from _section(raw.family.shape, raw.values["model"], ("family",), ("model",))


def _training_problems(raw: RecipeFile, validates: bool) -> Problems:
    at = ("training",)
    if "training" not in raw.sections:
        yield ValueProblem(at, "is missing: it must hold `pipeline:`")
        return
    if not isinstance(raw.sections["training"], Mapping):
        yield from not_a_mapping(raw.sections["training"], "`pipeline:`", at)
        return
    values = raw.values["training"]
    yield from _section(raw.family.settings, values, ("pipeline", *BESIDE_PIPELINE), at)
    if raw.has_pipeline:
        yield from pipeline_problems(raw.pipeline, validates)
    else:
        yield ValueProblem((*at, "pipeline"), "is missing: it must hold `steps:`")
    yield from _beside_problems(raw.beside, raw.pipeline, validates, at)


def _section(cls: type, values: Mapping[str, Any], others: Iterable[str], at: Place) -> Problems:
    """Check the values of a section that has `others` beside the parameters of `cls`."""
    names = parameter_names(cls)
    yield from unknown_names(values, [*names, *others], at)
    yield from value_problems(cls, {name: values[name] for name in names if name in values}, at)


def _beside_problems(
    beside: Mapping[str, Any], pipeline: RawPipeline, validates: bool, at: Place
) -> Problems:
    """Check what is written beside the pipeline."""
    if beside.get("divergence") is not None:
        yield from section_problems(Divergence, beside["divergence"], (*at, "divergence"))
    if (callbacks := beside.get("callbacks")) is not None:
        at = (*at, "callbacks")
        yield from component_problems(callbacks, load_components(CALLBACK), "a callback", at)
        steps = [*pipeline.steps.values()]
        metrics = [epoch_metrics(step, validates) for step in steps]
        known = None if None in metrics else {name for each in metrics for name in each or ()}
        yield from _callback_name_problems(callbacks, "metric", known, "a metric of an epoch", at)
        names = {step.values.get("name") for step in steps}
        known = {name for name in names if isinstance(name, str)}
        yield from _callback_name_problems(callbacks, "phase", known, "the name of a step", at)


def _callback_name_problems(
    callbacks: Any, option: str, known: set[str] | None, what: str, at: Place
) -> Problems:
    """Check that this option of the callbacks, such as a metric, is a name that is known."""
    for number, entry in enumerate(callbacks if isinstance(callbacks, list) else []):
        if known and isinstance(entry, Mapping) and not _is_own(entry):
            yield from _name_problem(entry.get(option), known, what, (*at, number, option))


def component_problems(value: Any, known: Components, kind: str, at: Place) -> Problems:
    """Check a list of `{type: ..., ...options}`; a dotted path is looked up, and nothing of it."""
    if not isinstance(value, list):
        yield ValueProblem(at, f"must be a list, got {format_value(value)}")
        return
    sound: dict[int, tuple[type[Component], dict[str, Any]]] = {}
    for number, entry in enumerate(value):
        place = (*at, number)
        if found := [*type_problems(entry, kind, known, place)]:
            yield from found
            continue
        path = entry["type"]
        if _is_own(entry) and (message := class_problem(path, _ROLES[kind])):
            yield ValueProblem((*place, "type"), message)
        elif cls := declared_component(path) if _is_own(entry) else known[path]:
            options = {name: entry[name] for name in entry if name != "type"}
            problems = [*option_problems(cls, options)]
            yield from (ValueProblem((*place, name), message) for name, message in problems)
            sound |= {} if problems else {number: (cls, options)}
    for number, name, message in shared_places(sound):
        yield ValueProblem((*at, number, name), message)


def _is_own(entry: Mapping[str, Any]) -> bool:
    return isinstance(entry.get("type"), str) and "." in entry["type"]


def pipeline_problems(pipeline: RawPipeline, validates: bool = True) -> Problems:
    """Check defaults and steps; what the defaults bring into each step is said once."""
    at = pipeline.at_defaults
    said: set[Place] = set()
    for problem in _all_pipeline_problems(pipeline, validates):
        if problem.place[: len(at)] != at or problem.place not in said:
            yield problem
        said.add(problem.place)


def _all_pipeline_problems(pipeline: RawPipeline, validates: bool) -> Problems:
    yield from _form_problems(pipeline)
    # What is absent from the defaults may be in the steps, which are checked filled up.
    for problem in step_problems(pipeline.form, pipeline.defaults):
        if not problem.absent and problem.place != ("name",):
            yield problem._replace(place=(*pipeline.at_defaults, *problem.place))
    for number, own in enumerate(pipeline.listed):
        yield from not_a_mapping(own, "the fields of a step", (*pipeline.at_steps, number))
    for step in pipeline.steps.values():
        within = [*step_problems(step.form, step.values), *relation_problems(step, validates)]
        yield from (each._replace(place=step.origin(each.place)) for each in within)
    yield from _step_name_problems(pipeline)
    yield from _unused_problems(pipeline, "optimizers", "none trains what it is for")
    yield from _unused_problems(pipeline, "schedulers", "none has an optimizer for it")


def _form_problems(pipeline: RawPipeline) -> Problems:
    value, at_steps = pipeline.value, pipeline.at_steps
    if isinstance(value, list):
        text = "holds a list where `steps:` is missing: put `steps:` above the list, and indent it"
        yield ValueProblem(pipeline.at, text)
        return
    if not isinstance(value, Mapping):
        yield from not_a_mapping(value, "`steps:`, a list of steps", pipeline.at)
        return
    yield from unknown_names(value, ("defaults", "steps"), pipeline.at)
    steps, defaults = value.get("steps", ()), value.get("defaults")
    if "steps" not in value:
        yield ValueProblem(at_steps, "is missing: it must hold a list of steps")
    elif not isinstance(steps, list):
        yield ValueProblem(at_steps, f"must be a list of steps, got {format_value(steps)}")
    elif not steps:
        yield ValueProblem(at_steps, "must hold at least one step")
    if defaults is not None:
        yield from not_a_mapping(defaults, "fields of steps", pipeline.at_defaults)
    if "name" in pipeline.defaults:
        yield ValueProblem((*pipeline.at_defaults, "name"), "belongs into each step")


def _step_name_problems(pipeline: RawPipeline) -> Problems:
    first: dict[str, int] = {}
    for number, step in pipeline.steps.items():
        name = step.values.get("name")
        if isinstance(name, str) and step.is_own(("name",)):
            holder = first.setdefault(name.lower(), number)
            if holder != number:
                text = f"must be a name of its own, but step {holder + 1} has {format_value(name)}"
                yield ValueProblem((*pipeline.at_steps, number, "name"), text)


def _unused_problems(pipeline: RawPipeline, field: str, reason: str) -> Problems:
    """Name the defaults' optimizers or schedulers that no step can use."""
    left_out = [
        {n for n in step.given(field) if n not in step.usable(field) and not _own(step, field, n)}
        for step in pipeline.steps.values()
    ]
    for name in sorted(set.intersection(*left_out)) if left_out else []:
        place = (*pipeline.at_defaults, *FORM[field], name)
        yield ValueProblem(place, f"serves no step: {reason}")


def _own(step: RawStep, field: str, name: str) -> bool:
    return step.is_own((*FORM[field], name))


def step_names(form: type[Step]) -> tuple[str, ...]:
    """Name the fields that a step can have in a file."""
    return tuple(dict.fromkeys(FORM.get(n, (n,))[0] for n in parameter_names(form)))


def step_problems(form: type[Step], values: Mapping[str, Any]) -> Problems:
    """Check the values of a step, one by one; places are those in the step."""
    yield from unknown_names(values, step_names(form), ())
    if "optimization" in values:
        at, within = ("optimization",), mapping_at(values, "optimization")
        yield from not_a_mapping(values[at[0]], "optimizers and schedulers", at)
        yield from unknown_names(within, ("optimizers", "schedulers"), at)
    fields = RawStep(form, dict(values), {}).fields()
    known = {name: fields[name] for name in fields if name in parameter_names(form)}
    for (field, *inner), message in value_problems(form, known):
        yield ValueProblem((*FORM.get(str(field), (field,)), *inner), message)
    for field in ("freeze", "unfreeze"):
        for number, name in enumerate(list_at(values, field)):
            yield from _name_problem(name, form.models, "a model", (field, number))
    for field, kind in (("optimizers", "an optimizer"), ("schedulers", "a scheduler")):
        for name in mapping_at(values, *FORM[field]):
            if name not in form.optimized:
                text = f"is no model with {kind}; {suggestion(name, form.optimized)}"
                yield ValueProblem((*FORM[field], name), text)


def relation_problems(step: RawStep, validates: bool = True) -> Problems:
    """Check what must go together in a step; places are those in the step."""
    yield from _freeze_problems(step)
    yield from _optimizer_problems(step)
    yield from _scheduler_problems(step)
    yield from _training_step_problems(step)
    batch, epoch = step.form.metrics(step.effective), epoch_metrics(step, validates)
    title = f"a metric of the step {step.values.get('name', '')}".rstrip()
    ends = mapping_at(step.values, "transition_on")
    if ends.get("mode") == "loss_threshold":
        known = None if epoch is None else (*(batch or ()), *epoch)
        yield from _name_problem(ends.get("metric"), known, title, ("transition_on", "metric"))
    for name, chosen in step.usable("schedulers").items():
        place, options = (*FORM["schedulers"], name, "metric"), mapping_at(chosen)
        usual = getattr(SCHEDULERS.get(str(options.get("type"))), "metric", None)
        yield from _name_problem(options.get("metric", usual), epoch, title, place)


def epoch_metrics(step: RawStep, validates: bool = True) -> tuple[str, ...] | None:
    """Return the metrics of a step's epochs; None if only running it would tell."""
    batch = step.form.metrics(step.effective)
    if batch is None:
        return None
    validation = step.form.validation_metrics(step.effective) if validates else ()
    return (*(f"train_{name}" for name in batch), *validation)


def _name_problem(name: Any, known: Iterable[str] | None, kind: str, at: Place) -> Problems:
    if isinstance(name, str) and known is not None and name not in (known := [*known]):
        yield ValueProblem(
            at, f"must be {kind}, got {format_value(name)}; {suggestion(name, known)}"
        )


def _freeze_problems(step: RawStep) -> Problems:
    # To unfreeze what the defaults freeze is what `unfreeze` is for.
    if step.is_own(("unfreeze",)) and not step.is_own(("freeze",)):
        return
    later, other = "unfreeze", "freeze"
    if not step.is_own((later,)) and step.is_own((other,)):
        later, other = other, later
    for number, name in enumerate(list_at(step.values, later)):
        if name in list_at(step.values, other):
            text = f"{format_value(name)} stands in `{other}` too: it must be in one"
            yield ValueProblem((later, number), text)


def _optimizer_problems(step: RawStep) -> Problems:
    at, usable = FORM["optimizers"], [*step.usable("optimizers")]
    for name in step.given("optimizers"):
        if name not in usable and step.is_own((*at, name)):
            yield ValueProblem((*at, name), f"has an optimizer, but {_idle(step, name)}")
    for number, name in enumerate(usable):
        for other in usable[:number]:
            if step.overlap(name, other):
                text = f"trains weights that the optimizer of '{other}' trains too"
                yield ValueProblem((*at, name), f"{text}; a null takes a default away")


def _idle(step: RawStep, name: str) -> str:
    return "all of it is frozen" if step.is_frozen(name) else "the step does not train it"


def _scheduler_problems(step: RawStep) -> Problems:
    given, usable = step.given("optimizers"), step.usable("optimizers")
    for name in step.given("schedulers"):
        if name in usable or not _own(step, "schedulers", name):
            continue
        place = (*FORM["schedulers"], name)
        if name not in given:
            yield ValueProblem(place, "has a scheduler, but no optimizer")
        elif not _own(step, "optimizers", name):
            yield ValueProblem(place, f"has a scheduler, but {_idle(step, name)}")


def _training_step_problems(step: RawStep) -> Problems:
    found = [*step.form.own_problems(step.effective)]
    yield from found
    is_told = any(not place for place, _ in found)
    told_by_optimizer = any(_own(step, "optimizers", name) for name in step.given("optimizers"))
    trains = step.usable("optimizers") or step.without_optimizer != ()
    if not (is_told or told_by_optimizer or trains):
        yield ValueProblem((), "trains nothing: all that it would train is frozen")
