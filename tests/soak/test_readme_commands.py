"""The README, the tutorial and the guides, typed in as they stand."""

import os
import re
import shutil
import signal

import numpy as np
import yaml
from killing import killed, start, wait_for_steps
from project import ROOT, STAGES, TRAINERS, Project

PAGES = [
    "README.md",
    *(f"docs/{name}.md" for name in ("tutorial", "experiments", "resume", "own_trainer", "data")),
]
TEXT = "\n".join((ROOT / page).read_text() for page in PAGES)
BLOCK = re.compile(r"(?:<!-- (?P<note>[^>]+) -->\n\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.S)


def blocks(language: str) -> list[tuple[str, str]]:
    """Give the pages' code of a language, each block with the note that stands before it."""
    found = [m.groupdict(default="") for m in BLOCK.finditer(TEXT)]
    return [(m["note"], m["text"]) for m in found if m["language"] == language]


def add_the_trainer(project: Project) -> None:
    files = re.findall(r"`(src/jemtrack/\S+\.py)`:\n\n```python\n(.*?)```", TEXT, re.S)
    assert len(files) == 2
    for name, text in files:
        (project.path / name).write_text(text)
    project.edit(
        "src/jemtrack/workflows/default.py",
        "        MaxEntropyL2(data=prepared.images),\n",
        "        MaxEntropyL2(data=prepared.images),\n"
        "        MaxEntropyHuber(data=prepared.images),\n",
    )
    project.edit(
        "src/jemtrack/workflows/default.py",
        "from jemtrack.stages.max_entropy_l1 ",
        "from jemtrack.stages.max_entropy_huber import MaxEntropyHuber\n"
        "from jemtrack.stages.max_entropy_l1 ",
    )


def make_images(project: Project) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (120, 8, 8, 3), dtype=np.uint8)
    np.savez(project.path / "mine.npz", images=images, labels=np.arange(120) % 10)


def follow(note: str, project: Project) -> None:
    """Do what the pages tell in words."""
    if edit := re.fullmatch(r"edit: (\S+) = (.*)", note):
        project.set(edit[1], yaml.safe_load(edit[2]))
        if edit[2] == "mine":
            project.set("PrepareData.params.n_valid", 20)
    elif note == "add a trainer":
        add_the_trainer(project)
    elif note == "make mine.npz":
        make_images(project)
    else:
        assert note in {"", "interrupt"}


def press_ctrl_c(project: Project, command: str) -> None:
    """Interrupt a command, and its stage, once some steps of the training are saved."""
    with killed(start(project, *command.split())) as process:
        wait_for_steps(project, 10, process)
        os.killpg(process.pid, signal.SIGINT)
        assert "is saved: `dvc repro`" in process.communicate()[0]


def test_every_command_of_the_pages_runs(whole_project: Project):
    """In order, in one project; an environment that is there already stands in for a new one.

    What `make` runs starts cold, and so does the command that is interrupted; others start warm.
    """
    # The environment belongs to the checkout: whatever its age, the copy is not to renew it.
    installed = (ROOT / ".venv" / ".installed").stat().st_mtime_ns
    for name in ("Makefile", "pyproject.toml", "pdm.lock", "pdm.local.lock"):
        shutil.copy(ROOT / name, whole_project.path / name)
        os.utime(whole_project.path / name, ns=(installed, installed))
    (whole_project.path / ".venv").symlink_to(ROOT / ".venv")
    (whole_project.path / ".venv-pdm").symlink_to(ROOT / ".venv-pdm")
    said = {}
    for note, text in blocks("bash"):
        if text.strip() == "make test":
            continue  # it is running
        follow(note, whole_project)
        if note == "interrupt":
            press_ctrl_c(whole_project, text.strip())
            continue
        for command in text.strip().splitlines():
            said[command] = said.get(command, "") + whole_project.run("bash", "-c", command)
            if command == "make repro":
                whole_project.commit("results")

    assert all(f"Running stage '{stage}'" in said["make repro"] for stage in STAGES)
    assert "accuracy" in said["make repro"]
    assert "metrics/MaxEntropyL2.json" in said["dvc metrics diff"]
    assert "resumable" in said["jemtrack scratch"]
    assert "resumes at" in said["dvc repro"]
    assert "metrics/XEntropyAugmented.json" in said["dvc metrics diff HEAD lr3"]
    assert "Running stage 'MaxEntropyHuber'" in said["dvc repro"]
    evaluated = {path.stem for path in (whole_project.path / "nodes/EvaluateX/metrics").iterdir()}
    assert evaluated == {*TRAINERS, "MaxEntropyHuber"}
