"""The parameters that the trainers of all families share, and the recipe that they make."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import pydantic
from pydantic import BeforeValidator, WithJsonSchema

from jemtrack.errors import InputError
from jemtrack.events.handlers import Callback, build_callback
from jemtrack.parameters import (
    AtLeastOne,
    Count,
    Name,
    NotNegative,
    PathText,
    Positive,
    ValueProblem,
    build,
    format_value,
    parameters,
    refuse,
)
from jemtrack.shared.components import CALLBACK, imported, load_components
from jemtrack.shared.hardware import Hardware
from jemtrack.train.optimizers import choose_optimizer, choose_scheduler
from jemtrack.train.recipe import Recipe, Step

if TYPE_CHECKING:  # it imports PyTorch
    from jemtrack.train.family import Family

Choice = Annotated[str | dict[str, Any], WithJsonSchema({"type": ["string", "object"]})]
# Not imported above, for a stage depends on them only if its parameters ask for them.
_READER = "jemtrack.recipe.read"
_WEIGHTS = "jemtrack.callbacks.periodic_weights"
_SCHEDULES = {"constant": "none", "cosine": "CosineAnnealingLR"}
# What an optimizer's options do not say: each is a field of its own.
_FIELDS = {"lr": 1.0, "weight_decay": 0.0, "warm_up_steps": 0}


def _sound(
    choose: Callable[[Any], Any], fields: Mapping[str, Any], names: Container[str] = ()
) -> Any:
    """Make a validator of a choice: one of `names`, or what `choose` takes; it is kept as it is."""

    def check(value: Any) -> Any:
        if isinstance(value, Mapping):
            text = "is said by the parameter of this name, beside it"
            refuse((ValueProblem((name,), text) for name in value if name in fields), value)
            choose({**value, **fields})
        elif not isinstance(value, str):
            text = f"must be a name, or `type` and its options, got {format_value(value)}"
            refuse([ValueProblem((), text)], value)
        elif value not in names:
            try:
                choose({"type": value, **fields})
            except pydantic.ValidationError as error:
                found = ((each["loc"], each["msg"]) for each in error.errors())
                # A name alone has no `type` in the file.
                refuse((ValueProblem(() if at == ("type",) else at, text) for at, text in found))
        return value

    return BeforeValidator(check)


def _mapping(choice: Choice) -> dict[str, Any]:
    return {"type": choice} if isinstance(choice, str) else choice


@parameters
class TrainingArgs(Hardware):
    """How a trainer of any family trains.

    A subclass says the `family`, and adds the parameters of its network and of what is seen.
    `optimizer`, `lr`, `warm_up_steps`, `schedule`, `weight_decay` and `n_epochs` are for the
    ordinary training: a recipe with steps of its own says them itself.

    Attributes:
        experiment: name of the run, for trackers and for the folder under `save_dir`.
        save_dir: folder of logs and extra checkpoints; neither is an output of the stage.
        load_path: model file to start from, in place of a fresh initialisation; `jemtrack graph`
            makes it one of the stage's deps.
        optimizer: name of an optimizer, or the dotted path of a class of your own; with options
            of its own, a mapping of `type` and these: `{type: SGD, momentum: 0.9}`.
        lr: the optimizer's learning rate.
        warm_up_steps: optimization steps over which it rises to `lr`.
        schedule: of the learning rate. constant, or cosine: it falls to 0, epoch by epoch, along
            half a cosine; or a scheduler, in the form of `optimizer`: OneCycleLR.
        weight_decay: the optimizer's: of Adam and SGD an L2 penalty. A class of your own is
            given it unless it is 0.
        n_epochs: passes over the training data.
        ckpt_every: epochs between extra checkpoints under `save_dir`; 0: none.
        print_every: batches between lines where no progress bar is drawn.
        print_to_log: write the lines into a file under `save_dir` too.
    """

    family: ClassVar[Family]
    trained_model: ClassVar[str] = "network"  # what the ordinary training trains

    experiment: Name = "energy_model"
    save_dir: PathText = "experiment"
    load_path: PathText | None = None
    optimizer: Annotated[Choice, _sound(choose_optimizer, _FIELDS)] = "Adam"
    lr: Positive = 1e-3
    warm_up_steps: Count = 0
    schedule: Annotated[Choice, _sound(choose_scheduler, {}, _SCHEDULES)] = "constant"
    weight_decay: NotNegative = 0.0
    n_epochs: AtLeastOne = 40
    ckpt_every: Count = 0
    print_every: AtLeastOne = 100
    print_to_log: bool = False

    def step_fields(self) -> dict[str, Any]:
        """Return what the ordinary training's step has of its family."""
        return {}

    def ordinary_step(self) -> Step:
        """Make the one step of the ordinary training."""
        shared = {"lr": self.lr, "warm_up_steps": self.warm_up_steps}
        optimizer = _mapping(self.optimizer)
        # A class of one's own may know no weight decay.
        if self.weight_decay or "." not in optimizer["type"]:
            shared["weight_decay"] = self.weight_decay
        schedule = _mapping(self.schedule)
        kind = _SCHEDULES.get(schedule["type"], schedule["type"])
        is_constant = kind == "none"
        return self.family.step(
            name="train",
            n_epochs=self.n_epochs,
            optimizers={self.trained_model: choose_optimizer({**optimizer, **shared})},
            schedulers={}
            if is_constant
            else {self.trained_model: choose_scheduler({**schedule, "type": kind})},
            **self.step_fields(),
        )


