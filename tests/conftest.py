import os
import shutil
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
from filelock import FileLock
from project import Project, new_project, write_small_graph

# Before torch is imported: threads of parameters that wait would spin, on cores that others need.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# The first example of a property pays for imports and compilation: no deadline holds for it.
hypothesis.settings.register_profile("thorough", deadline=None)
hypothesis.settings.register_profile("quick", deadline=None, max_examples=10)
hypothesis.settings.load_profile("quick")  # unless pytest --hypothesis-profile names the other


LONGEST = "test_every_command_of_the_pages_runs"
FOLDERS = {Path(__file__).parent / name: name for name in ("soak", "cluster", "single_cell")}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden anew")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what stands in a folder whose tests need more than `make test` has; the longest first.

    That one takes minutes, in which the other workers are to have something to do.
    """
    items.sort(key=lambda item: item.name != LONGEST)
    for item in items:
        for folder, name in FOLDERS.items():
            if folder in item.path.parents:
                item.add_marker(name)


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether the files in tests/golden are to be written instead of compared."""
    return bool(request.config.getoption("--update-golden"))


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
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """`made_once` in this run's folder, by a name and what makes it."""
    return lambda name, make: made_once(name, tmp_path_factory, make)


@pytest.fixture(scope="session")
def _whole_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once("whole_project", tmp_path_factory, lambda path: new_project(path) and None)


@pytest.fixture(scope="session")
def _project(tmp_path_factory: pytest.TempPathFactory, _whole_project: Path) -> Path:
    def make(path: Path) -> None:
        shutil.copytree(_whole_project, path, symlinks=True)
        write_small_graph(Project(path))

    return made_once("project", tmp_path_factory, make)


def reproduce(project: Path, path: Path) -> None:
    """Run the graph in a copy of a project, and commit the results."""
    copy = copied(project, path)
    ran = copy.repro()
    (path / ".dvc" / "tmp" / "first_repro").write_text("\n".join(ran))
    copy.commit("results")


@pytest.fixture(scope="session")
def _whole_reproduced(tmp_path_factory: pytest.TempPathFactory, _whole_project: Path) -> Path:
    return made_once(
        "whole_reproduced", tmp_path_factory, lambda path: reproduce(_whole_project, path)
    )


@pytest.fixture(scope="session")
def _reproduced(tmp_path_factory: pytest.TempPathFactory, _project: Path) -> Path:
    return made_once("reproduced", tmp_path_factory, lambda path: reproduce(_project, path))


@pytest.fixture(scope="session")
def deployed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small trained model, its export and its bundle; not to be changed."""
    import deployed

    return made_once("deployed", tmp_path_factory, deployed.make)


def copied(folder: Path, path: Path) -> Project:
    shutil.copytree(folder, path, symlinks=True)
    return Project(path)


@pytest.fixture
def project(tmp_path: Path, _project: Path) -> Project:
    """A project of one's own where nothing has run: two trainers and their evaluation."""
    return copied(_project, tmp_path / "project")


@pytest.fixture
def reproduced(tmp_path: Path, _reproduced: Path) -> Project:
    """The same where `dvc repro` has run and its results are committed."""
    return copied(_reproduced, tmp_path / "project")


@pytest.fixture
def whole_project(tmp_path: Path, _whole_project: Path) -> Project:
    """A project of one's own where nothing has run: all stages of the main job."""
    return copied(_whole_project, tmp_path / "project")


@pytest.fixture
def whole_reproduced(tmp_path: Path, _whole_reproduced: Path) -> Project:
    """The same where `dvc repro` has run and its results are committed."""
    return copied(_whole_reproduced, tmp_path / "project")
