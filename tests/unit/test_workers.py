"""What `jemtrack run` plans, what its clones have, and whom it tries again, on small graphs."""

import inspect
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from dask_kubernetes import operator
from distributed import LocalCluster
from dvc.repo import Repo

from jemtrack.commands.run import coordinate, seconds_left
from jemtrack.errors import InputError
from jemtrack.project.workers.clusters import Cluster, cluster_problems, executors
from jemtrack.project.workers.coordinator import Coordinator, State, only_run, prepare
from jemtrack.project.workers.plan import Plan, restore_and_plan
from jemtrack.project.workers.snapshot import put_clone, take_snapshot
from jemtrack.project.workers.stage_process import ENDED, KILLED
from jemtrack.project.workers.worker import Outcome

# a -> b -> d, and c; each command leaves a mark where git and DVC do not look.
GRAPH: dict[str, dict[str, Any]] = {
    "a": {"cmd": "cat data/x > a; echo a >> .ran", "deps": ["data/x", "code"], "outs": ["a"]},
    "b": {"cmd": "cat a > b; echo b >> .ran", "deps": ["a"], "params": ["b"], "outs": ["b"]},
    "c": {"cmd": "cat code > c; echo c >> .ran", "deps": ["code"], "outs": ["c"]},
    "d": {"cmd": "cat b > d; echo d >> .ran", "deps": ["b"], "outs": ["d"]},
}


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.chdir(root)
    git("init", "--quiet")
    Repo.init().close()
    Path("data").mkdir()
    Path("data", "x").write_text("x")
    Path("code").write_text("code")
    Path("params.yaml").write_text("b: 1\n")
    Path(".gitignore").write_text(".ran\n/data\n/.jemtrack\n")
    with Repo() as repo:
        repo.add("data")
    write_graph()
    return root


def git(*arguments: str) -> str:
    by = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.org"]
    return subprocess.run(
        ["git", *by, *arguments], check=True, capture_output=True, text=True
    ).stdout


def write_graph(**changes: dict[str, Any]) -> None:
    stages = {name: {**stage, **changes.get(name, {})} for name, stage in GRAPH.items()}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    git("add", "--all")
    git("commit", "--quiet", "--message", "graph")


def reproduce() -> None:
    with Repo() as repo:
        repo.reproduce()
    Path(".ran").unlink(missing_ok=True)


def test_a_plan_has_what_is_stale_and_what_follows_in_order():
    plan = restore_and_plan()

    assert plan.stages == {"a": (), "b": ("a",), "c": (), "d": ("b",)}
    assert [*plan.stages].index("b") < [*plan.stages].index("d")
    assert plan.following("a") == ["b", "d"]
    assert plan.sources == ("data.dvc",)
    reproduce()
    assert restore_and_plan().stages == {}
    Path("params.yaml").write_text("b: 2\n")
    assert restore_and_plan().stages == {"b": (), "d": ("b",)}
    assert restore_and_plan(["c"]).stages == {}
    assert restore_and_plan(["b"]).stages == {"b": ()}


def test_what_the_cache_has_is_restored_and_nothing_is_run():
    reproduce()
    lock = Path("dvc.lock").read_text()
    Path("params.yaml").write_text("b: 2\n")
    reproduce()
    Path("code").write_text("other")  # of a and c
    Path("params.yaml").write_text("b: 1\n")
    Path("c").unlink()
    Path("b").write_text("touched")
    assert restore_and_plan().stages == {"a": (), "b": ("a",), "c": (), "d": ("b",)}
    Path("code").write_text("code")

    plan = restore_and_plan()

    assert plan.stages == {}
    assert plan.n_restored == 2  # b and c; the files of the others are what dvc.lock says
    assert Path("dvc.lock").read_text() == lock
    assert Path("b").read_text() == "x"
    assert not Path(".ran").exists()


def test_a_result_is_restored_beside_what_a_killed_dvc_was_writing():
    reproduce()
    for entry in Path(".dvc/cache/runs").glob("*/*/*"):
        entry.with_name(".newer.tmp").touch()
    Path("dvc.lock").unlink()  # which the results could be restored by, too

    assert restore_and_plan().n_restored == 4


