"""The commit that a report names."""

import subprocess
from pathlib import Path

import pytest

from jemtrack.stages.report import code_version


def git(*arguments: str) -> str:
    by = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.org"]
    done = subprocess.run(["git", *by, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two graphs, in a git repository."""
    monkeypatch.chdir(tmp_path)
    for path in ("src/code.py", "params.yaml", "dvc.lock", "workflows/mnist/params.yaml"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("a: 1\n")
    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message", "all")
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ("src/code.py", ["src/code.py"]),
        ("src/new.py", ["src/new.py"]),
        ("params.yaml", []),
        ("workflows/mnist/params.yaml", []),
        ("dvc.lock", []),
    ],
)
@pytest.mark.parametrize("folder", [".", "workflows/mnist"])
def test_source_files_that_differ_from_the_commit_are_named(
    folder, changed, named, graphs, monkeypatch
):
    """Parameters are all on the page; a graph in a folder of its own shares the project's code."""
    commit = f"commit {git('rev-parse', '--short=12', 'HEAD')}"
    monkeypatch.chdir(graphs / folder)
    assert code_version() == (commit, [])

    (graphs / changed).write_text("a: 2\n")

    assert code_version() == (commit, named)


def test_where_there_is_no_repository_none_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert code_version() == ("unknown: there is no git repository here", [])
