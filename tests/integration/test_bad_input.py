"""What is wrong is said once, by its place, before anything is trained, and nothing is lost."""

import contextlib
import gzip
import hashlib
import io
import re

import numpy as np
import pytest
import yaml
from project import Project
from safetensors.torch import save_file
from torch import zeros

from jemtrack.commands.main import main
from jemtrack.data.sources.registry import SOURCES

# The ends of the commands: what DVC and ZnTrack print around a message, and a stage about its work.
AROUND = (
    r"^(Running stage|Stage '|> zntrack|ERROR: failed|'data\.dvc'|Verifying|WARNING: |"
    "Reading data|Preparing outliers|$)"
)


def refused(project: Project, *targets: str) -> list[str]:
    """Run `dvc repro`, which must fail in the first stage that runs; give what that stage says."""
    output = project.run("dvc", "repro", *targets, fails=True)
    (stage,) = re.findall(r"^Running stage '(\w+)':", output, re.M)
    assert not re.search("Traceback|╭|Epoch", output)
    lines = [line for line in output.splitlines() if not re.match(AROUND, line)]
    return [line.removeprefix(f"{stage}: ") for line in lines]


def jemtrack(project: Project, *arguments: str, status: int = 0) -> str:
    """Run the command `jemtrack` within this process; give what it prints."""
    if arguments == ("graph",):
        return project.run("jemtrack", "graph")  # which is the project's own, of fewer stages
    printed = io.StringIO()
    with (
        contextlib.chdir(project.path),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
    ):
        assert main(arguments) == status
    return printed.getvalue()


def checked(project: Project) -> list[str]:
    """Give the problems that `jemtrack check` finds."""
    return jemtrack(project, "check", status=1).removeprefix("jemtrack: ").splitlines()


def assert_says(line: str, expected: str) -> None:
    """Compare; `...` in what is expected stands for anything."""
    pattern = ".*".join(map(re.escape, expected.split("...")))
    assert re.fullmatch(pattern, line), f"{line}\nis not\n{expected}"


def set_all(project: Project, **values: object) -> None:
    for key, value in values.items():
        project.set(key.replace("__", "."), value)


def outs(project: Project) -> dict[str, str]:
    """Give the digest of every file under nodes/."""
    return {
        path.relative_to(project.path).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((project.path / "nodes").rglob("*"))
        if path.is_file()
    }


def restored(project: Project) -> list[str]:
    """Take back all changes of files under git and run `dvc repro`; name the stages that ran."""
    project.run("git", "checkout", "--quiet", ".")
    return project.repro()


def test_all_faults_of_params_yaml_stop_the_first_stage(whole_project: Project):
    content = whole_project.read("params.yaml")
    content["PrepareData"]["params"]["seed"] = 2**32
    content["XEntropyAugmented"]["params"] |= {
        "experiment": 7,
        "width": None,
        "norm": "bacth",
        "lr": "0.1",
        "batch_size": 2.5,
        "learning_rate": 0.1,
    }
    content["XEntropyAugmented"]["objective"]["entropy_weight"] = 3.0
    content["MaxEntropyL1"]["parms"] = content["MaxEntropyL1"].pop("params")
    content["MaxEntropyL2"]["params"] |= {"clf_only": 1, "lr": -0.1, "n_epochs": True}
    content["MaxEntropyL2"]["objective"]["_cls"] = "jemtrack.Mine"
    content["EvaluateX"]["operation"] = None
    (whole_project.path / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))

    said = refused(whole_project)

    expected = [
        "MaxEntropyL1.parms is not a field of the stage; did you mean params?",
        "MaxEntropyL1.params is missing: `jemtrack graph` writes it",
        "EvaluateX.operation must hold names and values, got null",
        "PrepareData.params.seed must be < 4294967296, got 4294967296",
        "XEntropyAugmented.params.experiment must be text, got 7; put it into quotes",
        "XEntropyAugmented.params.lr must be a number, got '0.1'; leave out the quotes",
        "XEntropyAugmented.params.batch_size must be a whole number, got 2.5",
        "XEntropyAugmented.params.width must be a whole number, got null",
        "XEntropyAugmented.params.norm must be one of 'none', 'batch', 'instance', 'layer' or "
        "'act', got 'bacth'",
        "XEntropyAugmented.params.learning_rate is not a parameter of TrainArgs; it has ... lr,...",
        "XEntropyAugmented.objective.entropy_weight is not a parameter of CrossEntropy; "
        "it has none",
        "MaxEntropyL2.params.lr must be > 0, got -0.1",
        "MaxEntropyL2.params.n_epochs must be a whole number, got true",
        "MaxEntropyL2.params.clf_only must be true or false, got 1",
        "MaxEntropyL2.objective._cls must be jemtrack....MaxEntropyL2Objective, got 'jemtrack.Mine'"
        "; another class is given in Python...",
    ]
    assert len(said) == len(expected)
    for line, words in zip(said, expected, strict=True):
        assert_says(line, f"params.yaml: {words}")
    assert whole_project.run("jemtrack", "check", fails=True).splitlines()[1:] == said[1:]
    assert outs(whole_project) == {}


