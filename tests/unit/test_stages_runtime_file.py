"""`jemtrack.yaml`: what it may say, where its trackers write, and what is said of its faults."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tracked_run import tell_to_end, whole_run

from jemtrack.errors import InputError
from jemtrack.project.runtime import checkpoint_seconds, runtime_problems, runtime_trackers
from jemtrack.project.scratch import tracked_folder
from jemtrack.train.checkpoint import Checkpoints

RUN = Path("experiment/energy_model/MaxEntropyL2")
ALL = """
trackers:
  - type: jsonl
  - {type: history, path: csv/history.csv}
  - type: tensorboard
  - type: dvclive
  - {type: performance, light: true, interval: 5}
  - {type: sql, url: "sqlite:///runs.db"}
  - type: mlflow
  - {type: wandb, folder: logs}
checkpoint_seconds: 30
"""
FAULTS = """\
checkpoint_seconds: -1
tracker: []
trackers:
  - type: tensorbord
  - {type: mlflow, every: two, experiment: mine}
  - every: 2
  - wandb
"""
SAID = """\
jemtrack.yaml:1: checkpoint_seconds: must be >= 0, got -1
jemtrack.yaml:2: tracker: is not known here; did you mean trackers?
jemtrack.yaml:4: trackers[0].type: must be a tracker, got 'tensorbord'; did you mean tensorboard?
jemtrack.yaml:5: trackers[1].every: must be of type int, got 'two'
jemtrack.yaml:6: trackers[2].type: is missing
jemtrack.yaml:7: trackers[3]: must hold `type` and its options, got 'wandb'
"""
OWN = """
from jemtrack.shared.components import Component, Option
from jemtrack.events.handlers import Tracker
from jemtrack.record.paths import RunPath


class Counting(Tracker):
    path = RunPath(str, "where", default="count")


class NoTracker(Component):
    pass
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_ROOT", "JEMTRACK_CHECKPOINT_SECONDS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write(text: str) -> None:
    Path("jemtrack.yaml").write_text(text)


@pytest.mark.parametrize("text", [None, "", "# trackers:\n#   - type: sql\n", "trackers:\n"])
def test_what_says_nothing_changes_nothing(text):
    if text is not None:
        write(text)

    assert runtime_trackers(RUN) == []
    assert checkpoint_seconds() == 60


def test_a_run_s_own_files_lie_in_its_folder_and_shared_ones_in_the_project():
    write(ALL)

    record, history, board, live, performance, sql, mlflow, wandb = runtime_trackers(RUN)

    assert record.folder == str(RUN / "record")
    assert history.path == str(RUN / "csv/history.csv")
    assert board.folder == str(RUN / "tensorboard")
    assert live.folder == str(RUN / "dvclive")
    assert (performance.path, performance.light) == (str(RUN / "performance.jsonl"), True)
    assert sql.url == "sqlite:///runs.db"
    assert mlflow.uri == "sqlite:///mlflow.db"
    assert wandb.folder == "logs"
    assert checkpoint_seconds() == 30


def test_in_a_copy_of_the_project_they_lead_into_the_project(folder, monkeypatch):
    write(ALL)
    (folder / "copy").mkdir()
    monkeypatch.chdir(folder / "copy")
    monkeypatch.setenv("DVC_ROOT", str(folder))

    record, *_, sql, mlflow, wandb = runtime_trackers(RUN)

    assert record.folder == str(folder / RUN / "record")
    assert sql.url == f"sqlite:///{folder}/runs.db"
    assert mlflow.uri == f"sqlite:///{folder}/mlflow.db"
    assert wandb.folder == str(folder / "logs")
    tell_to_end(sql, whole_run())
    assert (folder / "runs.db").exists()


def test_trainings_that_run_in_copies_at_once_have_folders_of_their_own(folder, monkeypatch):
    checkpoints = Checkpoints(folder / ".jemtrack" / "MaxEntropyL2-0123456789abcdef")
    assert tracked_folder(RUN, checkpoints) == RUN
    monkeypatch.setenv("DVC_ROOT", str(folder))
    assert tracked_folder(RUN, checkpoints) == RUN

    (folder / "copy").mkdir()
    monkeypatch.chdir(folder / "copy")

    assert tracked_folder(RUN, checkpoints) == RUN.with_name("MaxEntropyL2-01234567")
    assert tracked_folder(RUN, None) == RUN


