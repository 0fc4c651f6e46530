"""What only the data can tell about the parameters of the stages that read them."""

from collections.abc import Iterator
from pathlib import Path

from jemtrack.data.images import DataSplits
from jemtrack.documents import format_place
from jemtrack.errors import InputError, ParameterError
from jemtrack.project.params import (
    DVC,
    PARAMS,
    Section,
    load_classes,
    maker,
    parameter_problems,
    read_graph,
    read_parameters,
    read_stages,
    sections,
)
from jemtrack.stages.draw_samples import SampleArgs, check_samples
from jemtrack.stages.evaluate_x import EvalArgs, chosen_images
from jemtrack.stages.prepare_outliers import OutlierArgs, check_outliers
from jemtrack.stages.training_args import TrainingArgs, recipe_problems, trainer_recipe
from jemtrack.train.launch import check_hardware
from jemtrack.train.recipe import Recipe


def check_trainers(running: str, data: DataSplits) -> None:
    """Check the parameters of every stage that reads what `running` does against the data.

    So the first trainer that runs names the problems of all, before anything is trained.

    Raises:
        InputError: one line for each value that does not fit.
    """
    graph, values = read_graph(), read_parameters()
    readers = {
        name: entry for name, entry in graph.items() if entry.get("data") == graph[running]["data"]
    }
    load_classes(readers, values)
    found = parameter_problems(readers, values)
    for section in [] if found else sections(readers, values):
        found += data_problems(section, data, is_running=section.stage == running)
    if found:
        raise InputError("\n".join(found))


def data_problems(section: Section, data: DataSplits, *, is_running: bool) -> Iterator[str]:
    """Yield what does not fit, a line a problem; the parameters must be sound by themselves."""
    if hasattr(section.loaded, "family"):
        yield from trainer_problems(section, data, is_running=is_running)
        return
    try:
        if section.reads_as(EvalArgs):
            chosen_images(section.stage, section.build(), data)
        elif section.reads_as(OutlierArgs):
            check_outliers(data, section.build())
        elif section.reads_as(SampleArgs):
            check_samples(data, section.build())
    except ParameterError as error:
        yield f"{section.where}.{error}"
    except InputError as error:
        yield str(error)


def trainer_problems(section: Section, data: DataSplits, *, is_running: bool) -> Iterator[str]:
    """Yield what does not fit, a line a problem; the parameters must be sound by themselves."""
    params: TrainingArgs = section.build()
    yield from _recipe_problems(section, data, is_running)
    try:
        check_hardware(params)
        params.family.check_data(params, params, data)
    except ParameterError as error:
        yield f"{section.where}.{error}"
    if blocker := _not_a_folder(Path(params.save_dir)):
        yield f"{section.where}.save_dir must be a folder, but {blocker} is a file"
    if params.load_path:
        yield from _start_problems(section, Path(params.load_path), data, is_running)


def _recipe_problems(section: Section, data: DataSplits, is_running: bool) -> Iterator[str]:
    """Yield what the trainer's recipe and its objectives ask of data and parameters in vain."""
    values, params = read_parameters(), section.build()
    recipe, where = values[section.stage].get("recipe"), f"{PARAMS}: {section.stage}.recipe"
    sound = (
        found.build()
        for found in sections(read_graph(), values)
        if (found.stage, found.field) == (section.stage, "objective") and not found.problems
    )
    own = next(sound, None)
    try:
        chosen = trainer_recipe(recipe, params, own, where)
    except InputError:
        return  # it is among the parameters' problems
    for place, text in params.family.recipe_problems(chosen, params, own):
        yield f"{where}.{format_place(place)} {text}"
    if len(data.valid) == 0:
        for problem in recipe_problems(recipe, params, own, where, validates=False):
            yield f"{problem}; the data were prepared with n_valid 0"
    for problem in params.family.objective_problems(chosen, own, params, data, run_own=is_running):
        yield f"{PARAMS}: {section.stage}: {problem}"


def _start_problems(
    section: Section, start: Path, data: DataSplits, is_running: bool
) -> Iterator[str]:
    """Yield why training cannot start from the model at `start`."""
    where, made_by = f"{section.where}.load_path", maker(start)
    if made_by == section.stage:
        yield f"{where} must be no output of its own stage, got '{start}': copy it elsewhere first"
        return
    if made_by and str(start) not in read_stages()[section.stage].get("deps", []):
        # That stage may not have run yet: DVC must know the order.
        yield f"{DVC}: {section.stage} does not depend on {start}: type `jemtrack graph`"
    # What another stage makes is the one that is meant when this stage's turn has come.
    if made_by and not is_running:
        return
    params: TrainingArgs = section.build()
    recipe = Recipe(steps=(params.ordinary_step(),))
    try:
        for make in params.family.networks(recipe, params, data, start).values():
            make()
    except InputError as error:
        yield f"{where}: {error}"


def _not_a_folder(path: Path) -> Path | None:
    """Find what stands in the way of making the folder `path`."""
    first = next(place for place in (path, *path.parents) if place.exists())
    return None if first.is_dir() else first
