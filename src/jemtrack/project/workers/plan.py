"""Which stages have to run: DVC's own functions decide, and restore what its cache has."""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.fs import localfs
from dvc.logger import set_loggers_level
from dvc.repo import Repo, lock_repo
from dvc.repo.reproduce import collect_stages

from jemtrack.errors import InputError
from jemtrack.project.params import DVC, ZNTRACK
from jemtrack.project.workers.restore import DvcStage, is_source, push_results, restore


@dataclass(frozen=True)
class Plan:
    """The stages that have to run, in the graph's order, and what a clone needs to run them.

    Attributes:
        stages: by the name that DVC knows the stage by in this folder, those that it waits for.
        done: by the same names, those that do not have to run.
        n_restored: how many of these were restored from DVC's cache.
        sources: what `dvc checkout` gets into a clone: pinned data, frozen stages.
        inputs: files and folders that a clone has from git alone, relative to `git_root`.
        git_root: the folder of the git repository.
        dvc_root: the folder of the DVC project, which may be within.
        folder: the working directory, that of the graph.
        config: DVC's settings for a clone, the place of the cache among them.
        remote: the DVC remote that results come and go over; none if empty.
    """

    stages: Mapping[str, tuple[str, ...]]
    done: tuple[str, ...]
    n_restored: int
    sources: tuple[str, ...]
    inputs: tuple[str, ...]
    git_root: Path
    dvc_root: Path
    folder: Path
    config: Mapping[str, Any]
    remote: str = ""

    def following(self, stage: str) -> list[str]:
        """List the stages that wait for `stage`, directly or not."""
        found = {stage}
        for name, awaited in self.stages.items():
            if found & {*awaited}:
                found.add(name)
        return [name for name in self.stages if name in found - {stage}]


def restore_and_plan(targets: Sequence[str] = (), remote: str = "") -> Plan:
    """Restore the stages whose results DVC's cache has, as `dvc repro` does; plan the others.

    No command of a stage is run. Without `targets`, it is about the stages of this folder. With a
    DVC `remote`, results that it has are restored, too.

    Raises:
        InputError: if there is no such stage, a file of the graph is broken, data is missing, or
            DVC's run cache cannot hold the result of a stage that has to run.
    """
    with (
        _explained(),
        set_loggers_level(logging.WARNING),
        _repo(remote) as repo,
        lock_repo(repo),
        repo.scm_context(quiet=True),
    ):
        found = restore(repo, targets or [str(DVC)], pull=bool(remote))
        if problems := [problem for stage in found.stale if (problem := _problem(stage))]:
            raise InputError("\n".join(problems))
        return Plan(
            stages={
                stage.addressing: tuple(each.addressing for each in awaited)
                for stage, awaited in found.stale.items()
            },
            done=tuple(stage.addressing for stage in found.ordered if stage not in found.stale),
            n_restored=len(found.restored),
            sources=tuple(stage.addressing for stage in found.ordered if is_source(stage)),
            inputs=tuple(sorted(_inputs(repo, found.ordered))),
            git_root=Path(repo.scm.root_dir),
            dvc_root=Path(repo.root_dir),
            folder=Path.cwd(),
            config=_clone_config(repo, remote),
            remote=remote,
        )


def push_inputs(plan: Plan) -> None:
    """Push what the stages of the plan need of others and of pinned data to DVC's remote.

    Raises:
        InputError: if it cannot be pushed.
    """
    with _explained(), set_loggers_level(logging.WARNING), _repo(plan.remote) as repo:
        if plan.sources:
            repo.push([*plan.sources])
        done = [name for name in plan.done if name not in plan.sources]
        push_results(repo, collect_stages(repo, done))


def _repo(remote: str) -> Repo:
    return Repo(config={"core": {"remote": remote}} if remote else None)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn DVC's errors into lines for the user."""
    try:
        yield
    except (DvcException, ImportError) as error:  # such as: s3 requires 'dvc-s3' to be installed
        raise InputError(
            f"{error}: {error.__cause__}" if error.__cause__ else str(error)
        ) from error


def _problem(stage: DvcStage) -> str:
    """Explain why the run cache cannot hold what the stage makes; return "" if it can."""
    outs = [out for out in stage.outs if not (out.is_metric or out.is_plot)]
    reasons = {
        "it has no dependency": not stage.deps,
        "it has no out": not stage.outs,
        "it is `always_changed`": stage.always_changed,
        "an out has `persist: true`": any(out.persist for out in stage.outs),
        "an out has `cache: false`": any(not out.use_cache for out in outs),
        "an out is outside of the project": any(not out.is_in_repo for out in stage.outs),
    }
    found = [reason for reason, applies in reasons.items() if applies]
    return (
        f"{stage.addressing} cannot run on a worker, because DVC's run cache does not hold its "
        f"result ({', '.join(found)}): run it here first, with `dvc repro {stage.addressing}`"
        if found
        else ""
    )


def _inputs(repo: Repo, stages: Sequence[DvcStage]) -> Iterator[str]:
    """Yield the files of the graph, and the dependencies that no stage and no `.dvc` file makes."""
    made = [out.fs_path for out in repo.index.outs]
    paths = {stage.path for stage in stages}
    paths |= {str(path.resolve()) for path in (ZNTRACK,) if path.exists()}
    for stage in stages:
        paths |= {
            dep.fs_path
            for dep in stage.deps
            if dep.protocol == "local" and not any(localfs.overlaps(dep.fs_path, o) for o in made)
        }
    for path in paths:
        if localfs.isin_or_eq(path, repo.scm.root_dir):
            yield os.path.relpath(path, repo.scm.root_dir)


def _clone_config(repo: Repo, remote: str) -> dict[str, Any]:
    """Return DVC's settings of this machine, which git does not carry, with the cache's place."""
    config = {name: values for name, values in repo.config.load_one("local").items() if values}
    config["cache"] = {**config.get("cache", {}), "dir": repo.cache.local_cache_dir}
    if remote:
        config["core"] = {**config.get("core", {}), "remote": remote}
    return config
