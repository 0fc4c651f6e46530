"""Recipes as files and as mappings: read, with every problem named, and built."""

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from jemtrack.errors import InputError
from jemtrack.parameters import (
    AtLeastOne,
    Count,
    NotNegative,
    parameter_names,
    parameters,
    shown,
    suggestion,
)
from jemtrack.recipe.check import (
    Components,
    Pipeline,
    component_problems,
    name_problems,
    not_a_mapping,
    unknown_names,
    value_problems,
)
from jemtrack.recipe.yaml_lines import (
    Document,
    Problem,
    ValueProblem,
    YamlPath,
    read_document,
    shown_place,
)
from jemtrack.train.components import CALLBACK, TRACKER, load_components, registered
from jemtrack.train.hardware import Hardware
from jemtrack.train.recipe import (
    Divergence,
    Family,
    Recipe,
)

_SECTIONS = ("data", "model", "training", "trackers")
_TRAINING = ("divergence", "callbacks", "pipeline")
_AT_TRAINING = ("training",)


@dataclass(frozen=True)
class FileForms:
    """What a file may say beside its recipe.

    Attributes:
        families: by name; the first one serves where nothing tells.
        data: parameters class of the section `data`.
        training: parameters class of the section `training`, its recipe left out.
        callbacks: imports the component classes that `callbacks` can name, where it does.
        trackers: imports those that `trackers` can name.
    """

    families: Mapping[str, Family]
    data: type
    training: type
    callbacks: Callable[[], Components]
    trackers: Callable[[], Components]


@dataclass(frozen=True)
class RecipeFile:
    """A file without a problem: `data`, `model` and `training` are the forms' parameters.

    `given` names what the file sets of them, `training.batch_size` for one, and `trackers`.
    """

    path: Path
    family: Family
    recipe: Recipe
    data: Any
    model: Any
    training: Any
    trackers: tuple[dict[str, Any], ...] = field(default=())
    given: tuple[str, ...] = field(default=())


def recipe_from_mapping(
    mapping: Any, where: str, family: Family, callbacks: Components | None = None
) -> Recipe:
    """Make the recipe that `defaults`, `steps`, `divergence` and `callbacks` of a mapping describe.

    `where` leads to the mapping. The callbacks to choose from are all that were imported where
    none are given.

    Raises:
        InputError: a line for each problem.
    """
    whole = mapping if isinstance(mapping, Mapping) else {}
    extras = {name: whole[name] for name in ("divergence", "callbacks") if name in whole}
    rest = {name: whole[name] for name in whole if name not in extras}
    pipeline = Pipeline(rest if isinstance(mapping, Mapping) else mapping, family, ())

    def known() -> Components:
        return registered() if callbacks is None else callbacks

    faults = [*pipeline.faults(), *_extra_faults(extras, pipeline, known, ())]
    if faults:
        lines = dict.fromkeys(_sentence(where, fault) for fault in faults)
        raise InputError("\n".join(lines))
    return _build(pipeline, extras)


def _sentence(where: str, fault: ValueProblem) -> str:
    inner = shown_place(fault.place)
    joint = "" if inner.startswith("[") or not inner else "."
    return f"{where}{joint}{inner} {fault.message}"


def _extra_faults(
    extras: Mapping[str, Any],
    pipeline: Pipeline,
    callbacks: Callable[[], Components],
    at: YamlPath,
) -> Iterator[ValueProblem]:
    """Say what is wrong with what stands beside the pipeline."""
    if extras.get("divergence") is not None:
        place = (*at, "divergence")
        yield from _parameter_faults(extras["divergence"], Divergence, place)
    if extras.get("callbacks") is not None:
        place = (*at, "callbacks")
        yield from component_problems(extras["callbacks"], callbacks(), "a callback", place)
        metrics, steps = pipeline.epoch_metrics(), pipeline.step_names()
        given = extras["callbacks"]
        yield from name_problems(given, "metric", metrics, "a metric of an epoch", place)
        yield from name_problems(given, "phase", steps, "the name of a step", place)


