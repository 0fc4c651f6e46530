"""The whole published data sets; `make test-data` brings their files first."""

from pathlib import Path

import pytest
from project import ROOT

from jemtrack.data.sources.fetch import fetch
from jemtrack.data.splits import prepare

BROUGHT = ROOT / ".data-sets"

pytestmark = pytest.mark.real_data


def test_whole_fashion_mnist(tmp_path: Path):
    fetch("fashion-mnist", tmp_path)

    data = prepare("fashion-mnist", tmp_path, n_classes=10, n_valid=5000, seed=1)

    labels = data.train.labels_N.bincount() + data.valid.labels_N.bincount()
    assert labels.tolist() == [6000] * 10
    assert data.test.labels_N.bincount().tolist() == [1000] * 10
    assert data.test.labels_N[:5].tolist() == [9, 2, 1, 1, 6]


def test_whole_mnist(tmp_path: Path):
    fetch("mnist", tmp_path, BROUGHT)

    data = prepare("mnist", tmp_path, n_classes=10, n_valid=0, seed=1)

    assert data.train.images_NCHW.shape == (60000, 1, 28, 28)
    assert data.train.labels_N[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.test.labels_N[:5].tolist() == [7, 2, 1, 0, 4]
    mean = data.train.images_NCHW.float().mean().item() / 255
    assert mean == pytest.approx(0.1307, abs=0.00005)
