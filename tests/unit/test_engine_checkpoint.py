import errno
import logging
import math
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from jemtrack.shared.serialization import from_bytes, to_bytes
from jemtrack.train.checkpoint import Checkpoints

NUMBERS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
TREES = st.recursive(
    NUMBERS,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
    ),
)


@given(TREES)
def test_what_json_holds_and_does_not_hold_comes_back(tree):
    assert from_bytes(to_bytes(tree)) == tree


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.uint8, torch.bool])
def test_tensors_come_back_with_type_and_shape(dtype):
    tensors = {"grid": torch.arange(6).reshape(2, 3).T.to(dtype), 7: torch.tensor(1, dtype=dtype)}

    read = from_bytes(to_bytes(tensors))

    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    assert all(read[name].dtype == dtype for name in tensors)


def test_tied_weights_and_nan_come_back():
    tied = nn.Linear(2, 2).weight
    read = from_bytes(to_bytes({"a": tied, "b": tied, "loss": math.nan, "best": -math.inf}))

    assert torch.equal(read["a"], tied)
    assert torch.equal(read["b"], tied)
    assert math.isnan(read["loss"])
    assert read["best"] == -math.inf


def test_what_cannot_be_saved_is_named_by_its_place():
    with pytest.raises(TypeError, match=r"state\.buffer\[1\] cannot be saved"):
        to_bytes({"buffer": [1, object()]})


def test_the_newest_serves_and_the_one_before_is_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (3, 7, 5):  # a return after divergence makes a newer one of an earlier step
        checkpoints.save({"step": step}, step)

    assert Checkpoints(tmp_path).load() == {"step": 5}
    assert len(list(tmp_path.iterdir())) == 2


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, empty])
def test_a_damaged_one_is_named_and_the_one_before_serves(tmp_path, damage, caplog):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"weights": torch.ones(10), "step": 1}, 1)
    damage(checkpoints.save({"weights": torch.zeros(10), "step": 2}, 2))

    with caplog.at_level(logging.WARNING, logger="jemtrack"):
        assert checkpoints.load()["step"] == 1

    assert "step2" in caplog.text
    damage(next(tmp_path.glob("*.checkpoint")))
    assert checkpoints.load() is None


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"step": 1}, 1)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save({"step": 2}, 2)

    assert [path.name.split("-")[1] for path in tmp_path.iterdir()] == ["step1"]
    assert checkpoints.load() == {"step": 1}


def test_what_a_kill_left_unfinished_is_removed_by_the_next(tmp_path):
    (tmp_path / "000001-step9-0.unfinished.checkpoint").write_bytes(b"torn")
    checkpoints = Checkpoints(tmp_path)

    assert checkpoints.load() is None
    checkpoints.save({"step": 1}, 1)
    assert len(list(tmp_path.iterdir())) == 1


def test_one_is_due_by_steps_and_by_time(tmp_path):
    by_steps = Checkpoints(tmp_path, every_seconds=1e9, every_steps=3)
    assert [step for step in range(1, 8) if by_steps.due(step)] == [3, 6]
    assert Checkpoints(tmp_path, every_seconds=0).due(1)


def test_a_checkpoint_of_another_training_is_neither_used_nor_lost(tmp_path, caplog):
    own, other = Checkpoints(tmp_path / "Mine-0123"), Checkpoints(tmp_path / "Other-4567")
    own.save({"step": 1}, step=1)
    for step in (1, 2):
        foreign = other.save({"step": 200 * step}, step=step)
    copy = own.folder / foreign.name
    copy.write_bytes(foreign.read_bytes())

    assert own.load() == {"step": 1}
    assert f"{copy} is not used: it is of the training Other-4567" in caplog.text
    assert copy.exists()