def test_a_folder_of_the_run_cache_that_a_killed_dvc_left_empty_is_filled():
    reproduce()
    for entry in Path(".dvc/cache/runs").glob("*/*/*"):
        entry.unlink()
    Path("dvc.lock").unlink()

    with ThreadPoolExecutor(1) as executor:
        assert {*coordinated(restore_and_plan(), executor).values()} == {State.DONE}
    assert restore_and_plan().n_restored == 4


def test_a_result_that_only_dvc_lock_knows_is_run_and_then_restored(tmp_path):
    """As in a fresh clone, whose cache has nothing; each run of `a` gives another result."""
    write_graph(a={"cmd": "date +%s.%N > a; echo a >> .ran"})
    reproduce()
    git("add", "--all")
    git("commit", "--quiet", "--message", "results")
    for folder in Path(".dvc", "cache").glob("*"):
        shutil.rmtree(folder)
    for name in "abcd":
        Path(name).unlink()
    with Repo() as repo:
        repo.add("data")

    plan = restore_and_plan()
    assert [*plan.stages] == ["a", "b", "c", "d"]
    with ThreadPoolExecutor(1) as executor:
        assert {*coordinated(plan, executor).values()} == {State.DONE}
    after = restore_and_plan()

    assert after.stages == {}
    assert after.n_restored == 4
    ran = Path(".jemtrack/workers/1/.ran").read_text()
    assert sorted(ran.split()) == ["a", "b", "c", "d"]
    assert not Path(".ran").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"deps": []}, "it has no dependency"),
        ({"always_changed": True}, "it is `always_changed`"),
        ({"outs": [{"c": {"persist": True}}]}, "an out has `persist: true`"),
        ({"outs": [{"c": {"cache": False}}]}, "an out has `cache: false`"),
    ],
)
def test_what_the_run_cache_does_not_hold_is_refused(change, reason):
    write_graph(c=change)

    with pytest.raises(InputError, match=rf"^c cannot run .*{reason}.*`dvc repro c`$"):
        restore_and_plan()
    restore_and_plan(["d"])


def test_a_metric_that_git_holds_is_no_reason():
    write_graph(c={"outs": [], "metrics": [{"c": {"cache": False}}]})
    reproduce()
    Path("c").unlink()

    assert restore_and_plan().n_restored == 1
    assert Path("c").read_text() == "code"


def test_bad_input_is_told_in_a_line():
    with pytest.raises(InputError, match="'e' not found"):
        restore_and_plan(["e"])
    Path("data", "x").unlink()
    with pytest.raises(InputError, match=r"^data.dvc: data is missing or was changed: `dvc check"):
        restore_and_plan()


def test_a_remote_whose_package_is_missing_is_told():
    with Repo() as repo, repo.config.edit("local") as settings:
        settings["remote"] = {"far": {"url": "s3://bucket/results"}}

    with pytest.raises(InputError, match="requires 'dvc-s3' to be installed"):
        restore_and_plan(remote="far")


def test_a_clone_has_the_edits_and_not_what_was_removed(tmp_path):
    Path("old").write_text("old")
    git("add", "old")
    git("commit", "--quiet", "--message", "old")
    plan, clone = restore_and_plan(), tmp_path / "clone"
    put_clone(str(plan.git_root), take_snapshot(plan), clone)
    (clone / "left").write_text("by a stage that was killed")
    (clone / ".git" / "index.lock").touch()
    Path("code").write_text("edited")
    Path("old").unlink()
    Path("new").write_text("new")
    git("add", "new")
    before = git("status", "--short")

    snapshot = take_snapshot(plan)
    put_clone(str(plan.git_root), snapshot, clone)

    names = {path.name for path in clone.iterdir()}
    assert (clone / "code").read_text() == "edited"
    assert "new" in names
    assert not {"old", "left"} & names
    assert git("status", "--short") == before
    assert git("stash", "list") == ""
    git("gc", "--prune=now", "--quiet")
    put_clone(str(plan.git_root), snapshot, tmp_path / "another")


