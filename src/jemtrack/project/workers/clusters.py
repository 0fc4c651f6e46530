"""Clusters that `jemtrack.yaml` names, as executors: Dask's, or one's own by its dotted path.

No stage depends on any of it. Dask is imported when a cluster is used.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Annotated, Any, Self, cast

from pydantic import Field, field_validator, model_validator

from jemtrack.errors import InputError
from jemtrack.parameters import (
    FROM_LIST,
    AtLeastOne,
    Place,
    ValueProblem,
    nested,
    not_a_mapping,
    parameters,
    refuse,
    section_problems,
)
from jemtrack.shared.components import imported

# The class of dask-jobqueue for the jobs of each.
_JOBS = {"slurm": "SLURMCluster", "sge": "SGECluster"}
_KUBERNETES = "kubernetes"
_TYPES = (*_JOBS, _KUBERNETES, "address")
# A stage takes all of a worker. Dask gives one as many tasks as it has of what a task asks for.
_STAGE = {"stage": 1}
# Each death of a worker costs a stage what it did since its checkpoint, and nothing more.
_ALLOWED_FAILURES = 100

Texts = Annotated[tuple[str, ...], FROM_LIST]


@parameters
class JobKind:
    """Jobs of another kind, such as those with a GPU, and the stages that run in them.

    Attributes:
        stages: names of the stages.
        options: what differs from the options of the cluster.
        jobs: most jobs of this kind at a time.
        resources: what a worker at an `address` must have, as `dask worker --resources` says.
    """

    stages: Texts
    options: dict[str, Any] = Field(default_factory=dict)
    jobs: AtLeastOne = 1
    resources: dict[str, float] = Field(default_factory=dict)


@parameters
class Cluster:
    """A cluster of `jemtrack.yaml`.

    Attributes:
        type: `slurm`, `sge`, `kubernetes`, `address`, or the dotted path of a function of one's
            own, which takes `options` and returns a `concurrent.futures.Executor`.
        options: of a job, as dask-jobqueue names them: queue, cores, memory, walltime, ...; of
            `kubernetes`, those of dask-kubernetes' `KubeCluster`.
        jobs: most jobs (or pods) at a time; each runs one stage at a time.
        setup: lines of shell before a job's worker starts: modules, environments.
        address: of a Dask scheduler that runs already, for the type `address`.
        tls: whether all connections are encrypted and checked. Without it, whoever reaches a port
            of Dask runs code as you.
        remote: a DVC remote, over which data and results go if the machines share no disk.
        git: the git remote or address over which the snapshot goes then.
        folder: the folder of each machine's own for its clones and cache then.
        kinds: jobs of other kinds, by a name of your choice.
    """

    type: str
    options: dict[str, Any] = Field(default_factory=dict)
    jobs: AtLeastOne = 1
    setup: Texts = ()
    tls: bool = True
    address: str = ""
    remote: str = ""
    git: str = "origin"
    folder: str = "~/.cache/jemtrack/workers"
    kinds: dict[str, Annotated[JobKind, nested(JobKind)]] = Field(default_factory=dict)

    @field_validator("type")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in _TYPES and "." not in value:
            known = ", ".join(_TYPES)
            refuse([ValueProblem((), f"must be {known} or a dotted path, got {value!r}")])
        return value

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        problems = []
        if self.type == "address" and not self.address:
            problems.append(ValueProblem(("address",), "is missing"))
        if self.address and self.tls and not self.address.startswith("tls://"):
            text = (
                f"must begin with tls://, got {self.address!r}: whoever reaches a port of Dask "
                "without TLS runs code as you; `tls: false` allows it"
            )
            problems.append(ValueProblem(("address",), text))
        if self.type == _KUBERNETES and self.tls:
            text = (
                "must be false: dask-kubernetes does not encrypt, and whoever reaches a port of "
                "Dask runs code as you; a NetworkPolicy can keep others out"
            )
            problems.append(ValueProblem(("tls",), text))
        if self.remote and self.type not in _TYPES:
            problems.append(ValueProblem(("remote",), "is for the types of Dask alone"))
        named = Counter(stage for kind in self.kinds.values() for stage in kind.stages)
        if twice := [stage for stage, count in named.items() if count > 1]:
            problems.append(ValueProblem(("kinds",), f"must have {twice[0]} once"))
        refuse(problems, self)
        return self

    @property
    def has_jobs(self) -> bool:
        """Whether jobs are submitted for the stages."""
        return self.type in _JOBS

    def kind_of(self, stage: str) -> str:
        """Return the name of the kind of job that the stage runs in; "" for the cluster's own."""
        return next((name for name, kind in self.kinds.items() if stage in kind.stages), "")

    def jobs_of(self, stage: str) -> int:
        """Return the most jobs at a time of the kind that the stage runs in."""
        kind = self.kind_of(stage)
        return self.kinds[kind].jobs if kind else self.jobs


def job_logs(folder: Path) -> Path:
    """Return the folder for what jobs print: why one that ended at once did so."""
    return folder / "jobs"


