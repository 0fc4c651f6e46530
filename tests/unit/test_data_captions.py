"""Data sets with captions: folders of images, letters and emoji, and what is kept of them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jemtrack.commands.main import main
from jemtrack.data.images import DataSplits
from jemtrack.data.sources import drawn
from jemtrack.data.sources.captioned import has_captions
from jemtrack.data.sources.drawn import draw_emoji, draw_letters, emoji_names
from jemtrack.data.sources.fetch import contents, fetch
from jemtrack.data.splits import prepare
from jemtrack.errors import InputError
from jemtrack.flux.captions import captions_of, unseen_captions, words

CAPTIONS = {f"{number}.png": f"a square of brightness {number}" for number in range(9)}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Return a folder of images, wider than high, each of another brightness and size."""
    made = tmp_path / "images"
    made.mkdir()
    for number, name in enumerate(CAPTIONS):
        Image.new("RGB", (40 + number, 30), (20 * number,) * 3).save(made / name)
    return made


def beside(folder):
    for name, text in CAPTIONS.items():
        (folder / name).with_suffix(".txt").write_text(text + "\n")


def lines(folder):
    text = "\n".join(f"{name}\t{caption}" for name, caption in CAPTIONS.items())
    (folder / "captions.txt").write_text(text)


def table(folder):
    rows = "\n".join(f'{name},"{caption}"' for name, caption in CAPTIONS.items())
    (folder / "metadata.csv").write_text(f"file_name,text\n{rows}\n")


def json_lines(folder):
    rows = ({"file_name": name, "caption": text} for name, text in CAPTIONS.items())
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")


@pytest.mark.parametrize("write", [beside, lines, table, json_lines])
def test_a_folder_of_images_with_captions_is_a_data_set(folder, tmp_path, write):
    assert not has_captions(folder)
    write(folder)

    fetch("mine", tmp_path / "data", folder, side=16)
    data = prepare("mine", tmp_path / "data", 10, 2, seed=1)

    assert contents("mine", tmp_path / "data") == "mine: 9 images, 16x16, 9 captions"
    assert data.n_classes == 9
    assert [len(part) for part in (data.train, data.valid, data.test)] == [5, 2, 2]
    for part in (data.train, data.valid, data.test):
        for image, label in zip(part.images_NCHW, part.labels_N.tolist(), strict=True):
            assert image.shape == (1, 16, 16)
            assert data.captions[label] == f"a square of brightness {int(image[0, 0, 0]) // 20}"


def test_captions_are_kept_in_the_prepared_file(folder, tmp_path):
    beside(folder)
    fetch("mine", tmp_path / "data", folder)
    data = prepare("mine", tmp_path / "data", 10, 2, seed=1)

    data.save(tmp_path / "images.safetensors")

    loaded = DataSplits.load(tmp_path / "images.safetensors")
    assert loaded.captions == data.captions
    assert captions_of(loaded) == unseen_captions(loaded) == [[text] for text in data.captions]


def test_images_in_colour_stay_so_and_equal_captions_share_a_label(folder, tmp_path):
    lines(folder)
    Image.new("RGB", (9, 9), (255, 0, 0)).save(folder / "0.png")
    (folder / "captions.txt").write_text("0.png\tred\n1.png\tgrey\n2.png\tgrey\n")

    (path,) = fetch("mine", tmp_path / "data", folder, side=8)

    with np.load(path) as arrays:
        assert arrays["images"].shape == (3, 3, 8, 8)
        assert arrays["labels"].tolist() == [0, 1, 1]
        assert arrays["captions"].tolist() == ["red", "grey"]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("captions.txt", "0.png a square", r"captions\.txt:1: must be a file's name, a tab and"),
        ("captions.txt", "9.png\tnone", r"9\.png cannot be read as an image: .*No such file"),
        ("metadata.csv", "name,text\n0.png,a", r"metadata\.csv:2: must have `file_name` and"),
        ("metadata.jsonl", "[1]", r"metadata\.jsonl:1: must have `file_name` and `text`"),
        ("metadata.jsonl", "{", r"metadata\.jsonl:1 is not valid JSON"),
        ("metadata.csv", "", "images: no image in it has a caption"),
    ],
)
def test_a_broken_list_of_captions_is_refused(folder, tmp_path, name, text, problem):
    (folder / name).write_text(text)

    with pytest.raises(InputError, match=problem):
        fetch("mine", tmp_path / "data", folder)
    assert not (tmp_path / "data" / "mine").exists()


