"""`jemtrack train`: a recipe file trained outside of DVC, and resumed if it was killed."""

import dataclasses
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jemtrack.data.images import DataSplits
from jemtrack.errors import InputError, ParameterError, TrainingDivergedError
from jemtrack.project.provenance import Determinants, recipe_determinants
from jemtrack.project.runtime import checkpoint_seconds
from jemtrack.project.scratch import locked, remove_old
from jemtrack.recipe.check import load_recipe
from jemtrack.recipe.prepare import check_data, prepared, recipe_trackers
from jemtrack.recipe.read import RecipeFile
from jemtrack.shared.plain import plain
from jemtrack.trackers.console import run_log
from jemtrack.train.checkpoint import Checkpoints, newest_first
from jemtrack.train.distributed import is_rank_zero
from jemtrack.train.launch import PickleByFactory, Runtime, launch
from jemtrack.train.run import Training

RUNS = Path("runs")
_METRICS = "metrics.json"
_MODEL = "model.safetensors"


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
    data = prepared(file)
    check_data(file, data)
    _make_folder(out)
    inputs = _inputs(file, out)
    with _explained(path, out, inputs.folder):
        launch(file.training, _train, PickleByFactory((file, data), _with_data, path), out, inputs)
    return out


def _sound_file(path: Path) -> RecipeFile:
    file = load_recipe(path)
    if file.family.note:
        raise InputError(f"{path}: {file.family.name} cannot be trained: {file.family.note}")
    return file


def _make_folder(out: Path) -> None:
    if (out / _METRICS).exists():
        raise InputError(f"{out} holds the results of a training: name another folder by --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out} cannot be made a folder: {error.strerror}") from error


def _inputs(file: RecipeFile, out: Path) -> Determinants:
    """Collect all that determines this training."""
    parameters = {**plain(_chosen(file)), "out": str(out.resolve())}
    return recipe_determinants(
        file.path.stem, parameters, file.recipe, [file.path, _data_folder(file)]
    )


def _data_folder(file: RecipeFile) -> Path:
    return Path(file.data.data_root, file.data.dataset)


def _chosen(file: RecipeFile) -> dict[str, object]:
    return {
        "data": file.data,
        "model": file.model,
        "training": file.training,
        "recipe": file.recipe.as_mapping(),
    }


def _with_data(path: Path) -> tuple[RecipeFile, DataSplits]:
    file = _sound_file(path)
    return file, prepared(file)


def _train(
    runtime: Runtime,
    handed: PickleByFactory[tuple[RecipeFile, DataSplits]],
    out: Path,
    inputs: Determinants,
) -> None:
    """Train in one of the processes; the first one writes."""
    file, data = handed.value
    digest = inputs.contents.get(str(_data_folder(file)), "")
    training = _training(file, data, runtime, out, digest)
    if not is_rank_zero():
        training.train([], None)
        return
    with locked(inputs.folder), run_log(None, on_screen=not sys.stderr.isatty()):
        inputs.write()
        remove_old(inputs.stage, inputs.folder.parent)
        checkpoints = Checkpoints(inputs.folder, every_seconds=checkpoint_seconds())
        metrics = training.train(recipe_trackers(file, out), checkpoints, out / _MODEL)
        if changed := inputs.changes():
            # Trackers have it already; their run says by which parameters it was trained.
            (out / _MODEL).unlink()
            raise InputError(
                f"{', '.join(changed)} changed during the training, which is kept: undo the "
                "change and type the command again for its results"
            )
        (out / _METRICS).write_text(json.dumps(metrics, indent=2) + "\n")


def _training(
    file: RecipeFile, data: DataSplits, runtime: Runtime, out: Path, digest: str
) -> Training:
    return Training(
        name=file.path.stem,
        family=file.family,
        recipe=file.recipe,
        model=file.model,
        settings=file.training,
        data=data,
        runtime=runtime,
        parameters={**_chosen(file), "data": {**dataclasses.asdict(file.data), "digest": digest}},
        notes={"trainer": file.path.stem, "dataset": data.dataset},
        folder=out,
    )


@contextmanager
def _explained(path: Path, out: Path, folder: Path) -> Iterator[None]:
    """Print how to resume from what `folder` has; name the file in what is raised."""
    try:
        yield
    except (KeyboardInterrupt, OSError):
        if saved := newest_first(folder):
            command = f"jemtrack train --config {path} --out {out}"
            print(f"step {saved[0].step} is saved: `{command}` resumes there", file=sys.stderr)
        raise
    except TrainingDivergedError as error:
        raise InputError(f"{path}: {error}") from error
    except ParameterError as error:
        raise InputError(f"{path}: training.{error}") from error
    finally:
        with suppress(OSError):  # it is not empty
            out.rmdir()
