"""Samples on the way, and images by captions from the command line."""

import re
import sys
from pathlib import Path

import pytest
import torch
from flux_models import WORDS, networks, sizes_of
from flux_runs import STEPS, every_step, saved, splits, train, training
from PIL import Image

from jemtrack.commands.main import main
from jemtrack.data.images import to_unit_range
from jemtrack.errors import InputError
from jemtrack.flux.networks.model_file import load_models, save_models
from jemtrack.shared.pictures import as_pixels

# {step}_{index:03d}_{epoch:03d}[_{batch:05d}]_{hash}-{suffix}.webp
NAME = re.compile(
    r"(?P<step>\w+?)_(?P<index>\d{3})_(?P<epoch>\d{3})(_(?P<batch>\d{5}))?_"
    r"(?P<hash>[0-9a-f]{6})-(?P<suffix>original|nr_o|ns_o|ctx|nc|caption)\.webp"
)


def names(folder):
    found = [NAME.fullmatch(path.name) for path in (folder / "samples").iterdir()]
    assert all(found)
    return [match.groupdict() for match in found]


def test_samples_are_named_by_step_epoch_batch_and_picture(tmp_path):
    train(training(STEPS, tmp_path, n_samples=2, checkpoint_save_interval=2))

    found = names(tmp_path)
    counts = {(each["index"], each["step"], each["epoch"]) for each in found}
    suffixes = {
        step["name"]: sorted({each["suffix"] for each in found if each["step"] == step["name"]})
        for step in STEPS
    }
    plain, spade = ["nr_o", "ns_o", "original"], ["ctx", "nc", "nr_o", "ns_o", "original"]
    assert counts == {(f"{n:03d}", step["name"], "001") for n, step in enumerate(STEPS, start=1)}
    assert {each["batch"] for each in found} == {None, "00002"}
    # Two images, and two captions: a picture has its hash through all of the run.
    assert len({each["hash"] for each in found if each["suffix"] != "caption"}) == 2
    captioned = [each for each in found if each["suffix"] == "caption"]
    assert {each["step"] for each in captioned} == {"flow", "full"}
    assert len({each["hash"] for each in captioned}) == 2
    assert {name: [s for s in of if s != "caption"] for name, of in suffixes.items()} == {
        "vae": plain, "vae_gan": plain, "gan": spade, "flow": spade, "full": spade,
    }  # fmt: skip


def test_an_original_is_the_image_itself(tmp_path):
    data = splits()

    train(training(STEPS[:1], tmp_path, n_samples=1, data=data))

    (path,) = (tmp_path / "samples").glob("vae_001_001_*-original.webp")
    assert Image.open(path).convert("L").tobytes() == data.valid.images_NCHW[0].numpy().tobytes()


def test_samples_are_of_the_averages_which_are_saved(tmp_path):
    data = splits()
    made = train(training(STEPS[:1], tmp_path, n_samples=1, data=data))
    saved(made, tmp_path / "model")
    models = load_models(tmp_path / "model").models

    (path,) = (tmp_path / "samples").glob("vae_001_001_*-nr_o.webp")

    image = to_unit_range(data.valid.images_NCHW[:1])
    with torch.no_grad():
        pixels = as_pixels(models["expander"](models["compressor"](image).mean_BCHW))
    assert Image.open(path).convert("L").tobytes() == pixels.numpy().tobytes()


def test_samples_move_no_random_stream(tmp_path):
    states = []
    for n, name in ((1, "a"), (0, "b")):
        options = {"n_samples": n, "checkpoint_save_interval": 1}
        made = train(training(STEPS, tmp_path / str(n), **options))
        states.append((saved(made, tmp_path / name), torch.get_rng_state().tolist()))

    assert states[0] == states[1]
    assert not (tmp_path / "0").exists()


def test_samples_are_those_of_a_run_that_was_not_killed(tmp_path):
    for cut in (2, 3, 8, 0):
        made = training(STEPS, tmp_path / "killed", n_samples=1)
        train(made, checkpoints=every_step(tmp_path / "kept"), cut=cut)
    train(training(STEPS, tmp_path / "whole", n_samples=1))

    killed, whole = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "samples").iterdir()}
        for name in ("killed", "whole")
    )
    assert killed == whole


@pytest.fixture
def model(tmp_path) -> Path:
    path = tmp_path / "model.safetensors"
    save_models(path, networks(), sizes_of(), {})
    return path


def sample(model, *options, out="drawn.png"):
    path = model.parent / out
    arguments = ["sample", "--model", str(model), "--out", str(path), "--n", "3", *options]
    return main([*arguments, "--caption", "the digit seven"]), path


def test_a_grid_of_captions_is_written(model, capsys):
    status, path = sample(model, "--caption", "seven")

    assert status == 0
    assert capsys.readouterr().out == f"{path}: 6 images, 16 evaluations each\n"
    # Two rows of three images of 8 pixels with lines between, eight times as large.
    assert Image.open(path).size == (8 * (3 * 9 + 1), 8 * (2 * 9 + 1))


def test_the_seed_and_the_solver_say_what_is_drawn(model, capsys):
    drawn = [
        sample(model, *options, out=f"{number}.png")[1].read_bytes()
        for number, options in enumerate([(), (), ("--seed", "1"), ("--solver", "heun")])
    ]
    sample(model, "--solver", "midpoint", "--steps", "3", "--guidance", "1")

    assert drawn[0] == drawn[1]
    assert len({*drawn}) == 3
    assert capsys.readouterr().out.splitlines()[-1].endswith("3 images, 6 evaluations each")


def test_words_that_the_model_does_not_know_are_named(model, capsys):
    sample(model, "--caption", "a red apple")

    assert capsys.readouterr().out.startswith(
        f"unknown to the model: a, apple, red; it knows {', '.join(WORDS)}\n"
    )


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--solver", "rk4"), "solver must be one of 'euler', 'midpoint', 'heun' or 'mean_flow'"),
        (("--steps", "0"), "n_steps must be >= 1, got 0"),
        (("--guidance", "-1"), "guidance must be >= 0, got -1.0"),
        (("--n", "0"), "--n must be >= 1, got 0"),
        (("--out", "drawn.jpg"), "--out must end in .png or .webp, got drawn.jpg"),
    ],
)
def test_what_does_not_fit_is_refused(model, capsys, options, problem):
    assert sample(model, *options)[0] == 1
    assert problem in capsys.readouterr().err


def test_a_model_without_a_flow_cannot_draw(model, capsys):
    save_models(model, networks(), sizes_of(models=("compressor", "expander")), {})

    assert sample(model)[0] == 1
    assert "it has no flow_processor, text_encoder: train a step" in capsys.readouterr().err


def test_without_pillow_a_training_with_samples_does_not_begin(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)

    with pytest.raises(InputError, match=r"pictures need Pillow: pip install 'jemtrack\[plots\]'"):
        train(training(STEPS[:1], n_samples=1))
    train(training(STEPS[:1], n_samples=0))
