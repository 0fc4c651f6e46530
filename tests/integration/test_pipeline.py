"""The main job under DVC: what runs when, and what can be seen of it."""

import json

from project import MEASURING, STAGES, TRAINERS, Project

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
    """Give the one plot that DVC makes of each file, and of an image the first revision's."""
    found = answer(project, "dvc", "plots", *command)["data"]
    assert all(len(made) == 1 or made[0]["type"] == "image" for made in found.values())
    return {path: made[0] for path, made in found.items()}


def test_all_stages_run_in_order_and_then_rest(whole_reproduced: Project):
    first = (whole_reproduced.path / ".dvc" / "tmp" / "first_repro").read_text().split()
    assert [first[0], first[-1]] == ["PrepareData", "Report"]
    assert sorted(first) == sorted(STAGES)

    assert whole_reproduced.repro() == []

    graph = {
        line for line in whole_reproduced.run("dvc", "dag", "--dot").splitlines() if "->" in line
    }
    assert graph == {
        '"data.dvc" -> "PrepareData";',
        *(f'"PrepareData" -> "{stage}";' for stage in STAGES[1:-1]),
        *(f'"{trainer}" -> "{stage}";' for trainer in TRAINERS for stage in MEASURING),
        '"PrepareOutliers" -> "EvaluateX";',
        *(f'"{stage}" -> "Report";' for stage in STAGES[:-1]),
    }


def test_what_came_out_can_be_seen(whole_reproduced: Project):
    tracked = whole_reproduced.run("git", "ls-files", "nodes").split()
    evaluated = [f"nodes/EvaluateX/metrics/{trainer}.json" for trainer in TRAINERS]
    shown_by_dvc = sorted([*evaluated, *(f"nodes/{trainer}/metrics.json" for trainer in TRAINERS)])
    assert [path for path in tracked if not path.endswith(".gitignore")] == shown_by_dvc
    for path in tracked:
        assert (whole_reproduced.path / path).stat().st_size < 100_000

    shown = answer(whole_reproduced, "dvc", "metrics", "show")[""]["data"]
    assert sorted(shown) == shown_by_dvc
    for path in evaluated:
        measures = {*shown[path]["data"]}
        assert measures == {"accuracy", "nll", "ece", "auroc"}
    trained = whole_reproduced.read("nodes/MaxEntropyL1/metrics.json")
    assert {*trained} == {"valid_nll", "valid_accuracy"}
    lines = whole_reproduced.run("dvc", "metrics", "show").splitlines()
    assert max(map(len, lines)) <= 120

    drawn = plots(whole_reproduced, "show")
    folders = [
        "DrawSamples/energies",
        "EvaluateX/calibration",
        "EvaluateX/energies",
        "EvaluateX/risk_coverage",
        "EvaluateX/roc",
        "MeasureRobustness/curves",
    ]
    assert {path for path in drawn if path.endswith(".csv")} == {
        f"nodes/{folder}/{trainer}.csv" for folder in folders for trainer in TRAINERS
    }
    overlaid = drawn["valid_nll"]["content"]["data"]["values"]
    assert {point["filename"] for point in overlaid} == {f"{t}/history.csv" for t in TRAINERS}
    # The page needs no network: Vega is in it.
    whole_reproduced.run("dvc", "plots", "show", "--out", "drawn")
    page = (whole_reproduced.path / "drawn" / "index.html").read_text()
    assert "window.vegaEmbed=" in page
    assert "<script src=" not in page
    assert '<script type="text/javascript" src=' not in page
    pictures = {path for path in drawn if path.endswith(".png")}
    assert pictures == {f"nodes/DrawSamples/grids/{trainer}.png" for trainer in TRAINERS}

    table = whole_reproduced.run("jemtrack", "show", "--all")
    for stage in STAGES:
        costs = whole_reproduced.read(f"nodes/{stage}/resources.json")
        assert costs["seconds"] >= 0
        assert costs["peak_memory_mib"] > 50
        assert f"{costs['peak_memory_mib']:.1f}" in table
    nll = shown["nodes/EvaluateX/metrics/MaxEntropyL1.json"]["data"]["nll"]
    assert f"{nll:.4f}" in table


def test_a_changed_parameter_runs_its_stage_and_what_follows(whole_reproduced: Project):
    whole_reproduced.set("MaxEntropyL2.params.lr", 0.01)

    ran = whole_reproduced.repro()
    assert [ran[0], ran[-1], sorted(ran[1:-1])] == ["MaxEntropyL2", "Report", sorted(MEASURING)]

    changes = answer(whole_reproduced, "dvc", "metrics", "diff")
    evaluated, trained = (
        "nodes/EvaluateX/metrics/MaxEntropyL2.json",
        "nodes/MaxEntropyL2/metrics.json",
    )
    assert {*changes} == {evaluated, trained}
    assert {"nll", "ece"} <= changes["nodes/EvaluateX/metrics/MaxEntropyL2.json"].keys()

    drawn = plots(whole_reproduced, "diff", "HEAD")
    diagram = drawn["nodes/EvaluateX/calibration/MaxEntropyL2.csv"]
    assert diagram["revisions"] == ["workspace", "HEAD"]
    points = diagram["content"]["data"]["values"]
    assert {point["rev"] for point in points} == {"workspace", "HEAD"}
    # The template is known by what DVC's own ones do not draw.
    template = (whole_reproduced.path / ".dvc" / "plots" / "confidence.json").read_text()
    assert diagram["content"].keys() >= json.loads(template).keys() - {"title"}
    assert "gap" in points[0]
    curve = drawn["valid_nll"]["content"]
    assert {point["rev"] for point in curve["data"]["values"]} == {"workspace", "HEAD"}


def test_changed_code_runs_the_stages_that_use_it(reproduced: Project):
    watchers = ("commands/main.py", "project/merge.py", "recipe/check.py", "trackers/console.py")
    for path in (*watchers, "workflows/default.py"):
        reproduced.edit(f"src/jemtrack/{path}", '"""\n', '"""\n# changed\n')
    (reproduced.path / "README.md").write_text("changed")
    reproduced.run("jemtrack", "data", "mnist5k")
    assert reproduced.repro() == []

    reproduced.edit("src/jemtrack/evaluation/models/comparison.py", "import numpy", "import numpy ")
    assert reproduced.repro() == ["EvaluateX"]

    objective = "src/jemtrack/jem/objectives/max_entropy_l1.py"
    reproduced.edit(objective, "deviation_B.abs()", "5 * deviation_B.abs()")
    assert reproduced.repro() == ["MaxEntropyL1", "EvaluateX"]


def test_changed_words_of_the_report_run_the_report_alone(whole_reproduced: Project):
    summary = "src/jemtrack/evaluation/report/summary.py"
    whole_reproduced.edit(summary, "Most accurate", "Most correct")

    assert whole_reproduced.repro() == ["Report"]
    assert "Most correct" in (whole_reproduced.path / "nodes/Report/report.html").read_text()


def test_a_failing_stage_shows_its_error(reproduced: Project):
    (reproduced.path / "src" / "jemtrack" / "jem" / "failing.py").write_text(OBJECTIVE)
    reproduced.run("python", "-c", DECLARE)

    said = reproduced.run("dvc", "repro", "XEntropyAugmented", fails=True)

    assert "ValueError: boom" in said
    assert "failing.py" in said
    assert "failed to reproduce 'XEntropyAugmented'" in said
