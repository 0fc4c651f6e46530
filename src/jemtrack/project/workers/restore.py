"""Restore results of stages from DVC's caches, or push them, without running a command."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro
from dvc.stage.cache import RunCacheNotFoundError, StageCache, _get_stage_hash
from dvc_data.hashfile.hash_info import HashInfo

from jemtrack.errors import InputError

DvcStage = Any  # DVC has no public types


class Restored(NamedTuple):
    """What has become of stages.

    Attributes:
        ordered: all of them, each after those before it in the graph.
        restored: those whose results were restored.
        stale: those that have to run, with those of them that each waits for.
    """

    ordered: list[DvcStage]
    restored: list[DvcStage]
    stale: dict[DvcStage, tuple[DvcStage, ...]]


def restore(repo: Any, targets: Iterable[str], *, pull: bool = False) -> Restored:
    """Restore what has changed of the targets and of all stages before them, if the cache has it.

    `pull` what only DVC's remote has. The repository has to be locked.

    Raises:
        InputError: if pinned data is missing or was changed.
    """
    if pull:
        repo.stage_cache.pull(None)
    graph = get_active_graph(repo.index.graph)
    found = Restored(plan_repro(graph, collect_stages(repo, targets)), [], {})
    try:
        for stage in found.ordered:
            awaited = tuple(each for each in graph.successors(stage) if each in found.stale)
            if not awaited and not stage.changed():
                continue
            if not awaited and _restore(stage, pull):
                found.restored.append(stage)
            else:
                found.stale[stage] = awaited
    finally:
        _note(found.restored)
    return found


def _note(stages: Iterable[DvcStage]) -> None:
    """Note the stages in dvc.lock, all at once: DVC reads and writes the whole file each time."""
    by_file: dict[str, list[DvcStage]] = {}
    for stage in stages:
        by_file.setdefault(stage.path, []).append(stage)
    for group in by_file.values():
        group[0].dvcfile.dump_stages(group, update_pipeline=False)


def _restore(stage: DvcStage, pull: bool) -> bool:
    """Restore the outs of a changed stage if DVC's cache has them for the inputs as they are."""
    if is_source(stage):
        raise InputError(
            f"{stage.addressing}: {', '.join(map(str, stage.outs))} is missing or was changed: "
            f"`dvc checkout {stage.addressing}` gets it back, `dvc commit {stage.addressing}` "
            "accepts the change"
        )
    # `reproduce` would run the command if there was nothing to restore: look for it first.
    is_as_locked = not (stage.changed_stage() or stage.changed_deps())
    if not (is_as_locked and _is_cached(stage, pull)):
        # dvc.lock is of other inputs, or of a result that this cache never had.
        stage.save_deps()
        for out in stage.outs:
            out.hash_info = HashInfo()  # the run cache says what it is
        if not _is_cached(stage, pull):
            return False
    stage.reproduce()
    return True


def _load(cache: StageCache, stage: DvcStage) -> Any:
    """Load the newest entry of the stage in DVC's run cache that is whole; None if there is none.

    DVC's own takes what a killed process was writing, `.*.tmp`, for an entry, and fails on a folder
    without any. Another process may write in that folder now, so nothing is removed.
    """
    key = _get_stage_hash(stage)
    entries = Path(cache._get_cache_dir(key)).glob("[!.]*") if key else []
    newest_first = sorted(entries, key=lambda entry: entry.stat().st_mtime, reverse=True)
    return next(filter(None, (cache._load_cache(key, entry.name) for entry in newest_first)), None)


# Of all repositories of this process, as `dvc exp run` opens some of its own.
StageCache._load = _load


def _is_cached(stage: DvcStage, pull: bool) -> bool:
    try:
        stage.repo.stage_cache.restore(stage, pull=pull, dry=not pull)
    except RunCacheNotFoundError:
        return False
    return True


def is_source(stage: DvcStage) -> bool:
    """Tell whether DVC never runs the stage: pinned data, or a frozen one."""
    return bool(stage.is_data_source or stage.frozen)


def push_results(repo: Any, stages: Iterable[DvcStage]) -> None:
    """Push what DVC's run cache has of the stages, and the run cache, to the remote.

    `dvc push --run-cache` leaves out the metrics that are in git, without which no other machine
    can restore the stages.
    """
    for stage in stages:
        if entry := repo.stage_cache._load(stage):
            cached = repo.stage_cache._create_stage(entry, wdir=stage.wdir)
            for objects in cached.get_used_objs().values():
                repo.cloud.push(objects)
    repo.stage_cache.push(None)
