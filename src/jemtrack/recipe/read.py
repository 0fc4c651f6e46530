"""A recipe read: the defaults laid under the steps, and the objects that a sound recipe makes."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from jemtrack.documents import Document, read_document
from jemtrack.parameters import Count, Name, PathText, Place, parameter_names, parameters
from jemtrack.shared.components import imported
from jemtrack.train.recipe import (
    FORM,
    Divergence,
    Recipe,
    Seed,
    Step,
    is_within,
    smallest_parts,
    still_frozen,
)

if TYPE_CHECKING:  # it imports PyTorch
    from jemtrack.train.family import Family

# Where each family's FAMILY is; a file that does not tell its family is of the first.
_FAMILIES = {
    "jem": "jemtrack.jem.training.family",
    "flux": "jemtrack.flux.family",
    "invae": "jemtrack.invae.family",
}
_DEPLOY = "jemtrack.deploy.args.DeployArgs"  # the form of the section `deploy`
BESIDE_PIPELINE = ("divergence", "callbacks")


@parameters
class DataSettings:
    """The section `data`: the fields of PrepareData's DataArgs, which are explained there."""

    dataset: Name = "digits"
    data_root: PathText = "data"
    n_classes: Annotated[int, Field(ge=2)] = 10
    n_valid: Count = 180
    seed: Seed = 1


def families() -> dict[str, Family]:
    """Return the families of models that a recipe can be for, by name."""
    return {name: importlib.import_module(path).FAMILY for name, path in _FAMILIES.items()}


def deploy_args() -> type:
    """Return the parameters' class of the section `deploy`."""
    cls: type = imported(_DEPLOY)
    return cls


def mapping_at(values: Any, *place: str) -> dict[str, Any]:
    """Return the mapping at a place; an empty one if there is none."""
    for part in place:
        values = values.get(part) if isinstance(values, Mapping) else None
    return dict(values) if isinstance(values, Mapping) else {}


def list_at(values: Any, name: str) -> list[Any]:
    """Return the list of that name; an empty one if there is none."""
    value = values.get(name) if isinstance(values, Mapping) else None
    return value if isinstance(value, list) else []


def layered(
    defaults: Mapping[str, Any], own: Mapping[str, Any], at_defaults: Place, at_own: Place
) -> tuple[dict[str, Any], dict[Place, Place]]:
    """Fill `own` up with `defaults`; return its values, and where each of them was written.

    Mappings are filled up in turn, and a list replaces a list. A null removes the default. A
    mapping of another `type` replaces the default's, whose options are not those of its own type.
    """
    values: dict[str, Any] = {}
    origins: dict[Place, Place] = {(): at_own}
    for name in {**defaults, **own}:
        at, value = (at_own, own[name]) if name in own else (at_defaults, defaults[name])
        origins[name,] = (*at, name)
        if isinstance(value, Mapping):
            base = mapping_at(defaults, name) if name in own else {}
            types = value.get("type", base.get("type")), base.get("type", value.get("type"))
            base = base if types[0] == types[1] else {}
            inner = layered(base, value, (*at_defaults, name), (*at, name))
            values[name] = inner[0]
            origins |= {(name, *place): origin for place, origin in inner[1].items() if place}
        elif value is not None:
            values[name] = value
    return values, origins