def _parameter_faults(value: Any, cls: type, at: YamlPath) -> Iterator[ValueProblem]:
    yield from not_a_mapping(value, "names and values", at)
    if isinstance(value, Mapping):
        yield from value_problems(cls, value, at)


def _build(pipeline: Pipeline, extras: Mapping[str, Any]) -> Recipe:
    return pipeline.build(extras.get("divergence") or {}, extras.get("callbacks") or [])


class _Reading:
    """The sections of a document, and what is wrong with them."""

    def __init__(self, document: Document, forms: FileForms) -> None:
        self.document = document
        self.forms = forms
        content = document.content if isinstance(document.content, Mapping) else {}
        self.sections = {name: content[name] for name in content if content[name] is not None}
        self.training = self._mapping("training")
        self.extras = {name: self.training[name] for name in _TRAINING if name in self.training}
        self.family = self._family()
        pipeline = self.extras.pop("pipeline", None)
        at = (*_AT_TRAINING, "pipeline")
        self.pipeline = Pipeline({} if pipeline is None else pipeline, self.family, at)

    def problems(self) -> list[Problem]:
        """Give all, in the order of lines."""
        return self.document.problems([] if self.document.broken else self._faults())

    def build(self, path: Path) -> RecipeFile:
        """Make the file's objects; it must be without a problem."""
        settings = {n: v for n, v in self.training.items() if n not in _TRAINING}
        shape = {n: v for n, v in self._mapping("model").items() if n != "family"}
        return RecipeFile(
            path=path,
            family=self.family,
            recipe=_build(self.pipeline, self.extras),
            data=self.forms.data(**self._mapping("data")),
            model=self.family.shape(**shape),
            training=self.forms.training(**settings),
            trackers=tuple(self.sections.get("trackers", ())),
            given=(
                *(f"data.{name}" for name in self._mapping("data")),
                *(f"model.{name}" for name in shape),
                *(f"training.{name}" for name in settings),
                *(["trackers"] if self.sections.get("trackers") else []),
            ),
        )

    def _faults(self) -> Iterator[ValueProblem]:
        content = self.document.content
        if not isinstance(content, Mapping):
            yield ValueProblem((), f"must hold {', '.join(_SECTIONS)}, got {shown(content)}")
            return
        yield from unknown_names(content, _SECTIONS, ())
        if "data" in self.sections:
            yield from _parameter_faults(self.sections["data"], self.forms.data, ("data",))
        yield from self._model_faults()
        yield from self._training_faults()
        if "trackers" in self.sections:
            trackers, known = self.sections["trackers"], self.forms.trackers()
            yield from component_problems(trackers, known, "a tracker", ("trackers",))

    def _model_faults(self) -> Iterator[ValueProblem]:
        if "model" not in self.sections:
            return
        model = self.sections["model"]
        if not isinstance(model, Mapping):
            yield from not_a_mapping(model, "names and values", ("model",))
            return
        shape = {name: model[name] for name in model if name != "family"}
        given = model.get("family", self.family.name)
        if given not in [*self.forms.families]:
            hint = suggestion(str(given), self.forms.families)
            yield ValueProblem(
                ("model", "family"), f"must be a family of models, got {shown(given)}; {hint}"
            )
        names = parameter_names(self.family.shape)
        yield from unknown_names(shape, ["family", *names], ("model",))
        known = {name: shape[name] for name in names if name in shape}
        yield from value_problems(self.family.shape, known, ("model",))

    def _training_faults(self) -> Iterator[ValueProblem]:
        at = _AT_TRAINING
        if "training" not in self.sections:
            yield ValueProblem(at, "is missing: it must hold `pipeline:`")
            return
        if not isinstance(self.sections["training"], Mapping):
            yield from not_a_mapping(self.sections["training"], "`pipeline:`", at)
            return
        names = parameter_names(self.forms.training)
        yield from unknown_names(self.training, [*_TRAINING, *names], at)
        settings = {name: self.training[name] for name in names if name in self.training}
        yield from value_problems(self.forms.training, settings, at)
        if "pipeline" in self.training:
            yield from self.pipeline.faults()
        else:
            yield ValueProblem((*at, "pipeline"), "is missing: it must hold `steps:`")
        yield from _extra_faults(self.extras, self.pipeline, self.forms.callbacks, at)

    def _family(self) -> Family:
        """Find the family by its name, else by the fields of the steps."""
        families = self.forms.families
        named = self._mapping("model").get("family")
        if isinstance(named, str) and named in families:
            return families[named]
        fields = {*_fields(self.training.get("pipeline"))}
        fitting = [family for family in families.values() if fields & {*family.mode_names}]
        return [*fitting, *families.values()][0]

    def _mapping(self, section: str) -> dict[str, Any]:
        value = self.sections.get(section)
        return dict(value) if isinstance(value, Mapping) else {}