def test_a_rule_in_code_stops_the_first_stage_that_has_the_code(project: Project):
    set_all(project, MaxEntropyL2__params__depth=11)
    project.run("dvc", "repro", "PrepareData")

    (said,) = refused(project)

    words = "MaxEntropyL2.params.depth must be 6n + 4 ... the nearest are 10 and 16, got 11"
    assert_says(said, f"params.yaml: {words}")
    assert checked(project) == [said]
    assert not (project.path / "nodes/MaxEntropyL1/model.safetensors").exists()


def test_a_broken_params_yaml_is_named_and_can_be_written_anew(project: Project):
    file = project.path / "params.yaml"
    before = project.read("params.yaml")
    for content, by_dvc, by_check in [
        ("a: [1,", "params.yaml', YAML file structure is corrupted", ":1: is not valid YAML:..."),
        ("- 1", "got 'list' in file 'params.yaml'", " must hold a mapping of stages, got [1]"),
        ("", "'PrepareData' are missing from 'params.yaml'", " must hold ..., got null"),
        (
            None,
            "'PrepareData' are missing from 'params.yaml'",
            " is missing: `jemtrack graph` writes it",
        ),
    ]:
        file.write_text(content) if content is not None else file.unlink()

        output = project.run("dvc", "repro", fails=True)
        assert by_dvc in output
        assert not re.search("Traceback|╭|Running stage", output)
        assert_says(checked(project)[0], f"params.yaml{by_check}")
    jemtrack(project, "graph")
    assert project.read("params.yaml").keys() == before.keys()

    content = {name: values for name, values in before.items() if name != "MaxEntropyL2"}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    assert refused(project) == ["params.yaml: MaxEntropyL2 is missing: `jemtrack graph` writes it"]


def test_a_fault_loses_nothing(reproduced: Project):
    before = outs(reproduced)

    reproduced.set("MaxEntropyL2.params.lr", "fast")
    assert refused(reproduced) == [
        "params.yaml: MaxEntropyL2.params.lr must be a number, got 'fast'"
    ]
    assert not (reproduced.path / "nodes/MaxEntropyL2/metrics.json").exists()
    assert restored(reproduced) == []
    assert outs(reproduced) == before

    # The same without git, the value mended by hand.
    reproduced.set("MaxEntropyL2.params.lr", -1.0)
    refused(reproduced)
    lr = reproduced.read("zntrack.json")["MaxEntropyL2"]["_written"]["params"]["params"]["lr"]
    reproduced.set("MaxEntropyL2.params.lr", lr)
    assert reproduced.repro() == []
    assert outs(reproduced) == before

    # And by DVC's checkout, which brings all but what git holds.
    reproduced.set("PrepareData.params.n_classes", 5)
    assert refused(reproduced) == [
        "params.yaml: PrepareData.params.n_classes must be 10 for digits, got 5"
    ]
    reproduced.run("git", "checkout", "--quiet", ".")
    reproduced.run("dvc", "checkout")
    assert outs(reproduced) == before
    assert reproduced.repro() == []