@dataclass(frozen=True)
class RawStep:
    """A step as it was written, filled up with the defaults; it skips values with a problem.

    Attributes:
        form: the family's class of steps.
        values: in the form of a file.
        origins: where in the file each value was written, by its place in the step.
        usual: values that serve, but are not written, if the step lacks them.
    """

    form: type[Step]
    values: dict[str, Any]
    origins: Mapping[Place, Place]
    usual: Mapping[str, Any] = field(default_factory=dict)

    def origin(self, inner: Place) -> Place:
        """Return where a value of the step was written, or should have been."""
        known = inner
        while known not in self.origins:
            known = known[:-1]
        return self.origins[known] + inner[len(known) :]

    def is_own(self, inner: Place) -> bool:
        """Return whether a value was written in the step itself, not in the defaults."""
        step = self.origins[()]
        return self.origin(inner)[: len(step)] == step

    @property
    def effective(self) -> dict[str, Any]:
        """The values, and the usual ones of those that lack."""
        return {**self.usual, **self.values}

    @cached_property
    def frozen(self) -> tuple[str, ...]:
        """The models and parts that stay frozen."""
        known = (
            [name for name in list_at(self.values, each) if name in self.form.models]
            for each in ("freeze", "unfreeze")
        )
        return still_frozen(self.form.models, *known)

    def is_frozen(self, optimizer: str) -> bool:
        """Return whether nothing is left to train for the optimizer of that name."""
        models = self.form.optimized[optimizer]
        parts = [part for model in models for part in smallest_parts(self.form.models, model)]
        return all(any(is_within(part, name) for name in self.frozen) for part in parts)

    def is_trained(self, optimizer: str) -> bool:
        """Return whether the step trains what the optimizer of that name is for."""
        trained = self.form.trained(self.effective)
        is_meant = trained is None or any(self.overlap(optimizer, name) for name in trained)
        return is_meant and not self.is_frozen(optimizer)

    def overlap(self, first: str, second: str) -> bool:
        """Return whether two optimizers would train the same weights."""
        of = self.form.optimized
        pairs = [(one, other) for one in of[first] for other in of[second]]
        return any(is_within(one, other) or is_within(other, one) for one, other in pairs)

    def given(self, field: str) -> dict[str, Any]:
        """Return the optimizers or schedulers that were written; no scheduler of type none."""
        chosen = mapping_at(self.values, *FORM[field])
        known = {name: chosen[name] for name in chosen if name in self.form.optimized}
        return {n: each for n, each in known.items() if mapping_at(known, n).get("type") != "none"}

    def usable(self, field: str) -> dict[str, Any]:
        """Return those of them that have something left to train."""
        given, optimizers = self.given(field), self.given("optimizers")
        return {n: given[n] for n in given if n in optimizers and self.is_trained(n)}

    @property
    def without_optimizer(self) -> tuple[str, ...] | None:
        """The optimizers that must be added for all that the step trains; None if unclear."""
        trained = self.form.trained(self.effective)
        if trained is None:
            return None
        given = self.given("optimizers")
        rest = [name for name in trained if not self.is_frozen(name)]
        return tuple(name for name in rest if not any(self.overlap(name, one) for one in given))

    def fields(self) -> dict[str, Any]:
        """Return the values by the names of the form's fields, as far as they were written."""
        in_file = {section for section, *_ in FORM.values()}
        fields = {name: value for name, value in self.values.items() if name not in in_file}
        for name, (*above, last) in FORM.items():
            holder = mapping_at(self.values, *above)
            fields |= {name: holder[last]} if last in holder else {}
        return fields

    def build(self) -> Step:
        """Make the step, which must have no problem, without the defaults that it cannot use."""
        usual = dict.fromkeys(self.without_optimizer or (), self.form.usual_optimizer)
        optimizers = {**self.usable("optimizers"), **usual}
        chosen = {"optimizers": optimizers, "schedulers": self.usable("schedulers")}
        return self.form(**{**self.fields(), **chosen})


def _named(values: Mapping[str, Any], form: type[Step]) -> dict[str, Any]:
    """Return a step's values with the models called as the form calls them."""
    named = dict(values)
    for each in {"freeze", "unfreeze"} & named.keys():
        if isinstance(named[each], list):
            named[each] = [form.aliases.get(str(name), name) for name in named[each]]
    if chosen := mapping_at(named, "optimization"):
        named["optimization"] = {kind: _renamed(chosen[kind], form) for kind in chosen}
    return named


def _renamed(chosen: Any, form: type[Step]) -> Any:
    """Rename optimizers or schedulers that go by an alias; the form's own names come first."""
    if not isinstance(chosen, Mapping):
        return chosen
    names = {alias: name for alias, name in form.aliases.items()
             if name in form.optimized and name not in chosen}  # fmt: skip
    return {names.get(str(name), name): each for name, each in chosen.items()}


class RawPipeline:
    """The defaults and steps of a recipe, at `at` in its file; what has no form is skipped."""

    def __init__(
        self, value: Any, form: type[Step], at: Place = (), usual: Mapping[str, Any] | None = None
    ) -> None:
        self.value, self.form, self.at = value, form, at
        self.defaults = _named(mapping_at(value, "defaults"), form)
        self.at_defaults = (*at, "defaults")
        # A list where `steps:` is missing is read as the steps that it is meant to be.
        self.at_steps = at if isinstance(value, list) else (*at, "steps")
        self.listed = value if isinstance(value, list) else list_at(value, "steps")
        self.steps: dict[int, RawStep] = {}
        for number, own in enumerate(self.listed):
            if isinstance(own, Mapping):
                places = self.at_defaults, (*self.at_steps, number)
                filled = layered(self.defaults, _named(own, form), *places)
                self.steps[number] = RawStep(form, *filled, usual or {})