def trainer_recipe(
    recipe: Any, params: TrainingArgs, objective: Any, where: str, *, validates: bool = True
) -> Recipe:
    """Make the recipe that a mapping, or the file at a path, describes; `where` leads to it.

    Without steps, it is that of the ordinary training. The trainer's `objective` serves the steps
    that name none; None is one that is not known. Without images to validate on (`validates`),
    there are no metrics of validation.

    Raises:
        InputError: a line for each problem.
    """
    if recipe is None or recipe == {}:
        return Recipe(steps=(params.ordinary_step(),))
    from jemtrack.recipe.check import mapping_problems

    family, usual = params.family, params.family.usual_values(objective)
    if isinstance(recipe, str):
        return _from_file(Path(recipe), params, usual, where, validates)
    if not isinstance(recipe, Mapping):
        raise InputError(
            f"{where} must hold defaults, steps, divergence and callbacks, or be the path of a "
            f"recipe file, got {format_value(recipe)}"
        )
    raw = _reader().RawRecipe(recipe, family.step, usual, params.ordinary_step())
    if problems := mapping_problems(raw, where, validates=validates):
        raise InputError("\n".join(problems))
    made: Recipe = raw.build()
    return made


def _reader() -> Any:
    # By its name: a stage that has no recipe does not depend on how recipes are read.
    return importlib.import_module(_READER)


def _from_file(
    path: Path, params: TrainingArgs, usual: Mapping[str, Any], where: str, validates: bool
) -> Recipe:
    from jemtrack.recipe.check import file_problems

    file = _reader().RecipeFile(path, usual)
    if problems := file_problems(file, validates=validates):
        raise InputError("\n".join(f"{where}: {problem.of(path)}" for problem in problems))
    if file.family.name != params.family.name:
        name = params.family.name
        raise InputError(
            f"{where}: {path} must be a recipe for {name}, got one for {file.family.name}"
        )
    # `workers` is for files of other programs, and without an effect.
    if given := [name for name in file.given if name != "training.workers"]:
        raise InputError(
            f"{where}: {path} must not set {', '.join(given)}: the stage's own parameters say it, "
            "so that the file may hold no more than training.pipeline, divergence and callbacks"
        )
    made: Recipe = file.recipe
    return made


def recipe_problems(
    recipe: Any, params: TrainingArgs, objective: Any, where: str, *, validates: bool = True
) -> list[str]:
    """List what is wrong with a recipe, a line a problem.

    Without `objective`, which may have problems itself, what needs it passes.
    """
    try:
        trainer_recipe(recipe, params, objective, where, validates=validates)
    except InputError as error:
        return str(error).splitlines()
    return []


def recipe_modules(recipe: Any, params: Mapping[str, Any], usual: type[TrainingArgs]) -> list[str]:
    """Name the modules that a trainer uses because its recipe and its `params` say so.

    The class of `params` is `usual` if they do not name it.

    Raises:
        InputError: a line for each problem of the recipe.
    """
    values = {name: params[name] for name in params if name != "_cls"}
    cls = imported(params["_cls"]) if "_cls" in params else usual
    chosen = trainer_recipe(recipe, build(cls, values, "params"), None, "recipe")
    known = load_components(CALLBACK) if chosen.callbacks else {}
    types = [str(each["type"]) for each in chosen.callbacks]
    paths = [path for step in chosen.steps for path in step.class_paths]
    # One of the user's own is named by its dotted path.
    paths += [kind for kind in types if kind not in known]
    modules = [path.rpartition(".")[0] for path in dict.fromkeys(paths)]
    modules += [known[kind].__module__ for kind in types if kind in known]
    return [*modules, *([_READER] if recipe else []), *([_WEIGHTS] if params["ckpt_every"] else [])]


def extra_checkpoints(every: int) -> list[Callback]:
    """Make the callback that saves weights after every so many epochs; none for 0."""
    if not every:
        return []
    load_components(CALLBACK)
    return [build_callback({"type": "periodic_weights", "every": every})]