def test_the_lock_of_a_reference_that_a_killed_dvc_left_is_removed(tmp_path):
    plan, clone = restore_and_plan(), tmp_path / "clone"
    put_clone(str(plan.git_root), take_snapshot(plan), clone)
    left = clone / ".git" / "refs" / "exps" / "exec" / "EXEC_BASELINE.lock"
    left.parent.mkdir(parents=True)
    left.touch()

    put_clone(str(plan.git_root), take_snapshot(plan), clone)

    assert not left.exists()


def test_a_file_that_was_touched_is_no_edit():
    os.utime("code", (1, 1))

    assert take_snapshot(restore_and_plan()) == git("rev-parse", "HEAD").strip()


def test_a_file_that_git_does_not_know_is_told_before_anything_runs():
    write_graph(c={"deps": ["more"]})
    Path("more").mkdir()
    Path("more", "new.py").write_text("new")

    with pytest.raises(InputError, match=r"^more/new.py: stages need it.*`git add more/new.py`"):
        take_snapshot(restore_and_plan())
    Path(".dvcignore").write_text("more/new.py\n")
    take_snapshot(restore_and_plan())


def test_a_repository_without_a_commit_is_told():
    git("update-ref", "-d", "HEAD")

    with pytest.raises(InputError, match=r"has no commit, .*: `git commit` first$"):
        take_snapshot(restore_and_plan())


def test_a_second_run_is_refused():
    plan = restore_and_plan()
    with (
        only_run(plan),
        pytest.raises(InputError, match=r"^process \d+ runs the stages"),
        only_run(plan),
    ):
        pass


class Told(Executor):
    """Runs nothing; the stages end as `ends` says, one status for each time that they start."""

    def __init__(self, **ends: list[int]) -> None:
        self.ends = ends
        self.started: list[str] = []

    def submit(self, run: Callable[..., Any], /, *arguments: Any, **_: Any) -> Future[Any]:
        stage = arguments[1]
        self.started.append(stage)
        future: Future[Any] = Future()
        future.set_result(Outcome(self.ends.get(stage, [0]).pop(0), 1.0))
        return future


def coordinated(plan: Plan, executor: Executor) -> dict[str, State]:
    coordinator = Coordinator(plan, prepare(plan, threads=1), lambda _: executor)
    coordinator.run(lambda _: None)
    return {stage: run.state for stage, run in coordinator.runs.items()}


def test_an_interrupt_before_a_worker_has_taken_a_stage_names_none(capsys):
    def busy(_: str) -> Executor:
        executor.submit(time.sleep, 1)
        os.kill(os.getpid(), signal.SIGINT)
        return executor

    plan = restore_and_plan(["c"])
    coordinator = Coordinator(plan, prepare(plan, threads=1), busy)
    with ThreadPoolExecutor(1) as executor, pytest.raises(KeyboardInterrupt):
        coordinate(coordinator)
    assert "stopped while no stage ran: the same command resumes" in capsys.readouterr().err
    assert [run.state for run in coordinator.runs.values()] == [State.NOT_RUN]


def test_a_killed_stage_runs_again_and_a_failed_one_stops_what_waits_for_it():
    executor = Told(a=[KILLED, ENDED, 0], b=[1])

    states = coordinated(restore_and_plan(), executor)

    assert states == {"a": State.DONE, "b": State.FAILED, "c": State.DONE, "d": State.NOT_RUN}
    assert sorted(executor.started) == ["a", "a", "a", "b", "c"]


def test_a_stage_that_is_always_killed_is_given_up():
    executor = Told(a=[KILLED] * 100)

    assert coordinated(restore_and_plan(), executor)["a"] is State.FAILED
    assert 5 < executor.started.count("a") < 20


