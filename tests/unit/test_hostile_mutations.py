"""Broken files by chance: each is one clear line a problem, in time, and runs nothing foreign."""

import io
import shutil
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import hostile_canary
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from profiles import at_length
from recipe_files import WARM_UP

from jemtrack.commands.main import main
from jemtrack.data.images import DataSplits, LabelledImages, load_outliers, save_outliers
from jemtrack.data.sources.fetch import fetch
from jemtrack.errors import InputError
from jemtrack.jem.networks.model_file import load_model, save_model
from jemtrack.jem.networks.shape import WideResNetShape
from jemtrack.jem.networks.wide_resnet import build_model
from jemtrack.project.graph import write_graph
from jemtrack.stages.draw_samples import DrawSamples
from jemtrack.stages.evaluate_x import EvaluateX
from jemtrack.stages.prepare_data import PrepareData
from jemtrack.stages.prepare_outliers import PrepareOutliers
from jemtrack.stages.sampled_jem import SampledJEM

LIMIT_S = 5  # of the processor: what else the machine does is no matter
SETTINGS = """\
checkpoint_seconds: 30
trackers:
  - {type: tensorboard, folder: tensorboard}
  - {type: jsonl, folder: record}
"""
# What a hostile hand puts in the place of a value.
VALUES = st.sampled_from(
    [
        *("null", "[]", "{}", "yes", "010", "1:30", "-1", "0", "1e308", ".nan", ".inf", "''"),
        *("9" * 23, "100000000", "60004", "[" * 500, "{a: " * 500, "*a", "&a [*a]", "!!set {a}"),
        *("../../params.yaml", "/etc/passwd", "CON", '"\\0"', "x" * 300, "'; rm -rf /'", "\x00"),
        *("hostile_canary.Canary", "{type: hostile_canary.Canary, x: 1}", "subprocess.Popen"),
        *("{type: hostile_canary.canary}", "[{type: hostile_canary.Canary}]", "os.system"),
        *('"hostile_canary"', '"Canary"', "3.5", '"text"', "[1, [2, {b: 3}]]", "{_cls: x}"),
    ]
)


@st.composite
def mutated(draw, content: bytes) -> bytes:
    """Cut, flip, replace, repeat and swap parts of a file, one to three times."""
    for _ in range(draw(st.integers(1, 3))):
        content = draw(st.sampled_from([cut, flipped, overwritten, revalued, repeated]))(
            draw, content
        )
    return content


def place(draw, content: bytes) -> int:
    return draw(st.integers(0, max(0, len(content) - 1)))


def cut(draw, content: bytes) -> bytes:
    first, last = sorted((place(draw, content), place(draw, content)))
    return content[:first] + draw(st.sampled_from([b"", content[last:]]))


def flipped(draw, content: bytes) -> bytes:
    at = place(draw, content)
    return content[:at] + bytes([draw(st.integers(0, 255))]) + content[at + 1 :]


def overwritten(draw, content: bytes) -> bytes:
    at, new = place(draw, content), draw(st.binary(max_size=20))
    return content[:at] + new + content[at + len(new) :]


def revalued(draw, content: bytes) -> bytes:
    """Replace what follows a colon, up to the end of its line."""
    colons = [number for number, byte in enumerate(content) if byte == ord(":")]
    if not colons:
        return content
    at = draw(st.sampled_from(colons)) + 1
    end = content.find(b"\n", at)
    return content[:at] + b" " + draw(VALUES).encode() + content[end if end > 0 else at :]


def repeated(draw, content: bytes) -> bytes:
    first, last = sorted((place(draw, content), place(draw, content)))
    return content[:last] + content[first:last] + content[last:]


