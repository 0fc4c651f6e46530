import contextlib
import hashlib
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml

from jemtrack.commands.main import main
from jemtrack.commands.scratch import prune, unfinished_trainings
from jemtrack.errors import InputError
from jemtrack.project.provenance import content_digests, determinants, refuse_edits_since
from jemtrack.project.scratch import locked, mark_finished, resumable

DAY = 24 * 60 * 60


@dataclass(frozen=True)
class Training:
    lr: float = 0.1
    sizes: tuple[int, ...] = (1, 2)
    load_path: str | None = None


@pytest.fixture(autouse=True)
def in_project(tmp_path, monkeypatch) -> Path:
    """Stand in a project of two stages that read a file of data and one of code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    for name in ("data.npz", "code.py"):
        Path(name).write_text(name)
    stage = {"cmd": "train", "deps": ["data.npz", "code.py"], "outs": ["model"]}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"A": stage, "A-B": stage}}))
    set_parameters()
    return tmp_path


def set_parameters(lr: float = 0.1) -> None:
    values = {"params": {"lr": lr, "sizes": [1, 2], "load_path": None, "_cls": "x.Training"}}
    values["recipe"] = {"steps": [{"name": "a", "n_epochs": 2}]}
    Path("params.yaml").write_text(yaml.safe_dump({"A": values, "A-B": values}))


def break_off(stage: str = "A", lr: float = 0.1, step: int = 7) -> Path:
    """Begin a training that an exception ends after `step` steps; give its folder."""
    set_parameters(lr)
    with (
        contextlib.suppress(KeyError),
        resumable(determinants(stage, {"params": Training(lr)}), 0) as kept,
    ):
        state = {"position": (1, 4, step - 1), "weights": torch.zeros(2**18)}
        kept.save({"state": state}, step)
        raise KeyError
    set_parameters()
    return kept.folder


def age(folder: Path, days: float) -> None:
    for path in folder.iterdir():
        os.utime(path, (time.time() - days * DAY,) * 2)


def test_a_training_is_listed_with_what_it_is_good_for():
    folder = break_off()

    (training,) = unfinished_trainings()

    assert (training.folder.resolve(), training.stage) == (folder.resolve(), "A")
    assert training.changed == ()
    assert training.holder is None
    assert training.idle_seconds < 60
    assert training.n_bytes > 2**20
    assert training.progress == "7 steps, phase 2, epoch 5"
    assert training.status == "resumable"


def test_what_a_kill_left_of_a_removal_is_no_training_and_goes_with_the_next(capsys):
    folder = break_off()
    half = folder.rename(folder.with_name(f"{folder.name}.0123.removed"))

    assert main(["scratch"]) == 0
    assert capsys.readouterr().out == "no unfinished trainings\n"
    assert main(["scratch", "prune"]) == 0
    assert not half.exists()


def test_a_table_of_80_columns_lists_trainings(capsys, monkeypatch):
    break_off()
    set_parameters(lr=0.2)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")  # of 80 columns, without styles

    assert main(["scratch"]) == 0

    header, *lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert header.split() == ["STAGE", "PROGRESS", "AGE", "SIZE", "STATUS"]
    assert re.fullmatch(r"A +7 steps, phase 2, epoch 5 +\d s +1.0 MB +not .*", lines[0])
    assert " ".join(" ".join(lines).split()).endswith("params.lr")
    assert max(map(len, lines)) <= 80


def test_without_a_terminal_each_training_is_a_line_with_its_key_if_asked_for(capsys):
    first, other = break_off(), break_off("A-B")

    assert main(["scratch", "--keys"]) == 0

    _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["A", "A-B"]
    assert [line.split()[-2:] for line in lines] == [
        ["resumable", folder.name.rpartition("-")[2]] for folder in (first, other)
    ]


def test_what_keeps_a_training_from_serving_is_named():
    break_off(step=7)
    set_parameters(lr=0.2)
    Path("data.npz").write_text("others")
    Path("code.py").unlink()

    (training,) = unfinished_trainings()

    assert training.changed == ("params.lr", "code.py", "data.npz")
    assert training.status == "not resumable: params.lr, code.py, data.npz"
    Path("dvc.yaml").write_text("stages: {}")
    assert unfinished_trainings()[0].changed == ("the stage A of dvc.yaml",)


@pytest.mark.parametrize("edited", ["params.yaml", "dvc.yaml", "code.py"])
def test_what_is_edited_while_a_stage_starts_is_refused(edited):
    """Which version it has read cannot be known."""
    for path in Path().iterdir():
        while path.stat().st_ctime >= time.time():  # the kernel's clock is coarse
            time.sleep(0.001)
    started = time.time()
    refuse_edits_since(started, "A")
    while Path(edited).stat().st_ctime <= started:
        Path(edited).touch()

    with pytest.raises(InputError, match=f"^{edited} was changed while the stage started"):
        refuse_edits_since(started, "A")


def test_what_dvc_ignores_changes_nothing(in_project, monkeypatch):
    """An editor leaves files beside an open one; a graph may be in a folder below the root."""
    Path(".dvcignore").write_text(".*.sw?\n")
    Path("code").mkdir()
    Path("code/a.py").write_text("a")
    Path("workflows/b").mkdir(parents=True)
    monkeypatch.chdir("workflows/b")
    before = content_digests(["../../code"])

    Path("../../code/.a.py.swp").write_text("open")
    assert content_digests(["../../code"]) == before
    Path("../../code/b.py").write_text("b")
    assert content_digests(["../../code"]) != before


def test_by_default_what_no_longer_serves_is_removed_and_said(capsys):
    old, new = break_off(lr=0.5), break_off()

    assert main(["scratch", "prune"]) == 0

    assert not old.exists()
    assert new.exists()
    assert capsys.readouterr().out == f"removed {old.name} (1.0 MB)\n1.0 MB freed\n"


def test_stages_by_name_or_all_are_removed(capsys):
    first, other = break_off("A"), break_off("A-B")
    with pytest.raises(InputError, match=r"no unfinished training of B; there are some of A, A-B"):
        list(prune(["B"]))

    assert main(["scratch", "prune", "A"]) == 0
    assert (first.exists(), other.exists()) == (False, True)
    assert main(["scratch", "prune", "--all"]) == 0
    assert not other.exists()
    main(["scratch"])
    assert capsys.readouterr().out.endswith("no unfinished trainings\n")


def test_what_a_process_holds_is_never_removed():
    folder = break_off()
    with locked(folder) as lock:
        lock.keep = True
        said = list(prune(every=True))
        assert folder.exists()
        assert unfinished_trainings()[0].holder == os.getpid()

    assert said == [f"left {folder.name}: locked by process {os.getpid()}", "0 bytes freed"]


def test_a_stage_removes_its_other_trainings_after_two_weeks_and_no_sooner():
    old, young, of_another = break_off(lr=0.5), break_off(lr=0.6), break_off("A-B", lr=0.5)
    for folder, days in ((old, 15), (young, 13), (of_another, 15)):
        age(folder, days)
    own = break_off()
    age(own, 99)

    assert break_off() == own
    assert [path.exists() for path in (old, young, of_another, own)] == [False, True, True, True]


def test_two_weeks_later_a_training_that_a_process_holds_is_left():
    folder = break_off(lr=0.5)
    with locked(folder) as lock:
        lock.keep = True
        age(folder, 15)
        break_off()
    assert folder.exists()


def finish(stage: str = "A") -> Path:
    """Train to the end under DVC, which then is to record the outs; give the folder."""
    inputs = determinants(stage, {"params": Training()})
    with resumable(inputs, 0) as kept:
        kept.save({}, 1)
        Path("model").write_text("weights")
    mark_finished(inputs)
    return kept.folder


def record(digest: str, seconds: float = 1) -> None:
    """Write dvc.lock as DVC does, so long after the training's end."""
    out = {"path": "model", "md5": digest}
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": {"A": {"outs": [out]}}}))
    os.utime("dvc.lock", (time.time() + seconds,) * 2)