def test_a_kind_of_job_has_options_of_its_own_and_faults_have_their_place():
    cluster = {
        "type": "slurm",
        "options": {"cores": 4, "memory": "16GB", "queue": "all"},
        "setup": ["module load python"],
        "kinds": {"gpu": {"stages": ["a"], "options": {"queue": "gpu"}, "jobs": 2}},
    }
    assert Cluster(**cluster).kind_of("a") == "gpu"
    assert Cluster(**cluster).kind_of("b") == ""
    assert [*cluster_problems({"hpc": cluster}, ("clusters",))] == []
    faults = {
        "hpc": {**cluster, "jobs": 0, "walltime": "1:00:00"},
        "other": {"type": "slrm"},
        "twice": {**cluster, "kinds": {n: {"stages": ["a"]} for n in "pq"}},
        "remote": {"type": "address"},
    }

    found = [*cluster_problems(faults, ("clusters",))]

    assert [(".".join(problem.place[1:]), problem.message) for problem in found] == [
        ("hpc.jobs", "must be >= 1, got 0"),
        (
            "hpc.walltime",
            "is not a parameter of Cluster; it has address, folder, git, jobs, kinds, options, "
            + "remote, setup, tls, type",
        ),
        ("other.type", "must be slurm, sge, kubernetes, address or a dotted path, got 'slrm'"),
        ("twice.kinds", "must have a once"),
        ("remote.address", "is missing"),
    ]


def threads(count: int) -> Executor:
    return ThreadPoolExecutor(count)


def test_an_executor_of_ones_own_is_named_by_its_path(tmp_path):
    own = Cluster(type=f"{__name__}.threads", options={"count": 2})
    with executors(own, tmp_path) as executor_of:
        assert executor_of("a").submit(str, 3).result() == "3"
    with (
        pytest.raises(InputError, match="must be a function that returns"),
        executors(Cluster(type="builtins.dict"), tmp_path),
    ):
        pass


def test_pods_are_asked_for_in_the_words_of_dask_kubernetes(tmp_path, monkeypatch):
    """There is no Kubernetes here: a cluster on this machine takes what its class would take."""
    real = operator.KubeCluster

    class Pods(LocalCluster):
        def __init__(self, **options: Any) -> None:
            inspect.signature(real.__init__).bind(None, **options)
            chosen = {name: options[name] for name in ("image", "worker_command", "n_workers")}
            worker = operator.make_cluster_spec("a", **chosen)["spec"]["worker"]
            assert worker["replicas"] == 0
            (container,) = worker["spec"]["containers"]
            command = ["dask", "worker", "--nthreads", "1", "--resources", "stage=1"]
            assert container["args"][:6] == command
            super().__init__(
                n_workers=1, processes=False, resources={"stage": 1}, dashboard_address=None
            )

        def adapt(self, **options: Any) -> None:
            inspect.signature(real.adapt).bind(None, **options)
            assert options["maximum"] == 3

    monkeypatch.setattr(operator, "KubeCluster", Pods)
    pods = Cluster(type="kubernetes", tls=False, jobs=3, options={"image": "mine"})
    with executors(pods, tmp_path) as executor_of:
        assert executor_of("a").submit(len, "abc").result() == 3

    (problem,) = cluster_problems({"pods": {"type": "kubernetes"}}, ())
    assert problem.place == ("pods", "tls")
    assert problem.message.startswith("must be false: dask-kubernetes does not encrypt")


def test_the_time_left_is_that_of_the_epochs_since_the_training_resumed(tmp_path):
    assert seconds_left(tmp_path, datetime.now(UTC)) == 0
    began = datetime(2026, 1, 1, tzinfo=UTC)
    position = {"phase": 0, "epoch": 4, "batch": 0}
    start = {"event": "phase_start", "position": position, "n_epochs": 10}
    lines = [{"timestamp": (began + timedelta(seconds=n)).isoformat(), **start} for n in (-50, 0)]
    (tmp_path / "run.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ends = [{"timestamp": (began + timedelta(seconds=n)).isoformat()} for n in (-20, 30, 60)]
    (tmp_path / "epochs.jsonl").write_text("".join(json.dumps(end) + "\n" for end in ends))

    # Two epochs of 30 s are done, four are left, and the first of them has run for 10 s.
    assert seconds_left(tmp_path, began + timedelta(seconds=70)) == 110
