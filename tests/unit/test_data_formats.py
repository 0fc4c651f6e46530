import gzip
import io
import os
import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from data_files import (
    idx_bytes,
    python2_pickle,
    random_images,
    tiny_arrays,
    write_cifar,
    write_idx,
    write_mnist_pickle,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from profiles import at_most
from sklearn.datasets import load_digits

from jemtrack.data.sources.fetch import fetch
from jemtrack.data.sources.formats import (
    load_arrays,
    read_array_pickles,
    read_cifar10,
    read_cifar100,
    read_digits,
    read_idx,
    read_mnist_pickle,
    read_mnist_table,
)
from jemtrack.errors import InputError


def test_digits_are_those_of_scikit_learn(tmp_path):
    images = read_digits(fetch("digits", tmp_path))
    theirs = load_digits()

    assert images.test is None
    assert images.train.images_NCHW.shape == (1797, 1, 8, 8)
    assert torch.equal(images.train.labels_N, torch.from_numpy(theirs.target))
    # 17 grey levels spread evenly over a byte can be told apart again.
    levels = np.rint(images.train.images_NCHW[:, 0].numpy() / 255 * 16)
    np.testing.assert_array_equal(levels, theirs.images)
    assert sorted(images.train.images_NCHW.unique().tolist()) == [
        round(value * 255 / 16) for value in range(17)
    ]


def test_mnist5k_is_what_its_table_says(tmp_path):
    paths = fetch("mnist5k", tmp_path)
    images = read_mnist_table(paths)
    table = pd.read_csv(paths[0], header=None).to_numpy()

    assert images.test is None
    np.testing.assert_array_equal(
        images.train.images_NCHW.numpy().reshape(5000, 784), table[:, :784]
    )
    np.testing.assert_array_equal(images.train.labels_N.numpy(), table[:, 784])
    assert images.train.labels_N.bincount().tolist() == [500] * 10


def test_table_of_another_width_is_refused(tmp_path):
    path = tmp_path / "digits.csv.gz"
    path.write_bytes(gzip.compress(b"1,2,3\n4,5,6\n"))

    with pytest.raises(InputError, match=r"digits.csv.gz: rows must be 64 pixels .* got 3"):
        read_digits([path])


@at_most(50)
@given(
    images=hnp.arrays(np.uint8, st.tuples(st.integers(1, 4), st.just(28), st.just(28))),
    data=st.data(),
)
def test_idx_files_come_back(tmp_path_factory, images, data):
    labels = data.draw(hnp.arrays(np.uint8, len(images)))
    folder = tmp_path_factory.mktemp("idx")
    paths = write_idx(folder, (images, labels), (images[::-1], labels[::-1]))

    read = read_idx(paths)

    np.testing.assert_array_equal(read.train.images_NCHW[:, 0].numpy(), images)
    np.testing.assert_array_equal(read.train.labels_N.numpy(), labels)
    np.testing.assert_array_equal(read.test.images_NCHW[:, 0].numpy(), images[::-1])
    np.testing.assert_array_equal(read.test.labels_N.numpy(), labels[::-1])


WHOLE_IDX = idx_bytes(random_images(2, 3, 3))


def test_pickled_arrays_are_images_and_labels(tmp_path):
    images, labels = random_images(5, 4, 6), np.arange(5)
    paths = [tmp_path / name for name in ("images.gz", "labels.gz")]
    for path, values in zip(paths, (images, labels), strict=True):
        path.write_bytes(gzip.compress(pickle.dumps(values, protocol=4)))

    read = read_array_pickles(paths)

    np.testing.assert_array_equal(read.train.images_NCHW[:, 0].numpy(), images)
    np.testing.assert_array_equal(read.train.labels_N.numpy(), labels)
    assert read.test is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08",
        b"\0\0\x0d" + WHOLE_IDX[3:],
        WHOLE_IDX[:-1],
        WHOLE_IDX[:9],
        WHOLE_IDX + b"x",
    ],
)
def test_broken_idx_is_refused(tmp_path, content):
    paths = write_idx(tmp_path, *tiny_arrays())
    paths[0].write_bytes(gzip.compress(content))

    with pytest.raises(InputError, match=r"train-images.* is not a whole IDX file"):
        read_idx(paths)