def _fields(pipeline: Any) -> Iterable[str]:
    """Name the fields that the steps and the defaults of a pipeline use."""
    mapping = pipeline if isinstance(pipeline, Mapping) else {"steps": pipeline}
    steps = mapping.get("steps")
    for step in [mapping.get("defaults"), *(steps if isinstance(steps, list) else [])]:
        yield from step if isinstance(step, Mapping) else []


# Where each family's FAMILY stands; a file that says nothing of its family is of the first.
_FAMILIES = {"jem": "jemtrack.jem.family", "flux": "jemtrack.flux.family"}

Text = Annotated[str, Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


@parameters
class DataSettings:
    """The section `data`: the fields of PrepareData's DataArgs, which are explained there."""

    dataset: Text = "digits"
    data_root: Text = "data"
    n_classes: Annotated[int, Field(ge=2)] = 10
    n_valid: Count = 180
    seed: Seed = 1


@parameters
class TrainingSettings(Hardware):
    """The section `training`, apart from `pipeline`, `divergence` and `callbacks`.

    Attributes:
        batch_size: images in an optimization step.
        workers: read for files of other programs; images are in memory, nobody loads them.
        seed: draws initialisation, batches and noise; none: the data's.
        sigma: standard deviation of the noise on images scaled to [-1, 1].
        labels_per_class: labelled images of each class; 0 or -1: all are labelled.
        n_steps: Langevin steps of the chains of the objective `sampled_jem`.
        eval_every: epochs between looks at the validation images.
    """

    batch_size: AtLeastOne = 64
    workers: Count | None = None
    seed: Seed | None = None
    sigma: NotNegative = 0.03
    labels_per_class: Annotated[int, Field(ge=-1)] = -1
    n_steps: Count = 20
    eval_every: AtLeastOne = 1


def families() -> dict[str, Family]:
    """List the families of models that a recipe can be for, by name."""
    return {name: importlib.import_module(path).FAMILY for name, path in _FAMILIES.items()}


def file_forms(family: Family | None = None) -> FileForms:
    """Say what a recipe file of this project may hold; `family` is another form of one of them."""
    changed = {family.name: family} if family else {}
    return FileForms(
        families={**families(), **changed},
        data=DataSettings,
        training=TrainingSettings,
        callbacks=partial(load_components, CALLBACK),
        trackers=partial(load_components, TRACKER),
    )


def read_recipe(path: Path, family: Family | None = None) -> RecipeFile:
    """Read a recipe file; `family` is another form of one of the project's.

    Raises:
        InputError: a line for each problem.
    """
    reading = _Reading(read_document(path), file_forms(family))
    if found := reading.problems():
        raise InputError("\n".join(problem.of(path) for problem in found))
    return reading.build(path)


def recipe_problems(path: Path) -> list[Problem]:
    """Give every problem of a recipe file, in the order of its lines."""
    return _Reading(read_document(path), file_forms()).problems()