def test_what_only_the_data_tell_stops_the_first_trainer(project: Project):
    set_all(project, PrepareData__params__n_valid=1500)
    said = refused(project)
    assert_says(*said, "params.yaml: PrepareData.params.n_valid must be 0 to 1428, ..., got 1500")
    assert checked(project) == said

    set_all(
        project,
        PrepareData__params__n_valid=0,
        MaxEntropyL2__params__labels_per_class=500,
        MaxEntropyL1__params__save_dir="params.yaml/logs",
        EvaluateX__params__split="valid",
    )
    project.run("dvc", "repro", "PrepareData")
    said = refused(project)
    assert said == [
        "params.yaml: MaxEntropyL1.params.save_dir must be a folder, but params.yaml is a file",
        "params.yaml: MaxEntropyL2.params.labels_per_class must be <= 139, the training images of "
        "the rarest class, got 500",
        "params.yaml: EvaluateX.params.split must name images that there are, got 'valid': the "
        "data were prepared with n_valid 0",
    ]
    assert checked(project) == said


def test_what_a_late_stage_would_refuse_stops_the_first_one(whole_project: Project):
    """A misspelt corruption or set of outliers must not be found when all is trained."""
    set_all(
        whole_project,
        MeasureRobustness__params__corruptions=["blur", "blurr"],
        PrepareOutliers__params__partners=["uniform", "lettres"],
        DrawSamples__params__n_per_class=10**15,
    )
    known = "'gaussian_noise', 'impulse_noise', 'blur', ..., 'translation' or 'occlusion'"
    (said,) = refused(whole_project)
    assert_says(
        said, f"params.yaml: MeasureRobustness.params.corruptions.1 must be one of {known}, got ..."
    )

    set_all(whole_project, MeasureRobustness__params__corruptions=["blur"])
    whole_project.run("dvc", "repro", "PrepareData")
    said = refused(whole_project)
    assert_says(
        said[0], "params.yaml: PrepareOutliers.params.partners must be of ...: lettres is none ..."
    )
    assert_says(said[1], "params.yaml: DrawSamples.params.n_per_class must be smaller, got 1000...")
    assert checked(whole_project) == said
    assert not any(whole_project.path.glob("nodes/*/model.safetensors"))


def test_what_was_accepted_without_a_word(project: Project):
    content = project.read("params.yaml")
    file = project.path / "params.yaml"
    text = file.read_text()
    for new, expected in [
        (text + "MaxEntropyL1: {}\n", "params.yaml:...: MaxEntropyL1: stands twice, first in ..."),
        (
            text + "MaxEntropyL3: {lr: 1}\n",
            "params.yaml: MaxEntropyL3 is no stage of dvc.yaml, ...",
        ),
        # A part of the name of a stage, and a word that describes one.
        (text + "Entropy: {lr: 1}\n", "params.yaml: Entropy is no stage of dvc.yaml, ..."),
        (text + "classifier: {lr: 1}\n", "params.yaml: classifier is no stage of dvc.yaml, ..."),
        (text.replace("batch_size: 256", "batch_size: 010"), "params.yaml:...: ... got 010: ..."),
        (
            text.replace("experiment: energy_model", "experiment: yes"),
            "params.yaml:...: MaxEntropyL1.params.experiment: ... got yes: ...",
        ),
        (text.replace("sigma: 0.03", "sigma: 1e308"), "params.yaml:...sigma: must be within ..."),
        (text.replace("load_path: null", 'load_path: ""'), "...load_path must not be empty, ..."),
        (
            yaml.safe_dump({**content, "MaxEntropyL1": {**content["MaxEntropyL1"], "params": {}}}),
            "params.yaml: MaxEntropyL1.params must hold names and values, got {}",
        ),
    ]:
        file.write_text(new)
        assert_says(checked(project)[0], expected)