@pytest.mark.parametrize(
    ("url", "placed"),
    [
        ("sqlite:////tmp/runs.db", "sqlite:////tmp/runs.db"),
        ("sqlite+pysqlite:///data/runs.db", "sqlite+pysqlite:////project/data/runs.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("sqlite://", "sqlite://"),
        ("postgresql://user@host/runs", "postgresql://user@host/runs"),
        ("http://localhost:5000", "http://localhost:5000"),
    ],
)
def test_only_a_file_of_sqlite_is_placed(url, placed):
    from jemtrack.record.paths import DatabaseUrl, RunPaths

    option = DatabaseUrl(str, "where", default=url)

    assert option.placed(url, RunPaths(Path("/project/run"), Path("/project"))) == placed


def test_every_fault_is_named_by_its_line():
    write(FAULTS)

    assert runtime_problems() == SAID.splitlines()
    with pytest.raises(InputError, match=r"jemtrack.yaml:7: trackers\[3\]"):
        runtime_trackers(RUN)
    with pytest.raises(InputError, match=r"jemtrack.yaml:1: checkpoint_seconds"):
        checkpoint_seconds()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "- type: sql",
            "jemtrack.yaml:1: must hold checkpoint_seconds, trackers and clusters, got",
        ),
        ("trackers: sql", "jemtrack.yaml:1: trackers: must be a list, got 'sql'"),
        ("trackers: [", "jemtrack.yaml:1: is not valid YAML"),
        ("checkpoint_seconds: .inf", "jemtrack.yaml:1: checkpoint_seconds: must be a finite"),
        (
            "trackers:\n- {type: jsonl, folder: /tmp/record}",
            "jemtrack.yaml:2: trackers[0].folder: must be a path in the folder that each run has",
        ),
        (
            "trackers:\n- {type: tensorboard, folder: ../all}",
            "jemtrack.yaml:2: trackers[0].folder: must be a path in the folder that each run has",
        ),
        (
            "trackers:\n- type: tensorboard\n- {type: tensorboard, every: 5}",
            "jemtrack.yaml:3: trackers[1].folder: is where the 1. tracker writes already",
        ),
        (
            "trackers:\n- {type: mlflow, uri: mlruns}",
            "jemtrack.yaml:2: trackers[0]: Mlflow.uri must name a database or a server",
        ),
        (
            "trackers:\n- {type: own_trackers.Missing}",
            "jemtrack.yaml:2: trackers[0].type: must be the dotted path of a class",
        ),
        (
            "trackers:\n- {type: own_trackers.NoTracker}",
            "jemtrack.yaml:2: trackers[0].type: must be a subclass of Tracker",
        ),
    ],
)
def test_a_fault_is_told_before_anything_runs(folder, monkeypatch, text, said):
    (folder / "own_trackers.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(folder))
    write(text)

    (problem,) = runtime_problems()
    assert problem.startswith(said)


def test_two_trackers_of_a_kind_may_write_to_two_places():
    write("trackers:\n- type: tensorboard\n- {type: tensorboard, folder: coarse, every: 100}")

    assert [tracker.folder for tracker in runtime_trackers(RUN)] == [
        str(RUN / "tensorboard"), str(RUN / "coarse"),
    ]  # fmt: skip


def test_a_tracker_of_ones_own_is_named_by_its_path(folder, monkeypatch):
    (folder / "own_trackers.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(folder))
    write("trackers:\n- type: own_trackers.Counting")

    (tracker,) = runtime_trackers(RUN)

    assert tracker.path == str(RUN / "count")


def test_a_missing_package_is_named_with_its_line_and_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    write("trackers:\n  - type: jsonl\n  - type: mlflow\n")

    with pytest.raises(InputError) as caught:
        runtime_trackers(RUN)

    assert str(caught.value).startswith("jemtrack.yaml:3: trackers[1]: the tracker 'mlflow' needs")
    assert str(caught.value).endswith("pip install 'jemtrack[mlflow]'")


def test_all_faults_are_told_at_once(folder, monkeypatch):
    """Those of the form, of values, of places, and those that only building a tracker shows."""
    (folder / "own_trackers.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("JEMTRACK_CHECKPOINT_SECONDS", "soon")
    write(
        """\
checkpoint_seconds: -1
checkpoint_seconds: 5
colour: red
trackers:
- {type: jsonl, folder: /tmp/record}
- {type: mlflow, uri: mlruns}
- {type: own_trackers.NoTracker}
- {type: tensorboard}
- {type: tensorboard, every: -5}
- {type: tensorbord}
- {type: history, path: ../../params.yaml}
- 3
- {type: tensorboard}
"""
    )

    found = runtime_problems()

    lines = [re.match(r"jemtrack\.yaml:(\d+): ", line) for line in found[:-1]]
    assert [int(line[1]) for line in lines] == [1, 2, 3, 5, 6, 7, 9, 10, 11, 12, 13]
    assert found[-1].startswith("JEMTRACK_CHECKPOINT_SECONDS must be a number of seconds")


def test_the_environment_has_the_last_word_on_checkpoints(monkeypatch):
    write("checkpoint_seconds: 30")
    monkeypatch.setenv("JEMTRACK_CHECKPOINT_SECONDS", "0.5")
    assert checkpoint_seconds() == 0.5

    for wrong in ("soon", "-1", "nan", "inf", ""):
        monkeypatch.setenv("JEMTRACK_CHECKPOINT_SECONDS", wrong)
        with pytest.raises(InputError, match="must be a number of seconds >= 0"):
            checkpoint_seconds()


def test_live_trackers_are_left_out_of_a_replay():
    write("trackers:\n- type: performance\n- type: lines\n- type: progress\n- type: jsonl")

    assert [type(tracker).__name__ for tracker in runtime_trackers(RUN, live=False)] == [
        "JsonLines"
    ]


def test_check_tells_of_the_file(root):
    from jemtrack.commands.check import check
    from jemtrack.workflows.default import write_graph

    write_graph()
    write("trackers: 3")

    with pytest.raises(InputError, match=r"jemtrack\.yaml:1: trackers: must be a list, got 3"):
        check()


def test_reading_it_takes_neither_torch_nor_zntrack():
    write("trackers:\n- type: jsonl")
    code = (
        "import sys; from pathlib import Path;"
        "from jemtrack.project.runtime import runtime_trackers;"
        "runtime_trackers(Path('run')); print({'torch', 'zntrack', 'dvc'} & {*sys.modules})"
    )
    source = str(Path(__file__).parents[2] / "src")

    told = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        check=True,
        text=True,
    ).stdout

    assert told.strip() == "set()"
