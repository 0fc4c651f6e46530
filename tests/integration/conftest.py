import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from project import Project, new_project


def made_once(name: str, factory: pytest.TempPathFactory, make: Callable[[Path], None]) -> Path:
    """Give a folder that the first worker to ask makes and that the others wait for."""
    folder = factory.getbasetemp()
    # Workers have folders of their own within the run's.
    folder = folder.parent if folder.name.startswith("popen-") else folder
    with FileLock(folder / f"{name}.lock"):
        if not (folder / name).exists():
            shutil.rmtree(folder / f"{name}.unfinished", ignore_errors=True)
            make(folder / f"{name}.unfinished")
            (folder / f"{name}.unfinished").rename(folder / name)
    return folder / name


@pytest.fixture(scope="session")
def _declared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once("declared", tmp_path_factory, lambda path: new_project(path) and None)


@pytest.fixture(scope="session")
def _reproduced(tmp_path_factory: pytest.TempPathFactory, _declared: Path) -> Path:
    def make(path: Path) -> None:
        shutil.copytree(_declared, path, symlinks=True)
        project = Project(path)
        ran = project.repro()
        (path / ".dvc" / "tmp" / "first_repro").write_text("\n".join(ran))
        project.commit("results")

    return made_once("reproduced", tmp_path_factory, make)


@pytest.fixture
def project(tmp_path: Path, _declared: Path) -> Project:
    """A small project of one's own whose graph is written and where nothing has run."""
    shutil.copytree(_declared, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


@pytest.fixture
def reproduced(tmp_path: Path, _reproduced: Path) -> Project:
    """A small project of one's own where `dvc repro` has run and its results are committed."""
    shutil.copytree(_reproduced, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")
