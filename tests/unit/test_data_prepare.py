import numpy as np
import pytest
from data_files import random_images

from jemtrack.data.images import DataSplits
from jemtrack.data.sources.fetch import fetch
from jemtrack.data.splits import prepare
from jemtrack.errors import InputError, ParameterError


@pytest.fixture(scope="module")
def digits_root(tmp_path_factory):
    data_root = tmp_path_factory.mktemp("data")
    fetch("digits", data_root)
    return data_root


def prepared(data_root, dataset="digits", **changed):
    values = {"n_classes": 10, "n_valid": 100, "seed": 0} | changed
    return prepare(dataset, data_root, **values)


def test_digits_are_split_in_three(digits_root):
    splits = prepared(digits_root)

    assert (splits.dataset, splits.n_classes, splits.flip, splits.seed) == ("digits", 10, False, 0)
    assert [len(part) for part in (splits.train, splits.valid, splits.test)] == [1338, 100, 359]
    for part in (splits.train, splits.valid, splits.test):
        shares = part.labels_N.bincount(minlength=10) / len(part)
        assert (shares - 0.1).abs().max() < 0.011


def test_same_parameters_make_the_same_file(digits_root, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        prepared(digits_root, seed=seed).save(tmp_path / name)

    contents = [(tmp_path / name).read_bytes() for name in "abc"]
    assert contents[0] == contents[1] != contents[2]
    assert DataSplits.load(tmp_path / "c").seed == 4


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "is damaged"),
        (lambda path: path.write_bytes(b"1,2,3\n"), "has the wrong checksum"),
    ],
)
def test_damaged_file_is_named_with_its_mend(tmp_path, damage, message):
    (path,) = fetch("digits", tmp_path)
    damage(path)

    with pytest.raises(InputError, match=rf"{path} {message}.*`jemtrack data digits`"):
        prepared(tmp_path)
    fetch("digits", tmp_path)
    assert len(prepared(tmp_path).valid) == 100


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_classes": 5}, "n_classes must be 10 for digits, got 5"),
        ({"n_classes": 12}, "n_classes must be 10 for digits, got 12"),
        ({"n_valid": 1429}, "n_valid must be 0 to 1428, .* 1438 images .* got 1429"),
        ({"dataset": "mnits"}, "did you mean mnist?"),
        ({"dataset": "mnist"}, "is missing.*`jemtrack data mnist`"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(digits_root, changed, message):
    with pytest.raises(InputError, match=message):
        prepared(digits_root, **changed)


def test_own_data_are_prepared(tmp_path):
    images, labels = random_images(20, 9, 9, 3), np.arange(20) % 4
    np.savez(
        tmp_path / "my.npz",
        images=images,
        labels=labels,
        test_images=images[:3],
        test_labels=labels[:3],
        flip=np.array(True),
    )
    fetch("mine", tmp_path / "data", tmp_path / "my.npz")

    splits = prepared(tmp_path / "data", "mine", n_classes=4, n_valid=8)

    assert (splits.flip, splits.n_classes) == (True, 4)
    assert [len(part) for part in (splits.train, splits.valid, splits.test)] == [12, 8, 3]
    np.testing.assert_array_equal(splits.test.images_NCHW.numpy(), images[:3].transpose(0, 3, 1, 2))
    with pytest.raises(ParameterError, match="n_classes must be 4 for mine"):
        prepared(tmp_path / "data", "mine", n_classes=10, n_valid=8)


@pytest.mark.parametrize("content", ["", "nonsense", f"{'0' * 64}  other.npz\n"])
def test_unreadable_checksum_of_own_data_is_refused(tmp_path, content):
    np.savez(tmp_path / "my.npz", images=random_images(4, 8, 8), labels=np.array([0, 1, 0, 1]))
    (path,) = fetch("mine", tmp_path / "data", tmp_path / "my.npz")
    (path.parent / "SHA256SUMS").write_text(content, encoding="utf-8")

    with pytest.raises(InputError, match="SHA256SUMS: must be one line"):
        prepared(tmp_path / "data", "mine", n_classes=2, n_valid=1)


ONE, TWO = np.zeros(6, int), np.arange(6) % 2


@pytest.mark.parametrize(
    ("labels", "test_labels", "message"),
    [
        (ONE, TWO, "train on must be of at least two classes, got 6 of class 0"),
        (TWO, ONE, "test on must be of at least two classes, got 6 of class 0"),
        (TWO, TWO[1:2], "test on must be of at least two classes, got 1 of class 1"),
        (TWO[:1], TWO, "train on must be of at least two classes, got 1 of class 0"),
    ],
)
def test_parts_of_one_class_or_image_are_refused(tmp_path, labels, test_labels, message):
    images = random_images(6, 8, 8)
    arrays = {
        "images": images[: len(labels)],
        "labels": labels,
        "test_images": images[: len(test_labels)],
        "test_labels": test_labels,
    }
    np.savez(tmp_path / "my.npz", **arrays)
    fetch("mine", tmp_path / "data", tmp_path / "my.npz")

    with pytest.raises(ParameterError, match=f"dataset: the images to {message}"):
        prepared(tmp_path / "data", "mine", n_classes=2, n_valid=0)


def test_a_drawn_test_part_of_one_class_is_refused(tmp_path):
    np.savez(tmp_path / "my.npz", images=random_images(4, 8, 8), labels=np.array([0, 1, 0, 1]))
    fetch("mine", tmp_path / "data", tmp_path / "my.npz")

    with pytest.raises(ParameterError, match="to test on must be of at least two classes, got 1"):
        prepared(tmp_path / "data", "mine", n_classes=2, n_valid=0)