def test_a_broken_file_is_named_by_the_real_programs(project: Project):
    """In the test's own process a crash of the C library would end the tests."""
    for name in ("params.yaml", "dvc.yaml", "jemtrack.yaml", "zntrack.json"):
        path = project.path / name
        before = path.read_text() if path.exists() else None
        path.write_text("[" * 100_000)
        (said,) = checked(project)
        assert re.search("nested (too deeply|deeper than 50 levels)", said)
        path.write_text(before) if before else path.unlink()
    params = project.path / "params.yaml"
    params.unlink()
    params.mkdir()
    assert checked(project) == ["params.yaml cannot be read: Is a directory"]


def test_another_known_data_set(reproduced: Project):
    set_all(reproduced, PrepareData__params__dataset="mnits")
    (said,) = refused(reproduced)
    assert said.startswith("params.yaml: PrepareData.params.dataset: mnits is none of the known ")
    assert all(name in said for name in SOURCES)
    assert "did you mean mnist?" in said
    assert "`jemtrack data mnits --from mnits.npz`" in said
    assert checked(reproduced) == [said]

    set_all(reproduced, PrepareData__params__dataset="mnist5k")
    assert refused(reproduced) == [
        "mnist5k: data/mnist5k/mnist_5k.csv.gz is missing. Mend it with `jemtrack data mnist5k`"
    ]
    reproduced.run("git", "checkout", "--quiet", ".")
    jemtrack(reproduced, "data", "mnist5k")
    assert reproduced.repro() == []
    reproduced.commit("more data")

    change = "PrepareData.params.dataset=mnist5k"
    reproduced.run("dvc", "exp", "run", "-S", change, "PrepareData")
    assert "dvc.yaml: PrepareData does not depend on data/mnist5k: " in checked(reproduced)[0]
    assert (reproduced.path / "nodes/PrepareData/images.safetensors").stat().st_size > 5000 * 784
    jemtrack(reproduced, "graph")
    deps = reproduced.read("dvc.yaml")["stages"]["PrepareData"]["deps"]
    assert [dep for dep in deps if dep.startswith("data")] == ["data/mnist5k"]
    assert jemtrack(reproduced, "check").endswith(": no problems\n")


def test_a_damaged_data_file(reproduced: Project):
    before = outs(reproduced)
    file = reproduced.path / "data/digits/digits.csv.gz"
    content = file.read_bytes()
    altered = gzip.decompress(content).replace(b"0", b"1", 1)
    for damaged, words in [
        (content[:1000], "is damaged (Compressed file ended ...); expected sha256 ..."),
        (gzip.compress(altered), "has the wrong checksum: expected sha256 ..., found ..."),
        (None, "is missing"),
    ]:
        file.write_bytes(damaged) if damaged else file.unlink()

        (said,) = refused(reproduced)
        mend = "Mend it with `jemtrack data digits`"
        assert_says(said, f"digits: data/digits/digits.csv.gz {words}. {mend}")
    jemtrack(reproduced, "data", "digits")
    assert reproduced.repro() == []
    assert outs(reproduced) == before
    assert reproduced.run("git", "status", "--short") == ""


def test_images_of_one_s_own(project: Project):
    labels = np.arange(40) % 4
    images = np.random.default_rng(0).random((40, 8, 8))
    holey = images.copy()
    holey[3, 2, 1] = np.nan
    for name, arrays, message in [
        ("short", (images, labels[:-1]), "images and labels must have one length, got 40 and 39"),
        ("holey", (holey, labels), "images must be finite: 1 pixels ..., the first in image 3"),
        ("signed", (images, labels - 1), "labels must be class numbers from 0, got -1 at index 0"),
        ("mine", (images, labels), None),
    ]:
        np.savez(project.path / f"{name}.npz", images=arrays[0], labels=arrays[1])
        command = ("data", "mine", "--from", f"{name}.npz")
        output = jemtrack(project, *command, status=1 if message else 0)
        if message:
            assert_says(output.strip(), f"jemtrack: {name}.npz: {message}")
            assert not (project.path / "data/mine").exists()

    set_all(project, PrepareData__params__dataset="mine", PrepareData__params__n_valid=8)
    set_all(project, PrepareData__params__n_classes=4)
    said = ["dvc.yaml: PrepareData does not depend on data/mine: type `jemtrack graph`"]
    assert refused(project) == checked(project) == said

    jemtrack(project, "graph")
    set_all(project, PrepareData__params__n_classes=3)
    (said,) = refused(project)
    assert_says(
        said,
        "params.yaml: PrepareData.params.n_classes must be >= 4 for this data set, got 3: ... "
        "got 3 at index 3 of the training images",
    )
    set_all(project, PrepareData__params__n_classes=4)
    assert project.repro("PrepareData") == ["PrepareData"]