def mark() -> Path:
    """Find what says that a training has finished."""
    (found,) = Path(".jemtrack").glob("*/finished.json")
    return found


WEIGHTS = hashlib.md5(b"weights").hexdigest()


@pytest.mark.parametrize(
    ("write_lock", "kept"),
    [
        (lambda: None, True),
        (lambda: record("of another model"), True),
        (lambda: record(WEIGHTS, seconds=-9), True),  # of an equal run before
        (lambda: record(WEIGHTS), False),
        (lambda: Path("dvc.lock").write_text("stages:\n  A:\n    outs: ["), True),  # cut short
        (lambda: (record(WEIGHTS), mark().write_text("[1]")), True),  # damaged
        (lambda: (record(WEIGHTS), mark().write_bytes(b"\xff")), True),
    ],
)
def test_a_finished_training_is_kept_until_dvc_has_recorded_it(write_lock, kept, monkeypatch):
    """DVC that is killed before that runs the stage again."""
    monkeypatch.setenv("DVC_STAGE", "A")
    folder = finish()

    write_lock()
    assert len(unfinished_trainings()) == kept

    assert folder.exists() == kept


def with_this_code() -> dict[str, str]:
    """Let a process elsewhere import what this one does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_the_command_needs_no_training_library():
    break_off()
    code = (
        "import sys; from jemtrack.commands.main import main;"
        "main(['scratch']); main(['scratch', 'prune']);"
        "assert not {'torch', 'zntrack', 'dvc', 'numpy'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=with_this_code())
