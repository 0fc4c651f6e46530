"""Files that are broken, or made to harm: a line for each problem; nothing hangs or crashes."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file
from torch import nn

import jemtrack
from jemtrack.commands.main import main
from jemtrack.data.images import DataSplits, LabelledImages
from jemtrack.documents import LARGEST_FILE, parse_document, parse_json, read_document
from jemtrack.errors import InputError, ParameterError
from jemtrack.jem.networks.energy_model import JointEnergyModel
from jemtrack.jem.networks.model_file import (
    load_model,
    load_weights_into,
    save_model,
    trained_noise,
)
from jemtrack.jem.networks.shape import WideResNetShape
from jemtrack.jem.networks.wide_resnet import build_model
from jemtrack.jem.objectives.max_entropy import MaxEntropyObjective
from jemtrack.jem.objectives.sampled_jem import SampledJEMObjective
from jemtrack.jem.scores import run_models
from jemtrack.jem.training.batches import Batch
from jemtrack.jem.training.family import FAMILY
from jemtrack.jem.training.phases import check_objective
from jemtrack.parameters import problem_lines
from jemtrack.project.code import code_rules
from jemtrack.project.notebooks import export
from jemtrack.shared.hardware import Hardware
from jemtrack.stages.draw_samples import SampleArgs, check_samples
from jemtrack.stages.prepare_outliers import OutlierArgs, check_outliers
from jemtrack.stages.train_args import TrainArgs
from jemtrack.train.launch import check_hardware

QUICK_S = 5  # on a busy machine; each takes less than 2 on an idle one

BOMB = "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
MERGE_BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], k{n}: 1}}\n" for n in range(1, 40)
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: " + "[" * 100_000, "1: must not be nested deeper than 50 levels"),
        ("{a: " * 3_000, "1: must not be nested deeper than 50 levels"),
        ("- " * 100_000, "1: must not be nested deeper than 50 levels"),
        ("? " * 100_000, "1: must not be nested deeper than 50 levels"),
        (BOMB, r"\d\d: must hold at most 200000 values"),
        (MERGE_BOMB, r"\d\d: must hold at most 200000 values"),
        ("a:\n" + "- 1\n" * 200_001, "200001: must hold at most 200000 values"),
        ("a: &a [*a]", "1: a\\[0\\]: must not contain itself"),
        ("a: " + "9" * 23, "1: a: must be a number of at most 64 bits"),
        ("a: " + "9" * 5_000, "1: a: cannot be read: "),
        ("a: 1e308", "1: a: must be within"),
        ("a: 1e999", "1: a: must be within"),
        ("a: 010", "1: a: is not the same to all readers of YAML, got 010"),
        ("a: 1\nb: 1:30", "2: b: is not the same to all readers of YAML, got 1:30"),
        ("a: [yes, 1]", "1: a\\[0\\]: is not the same to all readers of YAML, got yes"),
        ("a: 1\nb: 2\na: 3", "3: a: stands twice, first in line 1"),
        ("k" * 2_000 + ": 1\n", "1: (is not valid YAML|must have names)"),
        ("? [a]\n: 1", "1: must have names"),
        ("%YAML 1.1\n---\na: yes", "1: must be YAML 1.2"),
        ("a: !!python/object/apply:os.system [x]", "1: a: must not have the tag"),
        ("a: !!set {x, y}", "1: a: must not have the tag"),
        ("a: \0", "1: is not valid YAML: control characters"),
        ("a: =", "1: is not valid YAML"),
    ],
)  # fmt: skip
def test_what_no_file_of_a_project_needs_is_a_problem_with_its_line(text, problem):
    began = time.monotonic()

    (found,) = parse_document(text).form

    assert re.match(problem, str(found))
    assert len(str(found)) < 400
    assert time.monotonic() - began < QUICK_S


def test_a_file_that_is_too_long_or_no_text_is_not_read(tmp_path):
    (tmp_path / "long.yaml").write_text("#" * (LARGEST_FILE + 1))
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))

    for path, problem in {
        tmp_path / "long.yaml": "must be at most",
        tmp_path / "binary.yaml": "cannot be read: it must be text in UTF-8",
        tmp_path: "cannot be read: Is a directory",
        tmp_path / ("n" * 300): "cannot be read: File name too long",
        tmp_path / "a\0b": "cannot be read: embedded null byte",
    }.items():
        (found,) = read_document(path).form
        assert str(found).startswith(problem)


PLAIN = st.text("0123456789_+-.eExXobBnyYsofF:aAiITtruN~", min_size=1, max_size=8)


@given(text=PLAIN)
@example("010")
@example("1_000")
@example("1:30")
@example("0o17")
@example("-.5e+3")
@example("off")
@example("1e-05")
@example("0b1_1")
def test_a_value_is_what_dvc_and_zntrack_read_or_it_is_refused(text):
    """DVC writes ruamel.yaml's value into dvc.lock; the stage is given PyYAML's by ZnTrack."""
    read = parse_document(f"[{text}]")
    if read.form:
        return

    by_dvc = YAML(typ="safe", pure=True).load(f"[{text}]")

    assert repr(read.content) == repr(by_dvc) == repr(yaml.safe_load(f"[{text}]"))


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "9" * 5_000, "\0", b"\xff\xfe", ""])
def test_broken_json_is_a_problem(text):
    with pytest.raises(InputError, match=r"any\.json is not valid JSON"):
        parse_json(text, "any.json")


WHERE_FROM = "import jemtrack; print(jemtrack.__file__)"


@pytest.mark.parametrize(
    ("folder", "is_taken"),
    [(".", False), ("sub/folder", False), (".dvc/tmp/exps/temp", True)],
)
def test_only_a_copy_that_dvc_made_takes_the_place_of_the_installed_package(
    tmp_path, folder, is_taken
):
    here = tmp_path / folder
    here.mkdir(parents=True, exist_ok=True)
    source = (here if is_taken else tmp_path) / "src/jemtrack/__init__.py"
    source.parent.mkdir(parents=True)
    source.write_text("")

    done = subprocess.run(
        [sys.executable, "-P", "-c", WHERE_FROM],
        cwd=here,
        capture_output=True,
        text=True,
        check=True,
    )

    assert Path(done.stdout.strip()).samefile(source if is_taken else jemtrack.__file__)


SHAPE = WideResNetShape(depth=10, width=1, channels=1, n_classes=3)


def header_of(path):
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(path, change):
    header, weights = header_of(path)
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + weights)


def with_shape(**values):
    def change(header):
        kept = json.loads(header["__metadata__"]["jemtrack"])
        kept["shape"] |= values
        header["__metadata__"]["jemtrack"] = json.dumps(kept)

    return lambda path: with_header(path, change)


def with_notes(notes):
    def change(header):
        kept = json.loads(header["__metadata__"]["jemtrack"])
        header["__metadata__"]["jemtrack"] = json.dumps({**kept, "metadata": notes})

    return lambda path: with_header(path, change)


def with_entry(**values):
    return lambda path: with_header(path, lambda header: header["class_head.bias"].update(values))


def with_weights(change):
    def rewrite(path):
        metadata = header_of(path)[0]["__metadata__"]
        save_file(change(load_file(path)), path, metadata)

    return rewrite


def with_nested_notes(path):
    with_header(path, lambda header: header["__metadata__"].update(jemtrack="[" * 100_000))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (with_entry(shape=[2**63, 0], data_offsets=[0, 0]), "do not fit its own shape"),
        (with_entry(shape=[2**62, 2**62]), "do not fit its own shape"),
        (with_entry(shape=["x"]), "do not fit its own shape"),
        (with_entry(dtype="F99"), "do not fit its own shape"),
        (with_entry(data_offsets=[0, 2**62]), "is damaged"),
        (with_entry(data_offsets=None), "is damaged"),
        (with_shape(width=1000, depth=1000), "shape.width must be smaller, .* takes at least"),
        (with_shape(n_classes=10**15), "shape.width must be smaller, .* takes at least"),
        (with_shape(width=100_000_000), "shape.width must be <= 1000"),
        (with_shape(depth=60_004), "shape.depth must be <= 1000"),
        (with_shape(width=2), r"do not fit its own shape \(.* and \d+ more\)"),
        (with_notes({"sigma": 0.1}), "is a safetensors file, but not a jemtrack model"),
        (with_notes([1]), "is a safetensors file, but not a jemtrack model"),
        (with_nested_notes, "is a safetensors file, but not a jemtrack model"),
        (
            with_weights(lambda weights: {n: each.double() for n, each in weights.items()}),
            "do not fit its own shape",
        ),
        (
            with_weights(lambda weights: {n: each * torch.nan for n, each in weights.items()}),
            "its weights must be finite",
        ),
        (lambda path: path.write_bytes(b"\xff" * 100), "is damaged"),
        (lambda path: path.write_bytes((2**40).to_bytes(8, "little") + b"{}"), "is damaged"),
    ],
)
def test_a_model_of_foreign_origin_is_refused_before_it_is_loaded(tmp_path, damage, message):
    path = tmp_path / "Trainer" / "model.safetensors"
    save_model(path, build_model(SHAPE), SHAPE, {"sigma": "0.1"})
    damage(path)
    images = LabelledImages(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 2, 0]))
    began = time.monotonic()

    for read in (
        lambda: load_model(path),
        lambda: load_weights_into(build_model(SHAPE), SHAPE, path),
        lambda: run_models(
            [path], {}, images, noise=True, seed=1, batch_size=2, device=torch.device("cpu")
        ),
    ):
        with pytest.raises(InputError, match=message) as caught:
            read()
        assert len(str(caught.value).splitlines()) == 1
    assert time.monotonic() - began < QUICK_S


@pytest.mark.parametrize("sigma", ["loud", "nan", "inf", "-1", "", None])
def test_notes_that_are_no_numbers_are_refused(sigma):
    with pytest.raises(InputError, match="its metadata must have `sigma`, a number >= 0"):
        trained_noise(Path("model"), {} if sigma is None else {"sigma": sigma})


def data_of(side=8, n_images=4):
    parts = [
        LabelledImages(
            torch.zeros(n_images, 1, side, side, dtype=torch.uint8), torch.arange(n_images) % 2
        )
        for _ in range(3)
    ]
    return DataSplits("digits", 2, False, 1, *parts)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (
            lambda: FAMILY.check_data(TrainArgs(width=1000, depth=1000), TrainArgs(), data_of()),
            "width must be smaller, got 1000: it takes at least",
        ),
        (lambda: check_hardware(Hardware(processes=100_000, device="cpu")), "processes must be"),
        (
            lambda: check_samples(data_of(), SampleArgs(n_per_class=10**15)),
            "n_per_class must be smaller, got 1000000000000000: it takes at least",
        ),
        (
            lambda: check_outliers(data_of(), OutlierArgs(n_images=10**15)),
            "n_images must be smaller",
        ),
        (
            lambda: check_objective(
                SampledJEMObjective(buffer_size=10**15), TrainArgs(), data_of()
            ),
            "buffer_size must be smaller",
        ),
    ],
)  # fmt: skip
def test_what_no_machine_holds_is_refused_with_its_bytes(check, message):
    began = time.monotonic()

    with pytest.raises(ParameterError, match=message) as caught:
        check()

    assert re.search(r"at least [\d.e+]+ bytes \([\d.]+ GiB\)", str(caught.value))
    assert time.monotonic() - began < QUICK_S


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"width": 100_000_000}, "width must be <= 1000, got 100000000"),
        ({"depth": 60_004}, "depth must be <= 1000, got 60004"),
        ({"strategy": "ddp"}, "strategy must be auto for one process, got 'ddp'"),
        ({"load_path": ""}, "load_path must not be empty"),
        ({"save_dir": "a\0b"}, "save_dir must not contain the character NUL"),
        ({"save_dir": "n" * 300}, "save_dir must be shorter"),
        ({"experiment": "n" * 300}, "experiment must be at most 100 letters"),
        ({"experiment": "CON"}, "experiment must be another name, got 'CON'"),
    ],
)
def test_a_value_that_no_run_can_use_is_refused(values, problem):
    (line,) = problem_lines(TrainArgs, values, "x")

    assert line.startswith(f"x.{problem}")


@pytest.mark.parametrize(
    "spread", [lambda d: d.square().mean(), lambda d: d[:1], lambda d: d[None]]
)
def test_a_spread_that_is_no_number_an_image_is_refused(spread):
    class Wrong(MaxEntropyObjective):
        def spread(self, deviation_B):
            return spread(deviation_B)

    network = JointEnergyModel(nn.Flatten(), n_features=4, n_classes=3)
    batch = Batch(torch.randn(6, 4, 1, 1), torch.tensor([0, 1, 2, 0, 1, 2]))

    with pytest.raises(InputError, match=r"Wrong\.spread must return one number an image"):
        Wrong()({"network": network}, batch)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "tool = 3", "[tool.jemtrack]\ncode = 3", "\0", "="]
)
def test_a_broken_pyproject_is_named(tmp_path, text):
    (tmp_path / "pyproject.toml").write_text(text)

    with pytest.raises(InputError, match=r"pyproject\.toml"):
        code_rules(tmp_path / "pyproject.toml")


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "3", "{", ""])
def test_results_that_are_broken_are_named(tmp_path, monkeypatch, capsys, text):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "nodes" / "EvaluateX"
    folder.mkdir(parents=True)
    (folder / "resources.json").write_text(text)

    assert main(["show"]) == 1
    assert "nodes/EvaluateX/resources.json" in capsys.readouterr().err


def test_a_notebook_that_is_nested_too_deeply_is_none(root):
    Path("deep.ipynb").write_text("[" * 100_000)

    with pytest.raises(InputError, match="is not a Jupyter notebook"):
        export(Path("deep.ipynb"))
