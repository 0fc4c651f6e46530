import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
import zntrack

from jemtrack.errors import InputError
from jemtrack.evaluation.measures.calibration_measures import CalibrationMeasures
from jemtrack.jem.objectives.cross_entropy import CrossEntropy
from jemtrack.jem.objectives.max_entropy_l1 import MaxEntropyL1Objective
from jemtrack.stages.evaluate_x import EvaluateX
from jemtrack.stages.max_entropy_l1 import MaxEntropyL1
from jemtrack.stages.prepare_data import PrepareData
from jemtrack.stages.stage import Stage
from jemtrack.workflows import default as workflow


@dataclasses.dataclass
class Holder:
    inner: Any


class Many(Stage):
    parts: Any = zntrack.deps()


def emitted(node: Stage) -> dict[str, Any]:
    return node.state.plugins["DVCPlugin"].convert_to_dvc_yaml()["stages"]


@pytest.mark.parametrize(
    "parts",
    [
        CrossEntropy(),
        [CrossEntropy()],
        {"first": CrossEntropy()},
        Holder(CrossEntropy()),
        [Holder([CrossEntropy()]), CalibrationMeasures()],
    ],
)
def test_a_stage_depends_on_the_code_of_the_objects_it_is_given(root, parts):
    assert "src/jemtrack/jem/objectives/cross_entropy.py" in emitted(Many(parts=parts))["deps"]


def test_an_objective_of_another_kind_brings_its_own_code_beside_the_stage_s(root):
    node = MaxEntropyL1(data=Path("images"), objective=CrossEntropy())

    deps = emitted(node)["deps"]

    assert "src/jemtrack/jem/objectives/cross_entropy.py" in deps
    assert "src/jemtrack/stages/max_entropy_l1.py" in deps


def test_run_times_and_ids_are_no_metrics(root):
    stage = emitted(PrepareData())

    assert "metrics" not in stage
    assert {"nodes/PrepareData/node-meta.json", "nodes/PrepareData/resources.json"} <= {
        *stage["outs"]
    }


def test_a_class_of_a_script_is_refused(root, monkeypatch):
    monkeypatch.setattr(Many, "__module__", "__main__")
    with pytest.raises(InputError, match=r"^Many is defined in a notebook or script"):
        emitted(Many(parts=CrossEntropy()))

    monkeypatch.undo()
    monkeypatch.setattr(Holder, "__module__", "__main__")
    monkeypatch.chdir(root)
    with pytest.raises(InputError, match=r"^Holder is defined in a notebook or script"):
        emitted(Many(parts=Holder(CrossEntropy())))


def test_code_beside_the_package_is_refused(tmp_path, monkeypatch):
    """Only what stands in a package is listed."""
    monkeypatch.chdir(tmp_path)
    Path("src/own").mkdir(parents=True)
    Path("src/own/__init__.py").touch()
    Path("src/beside.py").touch()
    monkeypatch.setattr(Holder, "__module__", "beside")

    with pytest.raises(InputError, match=r"imports beside .* move it into src/own/"):
        emitted(Many(parts=Holder(CrossEntropy())))

    # An installed package may share the first letters of its name with one in src/.
    monkeypatch.setattr(Holder, "__module__", "bes")
    emitted(Many(parts=Holder(CrossEntropy())))


def test_another_package_beside_the_library_is_refused(root, monkeypatch):
    """In jemtrack's own repository, stages run by `zntrack run`, which finds the library alone."""
    (root / "src").unlink()
    for name in ("jemtrack", "own"):
        (root / "src" / name).mkdir(parents=True)
        (root / "src" / name / "__init__.py").touch()
    monkeypatch.setattr(Holder, "__module__", "own.part")

    with pytest.raises(InputError, match=r"imports own\.part .* move it into src/jemtrack/"):
        emitted(Many(parts=Holder(CrossEntropy())))


def test_where_the_library_is_installed_its_stages_depend_on_none_of_its_files(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("src").mkdir()

    stage = emitted(MaxEntropyL1(data=Path("images")))

    path = f"{MaxEntropyL1.__module__}.MaxEntropyL1"
    assert stage["cmd"] == f"jemtrack stage {path} --name MaxEntropyL1"
    assert stage["deps"] == ["images"]
    assert {"versions.yaml": None} in stage["params"]


def test_a_project_of_zntrack_s_own_builds_the_same_stages(root):
    workflow.write_graph()
    ours = {name: yaml.safe_load(Path(name).read_text()) for name in ("dvc.yaml", "params.yaml")}

    project = zntrack.Project()
    with project:
        prepared = PrepareData()
        trainers = [
            MaxEntropyL1(data=prepared.images),
            MaxEntropyL1(data=prepared.images, name="Second"),
        ]
        EvaluateX(data=prepared.images, models=[trainer.model for trainer in trainers])
    project.build()

    stages = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]
    values = yaml.safe_load(Path("params.yaml").read_text())
    assert list(stages) == sorted(["PrepareData", "MaxEntropyL1", "Second", "EvaluateX"])
    assert stages["PrepareData"] == ours["dvc.yaml"]["stages"]["PrepareData"]
    assert stages["MaxEntropyL1"] == ours["dvc.yaml"]["stages"]["MaxEntropyL1"]
    assert values["MaxEntropyL1"] == ours["params.yaml"]["MaxEntropyL1"]
    assert stages["Second"]["deps"] == stages["MaxEntropyL1"]["deps"]
    assert "nodes/Second/model.safetensors" in stages["EvaluateX"]["deps"]
    assert "*id" not in Path("dvc.yaml").read_text()


def test_a_node_that_is_given_whole_brings_its_code_and_not_its_objects(root):
    with zntrack.Project():
        trainer = MaxEntropyL1(data=Path("images"), objective=CrossEntropy())
        reader = Many(parts=trainer)

    deps = emitted(reader)["deps"]

    assert "src/jemtrack/stages/max_entropy_l1.py" in deps
    assert "src/jemtrack/jem/objectives/cross_entropy.py" not in deps
    assert MaxEntropyL1Objective.__module__.replace(".", "/") in "".join(deps)