def said(*command: str) -> list[str]:
    """Run a command in this process: any exception but its own fails the test."""
    began, screen = time.process_time(), io.StringIO()
    with redirect_stdout(screen), redirect_stderr(screen):
        status = main(command)
    assert time.process_time() - began < LIMIT_S
    assert hostile_canary.CALLS == []
    assert "Traceback" not in screen.getvalue()
    return screen.getvalue().splitlines() if status else []


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a graph of six files that a hand can break."""
    folder = tmp_path_factory.mktemp("graph")
    for name in ("src", "pyproject.toml"):
        (folder / name).symlink_to(Path(__file__).parents[2] / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fetch("digits", Path("data"))
        Path("recipe.yaml").write_text("training:\n  pipeline:\n" + PIPELINE)
        Path("jemtrack.yaml").write_text(SETTINGS)
        prepared = PrepareData()
        trainer = SampledJEM(data=prepared.images, recipe="recipe.yaml")
        models = [trainer.model]
        write_graph(
            [
                *(prepared, trainer, PrepareOutliers(data=prepared.images)),
                EvaluateX(data=prepared.images, models=models),
                DrawSamples(data=prepared.images, models=models, features=trainer.model),
            ]
        )
        assert main(["check"]) == 0
    return folder


PIPELINE = """\
    steps:
      - {name: first, n_epochs: 1, objective: {type: cross_entropy}}
      - name: second
        n_epochs: 2
        objective: {type: sampled_jem, buffer_size: 1000}
        optimization: {optimizers: {network: {type: SGD, lr: 0.1}}}
"""
NAMES = ["params.yaml", "dvc.yaml", "zntrack.json", "versions.yaml", "jemtrack.yaml", "recipe.yaml"]


@at_length(500)
@given(data=st.data(), name=st.sampled_from(NAMES))
def test_check_names_what_is_broken_in_any_file(graph, data, name):
    whole = {each: (graph / each).read_bytes() for each in NAMES}
    other = data.draw(st.sampled_from([*NAMES, name, name]), label="taken from")
    try:
        (graph / name).write_bytes(data.draw(mutated(whole[other]), label=name))
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(graph)
            said("check")
    finally:
        for each, content in whole.items():
            (graph / each).write_bytes(content)


@at_length(500)
@given(data=st.data())
def test_validate_names_what_is_broken_in_a_recipe(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_bytes(data.draw(mutated(WARM_UP.encode())))

    lines = said("validate", str(path))

    assert all(len(line) < 2000 for line in lines)
    shutil.rmtree(path.parent)


@pytest.fixture(scope="module")
def tensors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tensors")
    shape = WideResNetShape(depth=10, width=1, norm="act", channels=1, n_classes=3)
    save_model(folder / "model", build_model(shape), shape, {"sigma": "0.1"})
    images_NCHW = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    parts = [
        LabelledImages(images_NCHW.clone(), torch.tensor([0, 1, 2, last])) for last in (0, 1, 2)
    ]
    DataSplits("digits", 3, False, 1, *parts).save(folder / "data")
    save_outliers({"uniform": images_NCHW}, folder / "outliers")
    return folder


READERS = {"model": load_model, "data": DataSplits.load, "outliers": load_outliers}


@at_length(500)
@given(data=st.data(), kind=st.sampled_from([*READERS]))
def test_a_broken_file_of_tensors_is_an_input_error(tensors, tmp_path_factory, data, kind):
    other = data.draw(st.sampled_from([*READERS, kind, kind]))
    whole = (tensors / other).read_bytes()
    # Half of the mutations are of the header, which is a small part of the file.
    length = 8 + int.from_bytes(whole[:8], "little")
    in_header = data.draw(st.booleans())
    broken = (
        data.draw(mutated(whole[:length])) + whole[length:]
        if in_header
        else data.draw(mutated(whole))
    )
    path = tmp_path_factory.mktemp("tensors") / kind
    path.write_bytes(broken)
    began = time.process_time()

    with suppress(InputError):
        READERS[kind](path)
    assert time.process_time() - began < LIMIT_S
    shutil.rmtree(path.parent)
