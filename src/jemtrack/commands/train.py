"""`jemtrack train`: a recipe file trained outside of DVC, and resumed if it was killed."""

import dataclasses
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jemtrack.data.images import DataSplits
from jemtrack.data.splits import prepare
from jemtrack.errors import InputError, ParameterError, TrainingDivergedError
from jemtrack.files import file_digest
from jemtrack.parameters import parameter_names
from jemtrack.project.runtime import checkpoint_seconds
from jemtrack.project.scratch import locked, remove_old, scratch_folder, scratch_key
from jemtrack.recipe.check import file_problems, load_recipe
from jemtrack.recipe.read import RecipeFile
from jemtrack.record.jsonl import JsonLines
from jemtrack.record.paths import RunPaths, build_tracker
from jemtrack.record.plain import plain
from jemtrack.trackers.console import default_trackers, run_log
from jemtrack.train.checkpoint import FORMAT, Checkpoints
from jemtrack.train.components import TRACKER, load_components
from jemtrack.train.distributed import is_rank_zero
from jemtrack.train.family import Training
from jemtrack.train.handlers import Tracker
from jemtrack.train.launch import PickleByFactory, Runtime, launch

RUNS = Path("runs")
_METRICS = "metrics.json"
_PRINT_EVERY = 100


def train(path: Path, out: Path | None = None) -> Path:
    """Train what the recipe file at `path` says; return the folder of the results, `out`.

    They are model.safetensors, metrics.json, history.csv and the folder record. The same call
    resumes an earlier one that was killed.

    Raises:
        InputError: a line for each problem of the file or of the data; where `out` holds the
            results of an earlier training; where a loss or gradient is not finite or too large.
        KeyboardInterrupt: when a signal asked for the end.
    """
    out = out or RUNS / path.stem
    file = _sound_file(path)
    data = _prepared(file)
    _check_data(file, data)
    _make_folder(out)
    folder = _scratch(file, out)
    with _explained(path, out):
        launch(file.training, _train, PickleByFactory((file, data), _with_data, path), out, folder)
    return out


def _sound_file(path: Path) -> RecipeFile:
    file = load_recipe(path)
    if file.family.note:
        raise InputError(f"{path}: {file.family.name} cannot be trained: {file.family.note}")
    return file


def _prepared(file: RecipeFile) -> DataSplits:
    """Read and split the images; all that is drawn later follows from the training's seed."""
    chosen = file.data
    try:
        data = prepare(
            chosen.dataset, Path(chosen.data_root), chosen.n_classes, chosen.n_valid, chosen.seed
        )
    except ParameterError as error:
        raise InputError(f"{file.path}: data.{error}") from error
    seed = file.training.seed
    return data if seed is None else dataclasses.replace(data, seed=seed)


def _check_data(file: RecipeFile, data: DataSplits) -> None:
    """Check what only the data can tell."""
    try:
        file.family.check_data(file.model, file.training, data)
    except ParameterError as error:
        is_of_model = str(error).split()[0] in parameter_names(file.family.shape)
        section = "model" if is_of_model else "training"
        raise InputError(f"{file.path}: {section}.{error}") from error
    if len(data.valid) == 0 and (found := file_problems(file.raw, validates=False)):
        lines = (f"{problem.of(file.path)}; data.n_valid is 0" for problem in found)
        raise InputError("\n".join(lines))


def _make_folder(out: Path) -> None:
    if (out / _METRICS).exists():
        raise InputError(f"{out} holds the results of a training: name another folder by --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out} cannot be made a folder: {error.strerror}") from error


def _scratch(file: RecipeFile, out: Path) -> Path:
    """Name the folder of the checkpoints of this training: by all that determines it."""
    package = Path(__file__).parents[1]
    data = Path(file.data.data_root, file.data.dataset)
    files = [*sorted(package.rglob("*.py")), *(p for p in sorted(data.rglob("*")) if p.is_file())]
    contents = [file_digest(each) for each in files]
    key = scratch_key([FORMAT, plain(_chosen(file)), contents, str(out.resolve())])
    return scratch_folder() / "recipes" / f"{file.path.stem}-{key}"


def _chosen(file: RecipeFile) -> dict[str, object]:
    return {
        "data": file.data,
        "model": file.model,
        "training": file.training,
        "recipe": file.recipe.as_mapping(),
    }


def _with_data(path: Path) -> tuple[RecipeFile, DataSplits]:
    file = _sound_file(path)
    return file, _prepared(file)


def _train(
    runtime: Runtime,
    handed: PickleByFactory[tuple[RecipeFile, DataSplits]],
    out: Path,
    folder: Path,
) -> None:
    """Train in one of the processes; the first one writes."""
    file, data = handed.value
    training = _training(file, data, runtime, out)
    if not is_rank_zero():
        training.train([], None)
        return
    with locked(folder), run_log(None, on_screen=not sys.stderr.isatty()):
        remove_old(file.path.stem, folder.parent)
        checkpoints = Checkpoints(folder, every_seconds=checkpoint_seconds())
        metrics = training.train(_trackers(file, out), checkpoints)
        training.save(out / "model.safetensors")
        (out / _METRICS).write_text(json.dumps(metrics, indent=2) + "\n")


def _training(file: RecipeFile, data: DataSplits, runtime: Runtime, out: Path) -> Training:
    return Training(
        name=file.path.stem,
        family=file.family,
        recipe=file.recipe,
        model=file.model,
        settings=file.training,
        data=data,
        runtime=runtime,
        parameters=_chosen(file),
        notes={"trainer": file.path.stem, "dataset": data.dataset},
        folder=out,
    )


def _trackers(file: RecipeFile, out: Path) -> list[Tracker]:
    """Make the file's trackers, and those that every training has of other kinds."""
    load_components(TRACKER)
    paths = RunPaths(run=out, project=Path())
    chosen = [build_tracker(entry, paths) for entry in file.trackers]
    usual = default_trackers(out / "history.csv", _PRINT_EVERY)
    own = [JsonLines(folder=str(out / "record")), *usual]
    named = {type(each) for each in chosen}
    return [*(each for each in own if type(each) not in named), *chosen]


@contextmanager
def _explained(path: Path, out: Path) -> Iterator[None]:
    """Print how to resume after an interruption; name the file in what is raised."""
    try:
        yield
    except KeyboardInterrupt:
        command = f"jemtrack train --config {path} --out {out}"
        print(f"the training is kept: `{command}` resumes it", file=sys.stderr)
        raise
    except TrainingDivergedError as error:
        raise InputError(f"{path}: {error}") from error
    except ParameterError as error:
        raise InputError(f"{path}: training.{error}") from error