class RawRecipe:
    """A recipe as a mapping, as it was written; the `ordinary` step serves one without steps."""

    def __init__(
        self,
        mapping: Mapping[str, Any],
        form: type[Step],
        usual: Mapping[str, Any] | None = None,
        ordinary: Step | None = None,
    ) -> None:
        self.rest = dict(mapping)
        self.beside = {name: self.rest.pop(name) for name in BESIDE_PIPELINE if name in self.rest}
        self.pipeline = RawPipeline(self.rest, form, (), usual)
        self.ordinary = None if {"steps", "defaults"} & {*mapping} else ordinary
        if self.ordinary:  # it is typed already: its name and metrics are what others ask for
            name = {"name": self.ordinary.name}
            self.pipeline.steps[0] = RawStep(form, name, {(): ()}, usual or {})

    def build(self) -> Recipe:
        """Make the recipe, which must have no problem."""
        steps = (self.ordinary,) if self.ordinary else self.pipeline.steps.values()
        return recipe_of(steps, self.beside)


def recipe_of(steps: Iterable[Step | RawStep], beside: Mapping[str, Any]) -> Recipe:
    """Make the recipe of steps, and of what is written beside the pipeline."""
    return Recipe(
        steps=tuple(step.build() if isinstance(step, RawStep) else step for step in steps),
        divergence=Divergence(**(beside.get("divergence") or {})),
        callbacks=tuple(beside.get("callbacks") or ()),
    )


class RecipeFile:
    """A recipe file as it was written; sections that are null are left out.

    Of a file without a problem, `recipe`, `data`, `model`, `training` and `deploy` are made when
    asked for. With a `document`, no file is read, and `path` is what messages call it.
    """

    def __init__(
        self,
        path: Path,
        usual: Mapping[str, Any] | None = None,
        document: Document | None = None,
    ) -> None:
        self.path = path
        self.document: Document = document or read_document(path)
        content = mapping_at(self.document.content)
        self.sections = {name: content[name] for name in content if content[name] is not None}
        names = ("data", "model", "training")
        self.values = {name: mapping_at(self.sections, name) for name in names}
        training = self.values["training"]
        self.beside = {name: training.pop(name) for name in BESIDE_PIPELINE if name in training}
        self.has_pipeline = "pipeline" in training
        pipeline = training.pop("pipeline", None)
        self.family_name = self.values["model"].pop("family", None)
        self.family = self._family(pipeline)
        at = ("training", "pipeline")
        value = {} if pipeline is None else pipeline
        self.pipeline = RawPipeline(value, self.family.step, at, usual)

    @cached_property
    def recipe(self) -> Recipe:
        """The steps, and what is written beside them."""
        return recipe_of(self.pipeline.steps.values(), self.beside)

    @cached_property
    def data(self) -> DataSettings:
        """The section `data`."""
        return DataSettings(**self.values["data"])

    @cached_property
    def model(self) -> Any:
        """The section `model`, as the family's parameters."""
        return self.family.shape(**self.values["model"])

    @cached_property
    def training(self) -> Any:
        """The section `training`, as the family's parameters; the recipe is left out."""
        return self.family.settings(**self.values["training"])

    @cached_property
    def deploy(self) -> Any:
        """The section `deploy`, as a bundle's parameters."""
        return deploy_args()(**mapping_at(self.sections, "deploy"))

    @property
    def trackers(self) -> tuple[dict[str, Any], ...]:
        """The section `trackers`."""
        return tuple(self.sections.get("trackers", ()))

    @property
    def given(self) -> list[str]:
        """What the file sets beside the recipe, such as `training.batch_size`, or `trackers`."""
        names = [f"{section}.{name}" for section, values in self.values.items() for name in values]
        return [*names, *(name for name in ("trackers", "deploy") if self.sections.get(name))]

    def _family(self, pipeline: Any) -> Family:
        """Find the family by its name, or else by the fields of the steps."""
        known = families()
        if isinstance(self.family_name, str) and self.family_name in known:
            return known[self.family_name]
        fields = {*_fields(pipeline)}
        shared = {*parameter_names(Step)}
        fitting = [
            family
            for family in known.values()
            if ({*parameter_names(family.step)} - shared) & fields
        ]
        return next(iter([*fitting, *known.values()]))


def _fields(pipeline: Any) -> Iterator[str]:
    """Yield the names of the fields that the steps and the defaults of a pipeline use."""
    steps = pipeline if isinstance(pipeline, list) else list_at(pipeline, "steps")
    for step in [mapping_at(pipeline, "defaults"), *steps]:
        yield from step if isinstance(step, Mapping) else []
