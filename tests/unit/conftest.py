from pathlib import Path

import pytest


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's root with this project's source and nothing else, to write a graph in."""
    (tmp_path / "src").symlink_to(Path(__file__).parents[2] / "src")
    monkeypatch.chdir(tmp_path)
    return tmp_path
