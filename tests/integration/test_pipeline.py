"""The main job under DVC: what runs when, and what can be seen of it."""

import json

from project import STAGES, TRAINERS, Project

MEASURES = {"accuracy", "nll", "brier", "ece", "ece_bin_centre"}
OBJECTIVE = '''"""An objective that fails."""

from jemtrack.jem.objectives.cross_entropy import CrossEntropy
from jemtrack.parameters import parameters


@parameters
class Failing(CrossEntropy):
    """Raises."""

    def __call__(self, models, batch):
        """Raise."""
        raise ValueError("boom")
'''
DECLARE = """
from jemtrack.jem.failing import Failing
from jemtrack.stages.x_entropy_augmented import XEntropyAugmented

images = "nodes/PrepareData/images.safetensors"
XEntropyAugmented(data=images, objective=Failing()).write_graph()
"""


def answer(project: Project, *command: str):
    return json.loads(project.run(*command, "--json").splitlines()[-1])


def plots(project: Project, *command: str) -> dict[str, dict]:
    """Give the one plot that DVC makes of each file."""
    found = answer(project, "dvc", "plots", *command)["data"]
    assert all(len(made) == 1 for made in found.values())
    return {path: made[0] for path, made in found.items()}


def test_five_stages_run_in_order_and_then_rest(reproduced: Project):
    first = (reproduced.path / ".dvc" / "tmp" / "first_repro").read_text().split()
    assert [first[0], first[-1]] == ["PrepareData", "EvaluateX"]
    assert sorted(first) == sorted(STAGES)

    assert reproduced.repro() == []

    graph = {line for line in reproduced.run("dvc", "dag", "--dot").splitlines() if "->" in line}
    assert graph == {
        '"data.dvc" -> "PrepareData";',
        *(f'"PrepareData" -> "{stage}";' for stage in STAGES[1:]),
        *(f'"{trainer}" -> "EvaluateX";' for trainer in TRAINERS),
    }


def test_what_came_out_can_be_seen(reproduced: Project):
    tracked = reproduced.run("git", "ls-files", "nodes").split()
    assert [path for path in tracked if not path.endswith(".gitignore")] == sorted(
        f"nodes/{stage}/metrics.json" for stage in STAGES[1:]
    )

    shown = answer(reproduced, "dvc", "metrics", "show")[""]["data"]
    assert sorted(shown) == sorted(f"nodes/{stage}/metrics.json" for stage in STAGES[1:])
    evaluated = shown["nodes/EvaluateX/metrics.json"]["data"]
    assert {trainer: evaluated[trainer].keys() for trainer in evaluated} == dict.fromkeys(
        TRAINERS, MEASURES
    )
    trained = shown["nodes/MaxEntropyL1/metrics.json"]["data"]
    assert {"train_loss", "valid_nll", "valid_accuracy"} <= trained.keys()

    drawn = plots(reproduced, "show")
    assert sorted(drawn) == sorted(
        [f"nodes/{trainer}/history.csv" for trainer in TRAINERS]
        + [f"nodes/EvaluateX/calibration/{trainer}.csv" for trainer in TRAINERS]
    )

    table = reproduced.run("jemtrack", "show")
    for stage in STAGES:
        costs = reproduced.read(f"nodes/{stage}/resources.json")
        assert costs["seconds"] >= 0
        assert costs["peak_memory_mib"] > 50
        assert f"{costs['peak_memory_mib']:.1f}" in table
    assert f"{evaluated['MaxEntropyL1']['nll']:.4f}" in table


def test_a_changed_parameter_runs_its_stage_and_what_follows(reproduced: Project):
    reproduced.set("MaxEntropyL2.params.lr", 0.01)

    assert reproduced.repro() == ["MaxEntropyL2", "EvaluateX"]

    changes = answer(reproduced, "dvc", "metrics", "diff")
    assert sorted(changes) == ["nodes/EvaluateX/metrics.json", "nodes/MaxEntropyL2/metrics.json"]
    changed = changes["nodes/EvaluateX/metrics.json"].keys()
    assert {"MaxEntropyL2.nll", "MaxEntropyL2.ece"} <= changed
    assert changed <= {f"MaxEntropyL2.{measure}" for measure in MEASURES}
    assert not [name for name in changes["nodes/MaxEntropyL2/metrics.json"] if "second" in name]

    drawn = plots(reproduced, "diff", "HEAD")
    diagram = drawn["nodes/EvaluateX/calibration/MaxEntropyL2.csv"]
    assert diagram["revisions"] == ["workspace", "HEAD"]
    points = diagram["content"]["data"]["values"]
    assert {point["rev"] for point in points} == {"workspace", "HEAD"}
    # The template is known by what DVC's own ones do not draw.
    template = (reproduced.path / ".dvc" / "plots" / "confidence.json").read_text()
    assert diagram["content"].keys() >= json.loads(template).keys() - {"title"}
    assert "gap" in points[0]
    curve = drawn["nodes/MaxEntropyL2/history.csv"]["content"]
    assert {point["rev"] for point in curve["data"]["values"]} == {"workspace", "HEAD"}


def test_changed_code_runs_the_stages_that_use_it(reproduced: Project):
    for path in ("cli.py", "workflow.py", "graph/merge.py", "graph/plugin.py"):
        reproduced.edit(f"src/jemtrack/{path}", '"""\n', '"""\n# changed\n')
    (reproduced.path / "README.md").write_text("changed")
    reproduced.run("jemtrack", "data", "mnist5k")
    assert reproduced.repro() == []

    reproduced.edit("src/jemtrack/evaluation/calibration.py", "import numpy", "import numpy ")
    assert reproduced.repro() == ["EvaluateX"]

    objective = "src/jemtrack/jem/objectives/max_entropy_l1.py"
    reproduced.edit(objective, "deviation_B.abs()", "5 * deviation_B.abs()")
    assert reproduced.repro() == ["MaxEntropyL1", "EvaluateX"]


def test_a_failing_stage_shows_its_error(reproduced: Project):
    (reproduced.path / "src" / "jemtrack" / "jem" / "failing.py").write_text(OBJECTIVE)
    reproduced.run("python", "-c", DECLARE)

    said = reproduced.run("dvc", "repro", "XEntropyAugmented", fails=True)

    assert "ValueError: boom" in said
    assert "failing.py" in said
    assert "failed to reproduce 'XEntropyAugmented'" in said