def test_a_model_that_training_cannot_start_from(reproduced: Project):
    model = reproduced.path / "nodes/MaxEntropyL1/model.safetensors"
    start = reproduced.path / "start"
    start.mkdir()
    (start / "narrow.safetensors").write_bytes(model.read_bytes())
    (start / "cut.safetensors").write_bytes(model.read_bytes()[:1000])
    save_file({"weight": zeros(3)}, start / "foreign.safetensors")
    where = "params.yaml: MaxEntropyL2.params.load_path"

    set_all(reproduced, MaxEntropyL2__params__width=2)
    for name, words in [
        ("narrow", "holds a model of another shape: width is 1 in the file, 2 here; ..."),
        ("nowhere", "is not a file; expected a model.safetensors that a trainer wrote"),
        ("cut", "is damaged, cut short or not a safetensors file ..."),
        ("foreign", "is a safetensors file, but not a jemtrack model: ..."),
    ]:
        path = f"start/{name}.safetensors"
        set_all(reproduced, MaxEntropyL2__params__load_path=path)
        said, *deps = checked(reproduced)
        assert_says(said, f"{where}: {path} {words}")
        dep = f"dvc.yaml: MaxEntropyL2 does not depend on {path}: type `jemtrack graph`"
        assert deps == ([] if name == "nowhere" else [dep])
    assert refused(reproduced) == [dep]
    jemtrack(reproduced, "graph")
    assert refused(reproduced) == [said]

    set_all(reproduced, MaxEntropyL2__params__load_path="nodes/MaxEntropyL2/model.safetensors")
    assert refused(reproduced) == [
        f"{where} must be no output of its own stage, got 'nodes/MaxEntropyL2/model.safetensors': "
        "copy it elsewhere first"
    ]
    assert restored(reproduced) == []


def test_training_starts_from_what_another_stage_makes(reproduced: Project):
    """Also where that stage has yet to run, and its last model would not fit."""
    path = "nodes/MaxEntropyL1/model.safetensors"
    set_all(
        reproduced,
        MaxEntropyL1__params__width=2,
        MaxEntropyL2__params__width=2,
        MaxEntropyL2__params__load_path=path,
    )
    said = f"dvc.yaml: MaxEntropyL2 does not depend on {path}: type `jemtrack graph`"
    assert refused(reproduced) == checked(reproduced) == [said]

    jemtrack(reproduced, "graph")
    jemtrack(reproduced, "check")
    assert reproduced.repro("MaxEntropyL2") == ["MaxEntropyL1", "MaxEntropyL2"]


def test_the_command_jemtrack(project: Project, capsys: pytest.CaptureFixture[str]):
    for command, message in [
        (["shwo"], "jemtrack: error: argument COMMAND: invalid choice: 'shwo'"),
        (["check", "--fast"], "jemtrack: error: unrecognized arguments: --fast"),
        (["data"], "jemtrack data: error: the following arguments are required: NAME"),
    ]:
        with pytest.raises(SystemExit, match="2"):
            main(command)
        assert message in capsys.readouterr().err

    for command, message in [
        (["show"], "jemtrack: nodes/ has no results yet: run `dvc repro`"),
        (["data", "nope"], "nope is none of the known data sets"),
        (["data", "mine", "--from", "gone"], "gone: there is no such file or folder"),
    ]:
        assert message in jemtrack(project, *command, status=1)

    for name in ("zntrack.json", "dvc.yaml"):
        (project.path / name).write_text("{")
        assert_says(checked(project)[0], f"{name}... is not valid ...")
        (project.path / name).unlink()
        assert checked(project) == [f"{name} is missing: `jemtrack graph` writes it"]