def test_both_forms_of_mnist_are_the_same_tensors(tmp_path):
    (images, labels), test = tiny_arrays(12)
    from_idx = read_idx(write_idx(tmp_path, (images, labels), test))
    parts = [(images[:8], labels[:8]), (images[8:], labels[8:]), test]
    from_pickle = read_mnist_pickle([write_mnist_pickle(tmp_path / "mnist.pkl.gz", parts)])

    for part in ("train", "test"):
        ours, theirs = getattr(from_idx, part), getattr(from_pickle, part)
        assert torch.equal(ours.images_NCHW, theirs.images_NCHW)
        assert torch.equal(ours.labels_N, theirs.labels_N)


def test_cifar10_batches_are_joined_in_order(tmp_path):
    images = random_images(12, 3, 32, 32)
    names = ["test_batch", *(f"data_batch_{number}" for number in (2, 1, 3, 5, 4))]
    order = [5, 1, 0, 2, 4, 3]  # the archive's order is not the batches'
    batches = {
        name: {
            "data": images[2 * index : 2 * index + 2].reshape(2, 3072),
            "labels": [index, index + 1],
            "batch_label": "as published",
        }
        for name, index in zip(names, order, strict=True)
    }

    read = read_cifar10([write_cifar(tmp_path / "cifar-10-python.tar.gz", batches)])

    np.testing.assert_array_equal(read.train.images_NCHW.numpy(), images[:10])
    np.testing.assert_array_equal(read.test.images_NCHW.numpy(), images[10:])
    assert read.train.labels_N.tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert read.test.labels_N.tolist() == [5, 6]


def test_cifar100_has_its_fine_classes(tmp_path):
    images = random_images(3, 3, 32, 32)
    batch = {
        "data": images.reshape(3, -1),
        "fine_labels": [99, 0, 50],
        "coarse_labels": [1, 1, 1],
    }
    batches = {"train": batch, "test": batch, "meta": {"fine_label_names": ["apple"]}}

    read = read_cifar100([write_cifar(tmp_path / "cifar-100-python.tar.gz", batches)])

    np.testing.assert_array_equal(read.train.images_NCHW.numpy(), images)
    assert read.train.labels_N.tolist() == read.test.labels_N.tolist() == [99, 0, 50]


def test_cifar_without_a_batch_is_refused(tmp_path):
    path = write_cifar(tmp_path / "cifar-100-python.tar.gz", {"meta": {}})

    with pytest.raises(InputError, match="lacks train, test"):
        read_cifar100([path])


@at_most(50)
@given(hnp.arrays(st.sampled_from([np.uint8, np.int64, np.float32]), hnp.array_shapes()))
def test_python2_pickles_of_arrays_are_read(values):
    read = load_arrays(io.BytesIO(python2_pickle({"data": values})), "a.pkl")[b"data"]

    np.testing.assert_array_equal(read, values)
    assert read.dtype == values.dtype


@pytest.mark.parametrize("module_name", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_both_names_of_numpy_are_known(module_name):
    pickled = python2_pickle(np.arange(3)).replace(b"numpy.core.multiarray", module_name)

    assert module_name in pickled
    np.testing.assert_array_equal(load_arrays(io.BytesIO(pickled), "a.pkl"), [0, 1, 2])


class _Malicious:
    def __init__(self, function, *values):
        self.reduction = (function, values)

    def __reduce__(self):
        return self.reduction


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("function", "name"),
    [(os.mkdir, "mkdir"), (eval, "eval"), (partial, "functools.partial"), (np.load, "load")],
)
def test_pickle_that_asks_for_more_is_refused(tmp_path, protocol, function, name):
    marker = tmp_path / "it-ran"
    argument = f"__import__('os').mkdir({str(marker)!r})" if function is eval else str(marker)
    pickled = pickle.dumps({"data": _Malicious(function, argument)}, protocol)

    with pytest.raises(InputError, match=rf"a.pkl: the pickle asks for .*{name}"):
        load_arrays(io.BytesIO(pickled), "a.pkl")
    assert not marker.exists()


@at_most(50)
@given(cut=st.integers(0, 200))
def test_truncated_pickle_is_refused(cut):
    pickled = python2_pickle({"data": np.arange(50), "labels": [1, 2]})

    with pytest.raises(InputError, match=r"a.pkl: is not a whole pickle"):
        load_arrays(io.BytesIO(pickled[:cut]), "a.pkl")


def test_malicious_pickle_within_an_archive_is_refused(tmp_path):
    marker = tmp_path / "it-ran"
    batches = {"train": {"data": _Malicious(os.mkdir, str(marker))}, "test": {}}
    path = write_cifar(tmp_path / "cifar-100-python.tar.gz", batches)

    with pytest.raises(InputError, match=r"cifar-100-python.tar.gz: train: the pickle asks for"):
        read_cifar100([path])
    assert not marker.exists()
