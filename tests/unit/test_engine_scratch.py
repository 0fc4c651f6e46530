import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from jemtrack.project.provenance import scratch_key
from jemtrack.project.scratch import (
    lock_holder,
    locked,
    remove_leftovers,
    remove_unless_locked,
)

CHECKPOINT = f"000001-step1-{'0' * 32}.checkpoint"
HOLD = """
    import sys, time
    from pathlib import Path
    from jemtrack.project.scratch import locked

    with locked(Path(sys.argv[1])):
        (Path(sys.argv[1]) / "state").write_text("half")
        print("has it", flush=True)
        sys.stdin.readline()
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    """Start a process that holds the folder until it is told to end."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLD), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_key_depends_on_everything_in_any_order():
    assert scratch_key({"a": 1, "b": [2.0]}) == scratch_key({"b": [2.0], "a": 1})
    assert scratch_key({"a": 1}) != scratch_key({"a": 2})


def test_what_was_finished_is_removed_and_what_was_not_stays(tmp_path):
    """What has no checkpoint cannot be resumed."""
    folder = tmp_path / "key"

    def break_off() -> None:
        with locked(folder):
            (folder / CHECKPOINT).write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert (folder / CHECKPOINT).exists()

    with locked(folder):
        pass
    assert not folder.exists()


def test_a_kill_while_it_is_removed_leaves_nothing_that_looks_whole(tmp_path, monkeypatch):
    folder = tmp_path / "key"

    def killed(path: Path, ignore_errors: bool = False) -> None:
        if path.exists():
            (path / "state").unlink()
            raise KeyboardInterrupt

    def finish() -> None:
        with locked(folder):
            (folder / "state").write_text("whole")

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            finish()
    assert not folder.exists()

    remove_leftovers(tmp_path)
    finish()
    assert not [*tmp_path.iterdir()]


def test_a_killed_holder_leaves_its_state_and_no_lock(tmp_path):
    holder = hold(tmp_path / "key")
    holder.stdout.readline()
    holder.kill()
    holder.communicate()

    with locked(tmp_path / "key"):
        assert (tmp_path / "key" / "state").read_text() == "half"


def test_the_second_waits_and_finds_what_the_first_made(tmp_path):
    first, folder = hold(tmp_path / "key"), tmp_path / "key"
    first.stdout.readline()
    second = hold(folder)
    time.sleep(2)
    assert second.poll() is None

    first.communicate("end\n")

    assert second.stdout.readline() == "has it\n"
    assert (folder / "state").exists()
    said = second.communicate("end\n")[1]
    assert f"process {first.pid} is running this training: waiting for it" in said
    assert (first.returncode, second.returncode) == (0, 0)
    assert not folder.exists()


def test_a_folder_is_removed_when_nobody_holds_it(tmp_path):
    folder = tmp_path / "key"
    process = hold(folder)
    process.stdout.readline()
    assert lock_holder(folder) == process.pid
    assert not remove_unless_locked(folder)
    assert (folder / "state").exists()

    process.kill()
    process.communicate()

    assert lock_holder(folder) is None
    assert remove_unless_locked(folder)
    assert not list(tmp_path.iterdir())


def test_many_that_come_and_go_hold_it_one_at_a_time(tmp_path):
    """Each one removes the folder as others open it: none fails, none holds what is gone."""
    code = """
        import random, sys, time
        from pathlib import Path
        from jemtrack.project.scratch import locked

        folder = Path(sys.argv[1])
        for _ in range(300):
            with locked(folder):
                (folder / "alone").touch(exist_ok=False)
                (folder / "alone").unlink()
            time.sleep(random.random() * 3e-4)  # or they wait for one another, and none removes it
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "key")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [process.communicate()[1] for process in processes]

    assert [process.returncode for process in processes] == [0] * 4, said
    assert not list(tmp_path.iterdir())
