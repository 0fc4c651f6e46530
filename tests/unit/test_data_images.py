import ast
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from profiles import at_most
from safetensors.torch import load_file, save_file

import jemtrack.data.images
from jemtrack.data.images import DataSplits, LabelledImages
from jemtrack.errors import InputError


def part(n: int, seed: int, channels: int = 1) -> LabelledImages:
    generator = torch.Generator().manual_seed(seed)
    return LabelledImages(
        torch.randint(256, (n, channels, 8, 8), dtype=torch.uint8, generator=generator),
        torch.randint(10, (n,), generator=generator),
    )


def splits(n_valid: int = 3, seed: int = 7, channels: int = 1) -> DataSplits:
    parts = [part(n, index, channels) for index, n in enumerate((5, n_valid, 4))]
    return DataSplits("digits", 10, False, seed, *parts)


@at_most(50)
@given(
    n_valid=st.integers(0, 5),
    seed=st.integers(0, 2**40),
    channels=st.sampled_from([1, 3]),
    flip=st.booleans(),
)
def test_saved_splits_come_back(tmp_path_factory, n_valid, seed, channels, flip):
    parts = [part(n, index, channels) for index, n in enumerate((5, n_valid, 4))]
    saved = DataSplits("my-data_2", 12, flip, seed, *parts)
    path = tmp_path_factory.mktemp("splits") / "deeper" / "splits.safetensors"

    saved.save(path)
    loaded = DataSplits.load(path)

    for name in ("dataset", "n_classes", "flip", "seed"):
        assert getattr(loaded, name) == getattr(saved, name)
    for name in ("train", "valid", "test"):
        assert torch.equal(getattr(loaded, name).images_NCHW, getattr(saved, name).images_NCHW)
        assert torch.equal(getattr(loaded, name).labels_N, getattr(saved, name).labels_N)


def test_equal_splits_make_equal_bytes(tmp_path):
    """The order of safetensors' metadata is drawn anew for each file: one in 24 would agree."""
    contents = set()
    for number in range(8):
        splits().save(tmp_path / f"{number}.safetensors")
        contents.add((tmp_path / f"{number}.safetensors").read_bytes())

    assert len(contents) == 1
    assert not list(tmp_path.glob("*.tmp"))


def test_metadata_are_readable_by_others(tmp_path):
    splits().save(tmp_path / "a")
    blob = (tmp_path / "a").read_bytes()
    header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])

    assert json.loads(header["__metadata__"]["jemtrack"]) == {
        "dataset": "digits",
        "n_classes": 10,
        "flip": False,
        "seed": 7,
    }
    assert set(load_file(tmp_path / "a")) == {
        f"{name}.{kind}" for name in ("train", "valid", "test") for kind in ("images", "labels")
    }


@at_most(50)
@given(cut=st.floats(0, 0.999))
def test_truncated_file_is_refused(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("splits") / "a.safetensors"
    splits().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut * len(whole))])

    with pytest.raises(InputError, match=r"a\.safetensors: is not a whole prepared data set"):
        DataSplits.load(path)


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        ({"weight": torch.zeros(2)}, {"format": "pt"}),
        ({"weight": torch.zeros(2)}, None),
    ],
)
def test_other_safetensors_are_refused(tmp_path, tensors, metadata):
    save_file(tensors, tmp_path / "model.safetensors", metadata)

    with pytest.raises(InputError, match="not a whole prepared data set"):
        DataSplits.load(tmp_path / "model.safetensors")


@pytest.mark.parametrize(("key", "value"), [("flip", "maybe"), ("n_classes", "ten")])
def test_unreadable_metadata_are_refused(tmp_path, key, value):
    splits().save(tmp_path / "a")
    metadata = {"dataset": "x", "n_classes": "10", "flip": "true", "seed": "0", key: value}
    save_file(load_file(tmp_path / "a"), tmp_path / "b", metadata)

    with pytest.raises(InputError, match="not a whole prepared data set"):
        DataSplits.load(tmp_path / "b")


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"absent\.safetensors"):
        DataSplits.load(tmp_path / "absent.safetensors")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64), "uint8"),
        (torch.zeros(2, 8, 8, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), "N, C, H, W"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(2), "int64"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), "3 labels"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(images, labels, message):
    with pytest.raises(InputError, match=message):
        LabelledImages(images, labels)


def test_picking_keeps_images_with_their_labels():
    whole = part(6, seed=0)
    picked = whole[torch.tensor([4, 1])]

    assert len(picked) == 2
    assert torch.equal(picked.images_NCHW[0], whole.images_NCHW[4])
    assert picked.labels_N.tolist() == [whole.labels_N[4], whole.labels_N[1]]


def test_trainers_depend_on_this_module_alone():
    tree = ast.parse(Path(jemtrack.data.images.__file__).read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}

    assert {name for name in imported if name.startswith("jemtrack")} == {
        "jemtrack.documents",
        "jemtrack.errors",
        "jemtrack.files",
    }