def cluster_problems(clusters: Any, at: Place) -> Iterator[ValueProblem]:
    """List what is wrong with the clusters of `jemtrack.yaml`, which are at `at`."""
    yield from not_a_mapping(clusters, "clusters by their names", at)
    for name, values in clusters.items() if isinstance(clusters, Mapping) else ():
        yield from section_problems(Cluster, values, (*at, name))


@contextlib.contextmanager
def executors(cluster: Cluster, folder: Path) -> Iterator[Callable[[str], Executor]]:
    """Yield what finds the executor for a stage; its jobs are submitted when a stage needs one.

    `folder`, which all machines see, gets the jobs' logs and the credentials of this run.

    Raises:
        ModuleNotFoundError: without the extra `cluster`.
        InputError: if the dotted path leads to no function that returns an executor.
    """
    with contextlib.ExitStack() as stack:
        found: dict[str, Executor] = {}

        def executor_of(stage: str) -> Executor:
            kind = cluster.kind_of(stage)
            if kind not in found:
                found[kind] = stack.enter_context(_executor(cluster, kind, folder))
            return found[kind]

        executor_of("")  # what is wrong with the cluster is told before anything runs
        yield executor_of


def _executor(
    cluster: Cluster, kind: str, folder: Path
) -> contextlib.AbstractContextManager[Executor]:
    chosen = cluster.kinds.get(kind) or JobKind(stages=(), jobs=cluster.jobs)
    options = {**cluster.options, **chosen.options}
    if cluster.type in _JOBS:
        return _job_executor(cluster, options, chosen.jobs, folder)
    if cluster.type == _KUBERNETES:
        return _pod_executor(options, chosen.jobs)
    if cluster.type == "address":
        return _address_executor(cluster.address, chosen.resources)
    make = imported(cluster.type)
    executor = make(**options) if callable(make) else None
    if not isinstance(executor, Executor):
        raise InputError(
            f"{cluster.type!r} must be a function that returns a concurrent.futures.Executor"
        )
    return executor


@contextlib.contextmanager
def _job_executor(
    cluster: Cluster, options: Mapping[str, Any], jobs: int, folder: Path
) -> Iterator[Executor]:
    """Let dask-jobqueue submit a job when there is a stage for it, and another if it ends."""
    import dask
    import dask_jobqueue
    from distributed import Client

    encrypted = {"security": True, "protocol": "tls://", "shared_temp_directory": str(folder)}
    defaults = {"dashboard_address": None}  # it would need another package
    ours = {
        "job_script_prologue": [*cluster.setup, *options.get("job_script_prologue", ())],
        "worker_extra_args": [
            "--resources",
            _resources(_STAGE),
            *options.get("worker_extra_args", ()),
        ],
        "processes": 1,
        "log_directory": str(job_logs(folder)),
        **(encrypted if cluster.tls else {}),
    }
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": _ALLOWED_FAILURES}),
        getattr(dask_jobqueue, _JOBS[cluster.type])(**{**defaults, **options, **ours}) as queue,
        Client(queue) as client,
    ):
        queue.adapt(minimum_jobs=0, maximum_jobs=jobs)
        yield _dask_executor(client, _STAGE)


@contextlib.contextmanager
def _pod_executor(options: Mapping[str, Any], pods: int) -> Iterator[Executor]:
    """Let Dask's operator for Kubernetes start a pod when there is a stage for it."""
    from dask_kubernetes.operator import KubeCluster
    from distributed import Client

    command = ["dask", "worker", "--nthreads", "1", "--resources", _resources(_STAGE)]
    defaults = {"worker_command": command, "n_workers": 0, "quiet": True}
    with KubeCluster(**{**defaults, **options}) as cluster, Client(cluster) as client:
        cluster.adapt(minimum=0, maximum=pods)
        yield _dask_executor(client, _STAGE)


def _resources(found: Mapping[str, float]) -> str:
    return ",".join(f"{name}={count}" for name, count in found.items())


@contextlib.contextmanager
def _address_executor(address: str, resources: Mapping[str, float]) -> Iterator[Executor]:
    """Connect to a scheduler that runs; Dask's own settings say where its certificates are."""
    from distributed import Client

    try:
        client = Client(address)
    except OSError as error:
        raise InputError(f"no Dask scheduler answers at {address}: {error}") from error
    with client:
        yield _dask_executor(client, resources)


def wish_of_dask() -> Callable[[], bool]:
    """Return what tells whether Dask still wants the task of this thread; always if it is none.

    It does not once the client has gone, nor once the worker has lost its scheduler: that would
    wait half a minute for the task before it ends.
    """
    if "distributed" not in sys.modules:  # a thread of `jemtrack run` itself
        return lambda: True
    from distributed import get_worker
    from distributed.worker import WORKER_ANY_RUNNING, thread_state

    try:
        worker, key = get_worker(), thread_state.key
    except ValueError:  # another executor's
        return lambda: True

    def is_wanted() -> bool:
        task = worker.state.tasks.get(key)
        is_running = worker.status in WORKER_ANY_RUNNING
        return is_running and task is not None and task.state == "executing"

    return is_wanted


def _dask_executor(client: Any, resources: Mapping[str, float]) -> Executor:
    # Pure functions would not run again: a stage that was killed would be killed for ever.
    return cast(Executor, client.get_executor(pure=False, retries=0, resources={**resources}))
