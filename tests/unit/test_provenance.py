"""The commit that a report names."""

import subprocess
from pathlib import Path

import pytest

from jemtrack.project.provenance import provenance


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
    ("changed", "of_main", "of_other"),
    [
        ("src/code.py", True, True),
        ("params.yaml", True, False),
        ("workflows/mnist/params.yaml", False, True),
        ("dvc.lock", False, False),
    ],
)
def test_what_a_graph_runs_by_makes_it_another_than_the_commit(
    changed, of_main, of_other, graphs, monkeypatch
):
    commit = git("rev-parse", "--short=12", "HEAD")
    assert provenance() == {"commit": commit}

    Path(changed).write_text("a: 2\n")

    assert provenance() == {"commit": f"{commit}, with changes" if of_main else commit}
    monkeypatch.chdir(graphs / "workflows" / "mnist")
    assert provenance() == {"commit": f"{commit}, with changes" if of_other else commit}


def test_where_there_is_no_repository_none_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert provenance() == {"commit": "not known: there is no git repository here"}
