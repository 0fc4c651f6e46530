"""An edit in the middle of a stage: DVC looks at its inputs when the stage has ended."""

import subprocess
from pathlib import Path

import pytest
from killing import wait_until
from project import STAGES, Project
from stage_runs import SMALL, prepared_file

from jemtrack.project.graph import write_graph
from jemtrack.stages import stage as stage_module
from jemtrack.stages.max_entropy_l1 import MaxEntropyL1
from jemtrack.stages.train_args import TrainArgs

BASE = "src/jemtrack/stages/stage.py"  # on which no stage depends
COMPUTE = "            self.compute()\n\n"
HOLD = """            self.compute()
        while os.environ.get("HELD") == self.name and not os.path.exists("go"):
            open("held", "w").close()
            time.sleep(0.01)

"""
PARAMETERS = {
    "PrepareData": "PrepareData.params.seed",
    "PrepareOutliers": "PrepareOutliers.params.n_images",
    "MeasureRobustness": "MeasureRobustness.params.n_images",
    "DrawSamples": "DrawSamples.params.n_per_class",
    "EvaluateX": "EvaluateX.params.n_bins",
    "Report": "PrepareData.params.seed",  # it shows all parameters
}
# The others differ in what they do, and not in how they are run.
SOME = [
    *((stage, "parameters") for stage in ("PrepareData", "EvaluateX", "MaxEntropyL1")),
    ("MaxEntropyL1", "code"),
    ("MaxEntropyL1", "data"),
]
ALL = [(stage, kind) for stage in STAGES for kind in ("parameters", "code", "data")]
KINDS = [
    pytest.param(*case, marks=[] if case in SOME else [pytest.mark.soak], id="-".join(case))
    for case in ALL
]


@pytest.fixture
def project(whole_reproduced: Project) -> Project:
    """A reproduced project, whose stages wait before they end if the environment asks for it."""
    whole_reproduced.edit(BASE, COMPUTE, HOLD)
    return whole_reproduced


def inputs(project: Project, stage: str) -> list[str]:
    return project.read("dvc.yaml")["stages"][stage]["deps"]


def edit(project: Project, stage: str, kind: str) -> tuple[Path, bytes, str]:
    """Edit an input of the stage; return its path, what it was, and what a message must name."""
    if kind == "parameters":
        path, named = "params.yaml", PARAMETERS.get(stage, f"{stage}.params.batch_size")
    elif kind == "code":
        path = named = next(dep for dep in inputs(project, stage) if dep.endswith(".py"))
    else:
        deps = [dep for dep in inputs(project, stage) if not dep.startswith("src")]
        named = deps[0]
        path = next((p for p in sorted((project.path / named).rglob("*")) if p.is_file()), named)
    edited = project.path / path
    before = edited.read_bytes()
    if kind == "parameters":
        project.set(named, 17)
        return edited, before, "params.yaml" if stage == "Report" else named.partition(".")[2]
    edited.unlink()  # it may be a link into DVC's cache
    edited.write_bytes(before + b"\n")
    return edited, before, named


@pytest.mark.parametrize(("stage", "kind"), KINDS)
def test_an_edit_while_a_stage_runs_is_noticed(stage, kind, project, monkeypatch):
    source = next(d for d in inputs(project, stage) if f"class {stage}(" in text(project, d))
    with (project.path / source).open("a") as module:
        module.write("# A state that DVC's cache has no result of.\n")
    monkeypatch.setenv("HELD", stage)
    repro = ["dvc", "repro", "--single-item", stage]
    process = subprocess.Popen(
        repro,
        cwd=project.path,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_until((project.path / "held").exists, process)
    path, before, named = edit(project, stage, kind)
    (project.path / "go").touch()
    output = process.communicate()[0]

    assert process.returncode != 0, output
    assert f"{stage}: {named} changed while the stage ran" in output
    assert "changed deps" in project.run("dvc", "status", stage)

    path.write_bytes(before)
    monkeypatch.delenv("HELD")
    output = project.run(*repro)
    assert "its result for these inputs was kept, and is used" in output
    assert "up to date" in project.run("dvc", "status", stage)


def test_an_edit_while_a_stage_starts_is_refused(tmp_path, monkeypatch):
    """Under DVC, which may have read another version than the stage."""
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path)
    node = MaxEntropyL1(data=prepared_file(), params=TrainArgs(**SMALL))
    write_graph([node])
    monkeypatch.setenv("DVC_STAGE", node.name)
    monkeypatch.setattr(stage_module, "STARTED", 0.0)

    with pytest.raises(SystemExit, match=r"params\.yaml was changed while the stage started"):
        node.run()


def text(project: Project, path: str) -> str:
    return (project.path / path).read_text() if path.endswith(".py") else ""
