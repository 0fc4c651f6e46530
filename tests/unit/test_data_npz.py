import numpy as np
import pytest
from data_files import random_images
from hypothesis import given
from hypothesis import strategies as st
from profiles import at_most

from jemtrack.data.sources.own import read_npz
from jemtrack.errors import InputError

IMAGES = random_images(6, 8, 8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def saved(folder, **arrays):
    path = folder / "mine.npz"
    np.savez(path, **arrays)
    return path


@at_most(50)
@given(
    side=st.integers(8, 32),
    channels=st.sampled_from([None, 1, 3]),
    last=st.booleans(),
    label_type=st.sampled_from([np.uint8, np.int32, np.int64, np.uint64]),
)
def test_every_layout_becomes_channels_first(tmp_path_factory, side, channels, last, label_type):
    images = random_images(3, channels or 1, side, side)
    layout = images[:, 0] if channels is None else images
    layout = images.transpose(0, 2, 3, 1) if last and channels else layout
    path = saved(
        tmp_path_factory.mktemp("npz"), images=layout, labels=np.arange(3, dtype=label_type)
    )

    read = read_npz([path])

    np.testing.assert_array_equal(read.train.images_NCHW.numpy(), images)
    assert read.train.labels_N.tolist() == [0, 1, 2]
    assert read.test is None
    assert read.flip is False


@pytest.mark.parametrize("float_type", [np.float16, np.float32, np.float64])
def test_floats_are_rounded_to_bytes(tmp_path, float_type):
    """Every byte over 255 comes back, whatever the precision that it was written in."""
    every_byte = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    path = saved(tmp_path, images=(every_byte / 255).astype(float_type), labels=np.array([0]))

    np.testing.assert_array_equal(read_npz([path]).train.images_NCHW[0].numpy(), every_byte)


def test_test_images_and_flip_are_read(tmp_path):
    path = saved(
        tmp_path,
        images=IMAGES,
        labels=LABELS,
        test_images=IMAGES[:2, ..., None],
        test_labels=LABELS[:2],
        flip=np.array(True),
    )

    read = read_npz([path])

    assert read.flip is True
    np.testing.assert_array_equal(read.test.images_NCHW[:, 0].numpy(), IMAGES[:2])
    assert read.test.labels_N.tolist() == [0, 1]


def with_pixel(value, image=4):
    images = IMAGES / 255
    images[image, 3, 3] = value
    images[image + 1, 0, 0] = value
    return images


REFUSED = {
    "no labels": ({"images": IMAGES}, "no array 'labels'.*found images"),
    "nothing": ({}, "no array 'images'.*found nothing"),
    "test images alone": (
        {"images": IMAGES, "labels": LABELS, "test_images": IMAGES},
        "no array 'test_labels'",
    ),
    "lengths": ({"images": IMAGES, "labels": LABELS[:5]}, "one length, got 6 and 5"),
    "empty": ({"images": IMAGES[:0], "labels": LABELS[:0]}, "images is empty"),
    "NaN": ({"images": with_pixel(np.nan), "labels": LABELS}, "2 pixels are NaN.*in image 4"),
    "infinite": ({"images": with_pixel(-np.inf), "labels": LABELS}, "2 pixels .*in image 4"),
    "above 1": ({"images": with_pixel(1.5), "labels": LABELS}, "0 to 1, got 0 to 1.5.*image 4"),
    "below 0": ({"images": with_pixel(-0.5), "labels": LABELS}, "got -0.5 to .*image 4"),
    "pixels of another type": ({"images": IMAGES.astype(int), "labels": LABELS}, "got int64"),
    "negative label": ({"images": IMAGES, "labels": LABELS - 1}, "got -1 at index 0"),
    "huge label": (
        {"images": IMAGES, "labels": np.array([0, 2**63, 0, 0, 0, 0], np.uint64)},
        "got 9223372036854775808 at index 1",
    ),
    "float labels": ({"images": IMAGES, "labels": LABELS / 1}, "whole numbers.*got float64"),
    "one-hot labels": ({"images": IMAGES, "labels": np.eye(6, dtype=int)}, r"of \(6, 6\)"),
    "too small": ({"images": random_images(6, 7, 7), "labels": LABELS}, "8 to 32 .* got 7x7"),
    "too large": ({"images": random_images(6, 33, 33), "labels": LABELS}, "got 33x33; resize"),
    "not square": ({"images": random_images(6, 8, 9), "labels": LABELS}, "got 8x9"),
    "two channels": ({"images": random_images(6, 2, 8, 8), "labels": LABELS}, "C 1 or 3"),
    "flat": ({"images": random_images(6, 64), "labels": LABELS}, r"got \(6, 64\)"),
    "flip": ({"images": IMAGES, "labels": LABELS, "flip": np.array([1, 0])}, "flip must be one"),
    "objects": ({"images": np.array([object()] * 6), "labels": LABELS}, "plain arrays"),
    "sizes of the parts": (
        {
            "images": IMAGES,
            "labels": LABELS,
            "test_images": random_images(6, 9, 9),
            "test_labels": LABELS,
        },
        r"one size .*\(1, 8, 8\) and \(1, 9, 9\)",
    ),
}


@pytest.mark.parametrize(("arrays", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays, message):
    path = saved(tmp_path, **arrays)

    with pytest.raises(InputError, match=f"(?s)mine.npz.*{message}") as caught:
        read_npz([path])
    assert "\n" not in str(caught.value)


@at_most(50)
@given(cut=st.floats(0, 0.999), compressed=st.booleans())
def test_truncated_file_is_refused(tmp_path_factory, cut, compressed):
    path = tmp_path_factory.mktemp("npz") / "mine.npz"
    (np.savez_compressed if compressed else np.savez)(path, images=IMAGES, labels=LABELS)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut * len(whole))])

    with pytest.raises(InputError, match=r"mine\.npz: is not a whole \.npz file"):
        read_npz([path])


@at_most(50)
@given(position=st.floats(0, 0.999), change=st.integers(1, 255))
def test_altered_byte_never_escapes_as_another_error(tmp_path_factory, position, change):
    path = tmp_path_factory.mktemp("npz") / "mine.npz"
    np.savez_compressed(path, images=IMAGES, labels=LABELS)
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= change
    path.write_bytes(content)

    try:
        read = read_npz([path])
    except InputError:
        return
    np.testing.assert_array_equal(read.train.images_NCHW[:, 0].numpy(), IMAGES)


def test_array_that_is_no_archive_is_refused(tmp_path):
    np.save(tmp_path / "mine.npy", IMAGES)

    with pytest.raises(InputError, match="not a zip archive"):
        read_npz([tmp_path / "mine.npy"])