def test_captions_of_a_file_must_be_text_for_each_label(tmp_path):
    images = np.zeros((3, 8, 8), np.uint8)
    for captions, problem in ((["a", "b"], "0 to 1, got 2"), ([1, 2, 3], "must be text of shape")):
        np.savez(tmp_path / "own.npz", images=images, labels=[0, 1, 2], captions=captions)
        with pytest.raises(InputError, match=problem):
            fetch("mine", tmp_path / "data", tmp_path / "own.npz")


def seen_and_held_out(source):
    parts = (source.train, source.test)
    return [{source.captions[label] for label in {*part.labels_N.tolist()}} for part in parts]


def test_letters_have_names_and_fonts_of_which_pairs_are_held_out(tmp_path):
    letters = draw_letters()

    seen, held_out = seen_and_held_out(letters)
    assert (len(seen), len(held_out)) == (52 * 8, 52)
    assert seen.isdisjoint(held_out)
    assert {word for each in held_out for word in words(each)} <= {
        word for each in seen for word in words(each)
    }
    assert "a bold serif capital letter g" in seen | held_out
    assert torch.equal(letters.train.images_NCHW, draw_letters().train.images_NCHW)
    shown = letters.train.images_NCHW.flatten(1)
    assert shown.any(dim=1).all()
    assert len({*map(bytes, shown.numpy())}) > 0.5 * len(shown)  # moved, and of other letters


def test_the_command_draws_letters_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("jemtrack.commands.data.Repo.find_root", lambda: None)
    monkeypatch.setattr("jemtrack.commands.data.subprocess.run", lambda *a, **k: Done())
    monkeypatch.chdir(tmp_path)

    assert main(["data", "letters"]) == 0
    before = Path("data/letters/images.npz").stat().st_mtime_ns
    assert main(["data", "letters"]) == 0

    assert capsys.readouterr().out.count("16640 images and 2080 to test on, 28x28") == 2
    assert Path("data/letters/images.npz").stat().st_mtime_ns == before


class Done:
    returncode = 0


def test_the_names_of_emoji_are_read_from_unicode_s_list():
    text = (
        "# subgroup: food\n"
        "1F34E                  ; fully-qualified     # \U0001f34e E0.6 red apple\n"
        "263A                   ; unqualified         # ☺ E0.6 smiling face\n"
        "1F468 1F3FF            ; fully-qualified     # X E1.0 man: dark skin tone\n"
    )

    assert emoji_names(text) == {
        "\U0001f34e": "red apple", "\U0001f468\U0001f3ff": "man: dark skin tone",
    }  # fmt: skip


@pytest.mark.parametrize("file", ["EMOJI_FONT", "EMOJI_NAMES"])
def test_without_their_packages_emoji_are_refused(monkeypatch, tmp_path, file):
    for each in ("EMOJI_FONT", "EMOJI_NAMES"):
        (tmp_path / each).touch()
        monkeypatch.setattr(drawn, each, tmp_path / each)
    (tmp_path / file).unlink()

    with pytest.raises(InputError, match=rf"{file} is missing: apt install [a-z-]+"):
        draw_emoji()


@pytest.mark.real_data
def test_emoji_are_drawn_in_colour_and_some_tones_are_held_out():
    emoji = draw_emoji()

    seen, held_out = seen_and_held_out(emoji)
    assert len(seen) + len(held_out) > 3000
    assert seen.isdisjoint(held_out)
    assert "red apple" in seen
    people = {caption.partition(":")[0] for caption in held_out}
    assert people <= {caption.partition(":")[0] for caption in seen}
    apple = emoji.train.images_NCHW[emoji.train.labels_N == emoji.captions.index("red apple")][0]
    red, green, blue = apple[:, 10:22, 10:22].float().mean(dim=(1, 2))
    assert red > 1.5 * max(green, blue)
