"""`jemtrack run --on`: the stages run on Dask's workers, of which one is killed."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from killing import Process, killed, start, wait_until
from project import Project
from sleeping import JOINT, alive, alive_after, independent, ran, sleeping_project

FILES = {"ca_file": "ca", "cert": "cert", "key": "key"}


def credentials(folder: Path) -> dict[str, str]:
    """Write a certificate for all of them; return Dask's settings that name its files."""
    from distributed import Security

    folder.mkdir()
    own = Security.temporary().get_tls_config_for_role("client")
    for field, name in FILES.items():
        (folder / name).write_text(own[field])
    settings = {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(folder / "ca")}
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        for name in ("cert", "key"):
            field = f"DASK_DISTRIBUTED__COMM__TLS__{role}__{name.upper()}"
            settings[field] = str(folder / name)
    return settings


@contextlib.contextmanager
def dask(project: Project, settings: Mapping[str, str], n_workers: int) -> Iterator[list[int]]:
    """Start a scheduler and workers; yield the ids of their processes, the scheduler's first."""
    file = project.path.parent / "scheduler.json"
    common = ["--scheduler-file", str(file), "--no-dashboard"]
    commands = [["dask_scheduler", "--protocol", "tls", "--port", "0", *common]]
    commands += [["dask_worker", "--nthreads", "1", *common]] * n_workers
    with contextlib.ExitStack() as stack:
        processes = []
        for module, *options in commands:
            process = subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.{module}", *options],
                cwd=project.path.parent,
                env={**project.environment, **settings},
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            stack.enter_context(killed(process))
            wait_until(lambda: file.exists() and file.read_text(), process)
            processes.append(process)
        yield [process.pid for process in processes]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return sleeping_project(tmp_path / "project", independent(3, seconds=3))


def start_run(project: Project, settings: Mapping[str, str]) -> Process:
    """Start `jemtrack run` on the scheduler that `dask` has started."""
    address = project.read("../scheduler.json")["address"]
    assert address.startswith("tls://")
    text = f"clusters:\n  here: {{type: address, address: '{address}'}}\n"
    (project.path / "jemtrack.yaml").write_text(text)
    told = Project(project.path, {**project.packages, **settings}, warm=False)
    return start(told, "jemtrack", "run", "--on", "here")


def test_a_stage_whose_worker_is_killed_runs_on_another(project, tmp_path):
    settings = credentials(tmp_path / "tls")
    with dask(project, settings, n_workers=2), killed(start_run(project, settings)) as process:
        wait_until(lambda: len(ran(project)) == 2, process)
        worker = stages(project)[0].parent()
        below = worker.children(recursive=True)
        worker.kill()
        wait_until(lambda: not alive(below), process)
        output = process.communicate()[0]

    assert process.returncode == 0, output
    assert "4 stages to run on here" in output
    assert "restored 4 stages, ran none in the project itself" in output
    assert len(ran(project)) == 5
    assert (project.path / f"{JOINT}.out").exists()
    assert project.repro() == []


def test_no_stage_survives_its_coordinator(tmp_path):
    project = sleeping_project(tmp_path / "project", independent(1, seconds=60))
    settings = credentials(tmp_path / "tls")
    with (
        dask(project, settings, n_workers=1),
        killed(start_run(project, settings)) as process,
    ):
        wait_until(lambda: ran(project), process)
        (stage,) = stages(project)
        below = [stage, *stage.children(recursive=True)]
        process.kill()
        assert not alive_after(5, below)


def stages(project: Project) -> list[psutil.Process]:
    return [each for each in psutil.process_iter() if is_stage(each, project.path)]


def is_stage(process: psutil.Process, folder: Path) -> bool:
    with contextlib.suppress(psutil.Error):
        named = "jemtrack.project.workers.stage_process" in process.cmdline()
        return named and folder in Path(process.cwd()).parents
    return False


def test_a_cluster_that_is_not_there_is_told(project):
    told = replace(project, warm=True)
    assert "jemtrack.yaml: clusters has no 'here'; it has none" in told.run(
        "jemtrack", "run", "--on", "here", fails=True
    )
    file = project.path / "jemtrack.yaml"
    file.write_text("clusters:\n  here: {type: address, address: 'tcp://127.0.0.1:1'}\n")
    said = told.run("jemtrack", "run", "--on", "here", fails=True)
    assert "jemtrack.yaml:2: clusters.here.address: must begin with tls://" in said
    file.write_text(
        "clusters:\n  here: {type: address, tls: false, address: 'tcp://127.0.0.1:1'}\n"
    )
    soon = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1s"}
    said = told.run("jemtrack", "run", "--on", "here", fails=True, env=soon)
    assert "no Dask scheduler answers at tcp://127.0.0.1:1" in said
