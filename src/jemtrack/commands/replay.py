"""`jemtrack replay`: send the record of a run to trackers."""

from pathlib import Path

from jemtrack.errors import InputError
from jemtrack.events.handlers import EventHandler, Tracker
from jemtrack.project.runtime import RUNTIME, runtime_trackers
from jemtrack.recipe.check import load_recipe
from jemtrack.record.paths import RunPaths, build_tracker
from jemtrack.shared.components import TRACKER, load_components
from jemtrack.trackers.replay import replay, run_folder


def replay_record(record: Path, config: Path | None = None) -> None:
    """Send a record to the trackers of `jemtrack.yaml`, or of the recipe file `config`.

    Raises:
        InputError: if there are no trackers or no record, or with a line for each tracker that
            failed.
    """
    if config:
        trackers = _recipe_trackers(config, record.parent)
    else:
        trackers = runtime_trackers(run_folder(record), live=False)
    if not trackers:
        raise InputError(f"{config or RUNTIME} must list trackers to send {record} to")
    replay(record, trackers)


def _recipe_trackers(config: Path, out: Path) -> list[EventHandler]:
    """Build the file's trackers for the training that wrote into `out`, without its recorders."""
    load_components(TRACKER)
    built = [
        build_tracker(entry, RunPaths(run=out, project=Path()))
        for entry in load_recipe(config).trackers
    ]
    return [each for each in built if isinstance(each, Tracker) and not each.live]
