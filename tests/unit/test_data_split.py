import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from profiles import at_most

from jemtrack.data.images import LabelledImages, SourceImages
from jemtrack.data.splits import split
from jemtrack.errors import InputError

fast = at_most(60)


def numbered(labels: list[int], first: int = 0) -> LabelledImages:
    """Make images that carry their number in their first pixels, so that each can be followed."""
    images_NCHW = torch.zeros(len(labels), 1, 8, 8, dtype=torch.uint8)
    numbers_N = torch.arange(first, first + len(labels))
    images_NCHW[:, 0, 0, 0], images_NCHW[:, 0, 0, 1] = numbers_N // 256, numbers_N % 256
    return LabelledImages(images_NCHW, torch.tensor(labels, dtype=torch.int64))


def numbers(part: LabelledImages) -> list[int]:
    pixels_N = part.images_NCHW[:, 0, 0].long()
    return (pixels_N[:, 0] * 256 + pixels_N[:, 1]).tolist()


labels_of_few_classes = st.lists(st.integers(0, 4), min_size=6, max_size=120)
seeds = st.integers(0, 2**32 - 1)


@fast
@given(labels=labels_of_few_classes, seed=seeds, fraction=st.floats(0, 1), own_test=st.booleans())
def test_parts_are_disjoint_complete_and_keep_their_labels(labels, seed, fraction, own_test):
    assume(len(labels) > len(set(labels)))
    test = numbered([0, 1, 2], first=len(labels)) if own_test else None
    whole = SourceImages(numbered(labels), test)
    n_test = 0 if own_test else max(1, min(round(len(labels) / 5), len(labels) - len(set(labels))))
    n_valid = int(fraction * (len(labels) - n_test - len(set(labels))))

    parts = split(whole, 5, n_valid, seed)

    assert sorted(number for part in parts for number in numbers(part)) == list(
        range(len(labels) + 3 * own_test)
    )
    assert [len(part) for part in parts[1:]] == [n_valid, 3 if own_test else n_test]
    all_labels = [*labels, 0, 1, 2]
    for part in parts:
        assert part.labels_N.tolist() == [all_labels[number] for number in numbers(part)]
        assert numbers(part) == sorted(numbers(part))
    assert set(parts[0].labels_N.tolist()) == set(labels)


@fast
@given(labels=labels_of_few_classes, seed=seeds)
def test_the_largest_n_valid_leaves_one_image_of_each_class(labels, seed):
    whole = SourceImages(numbered(labels), numbered([0]))
    largest = len(labels) - len(set(labels))

    train, _, _ = split(whole, 5, largest, seed)
    assert sorted(train.labels_N.tolist()) == sorted(set(labels))

    message = rf"n_valid must be 0 to {largest},.* {len(labels)} images .*got {largest + 1}"
    with pytest.raises(InputError, match=message):
        split(whole, 5, largest + 1, seed)


@fast
@given(seed=seeds, n_valid=st.integers(10, 300))
def test_drawn_classes_keep_their_proportions(seed, n_valid):
    """No class is further than one image from its share."""
    sizes = np.array([300, 200, 60, 40])
    labels = np.repeat(np.arange(4), sizes).tolist()

    train, valid, test = split(SourceImages(numbered(labels)), 4, n_valid, seed)

    assert test.labels_N.bincount().tolist() == (sizes / 5).tolist()
    shares = sizes / sizes.sum() * n_valid
    assert (np.abs(valid.labels_N.bincount(minlength=4).numpy() - shares) <= 1).all()
    assert len(train) == 480 - n_valid


@fast
@given(seed=seeds, n_valid=st.integers(0, 40))
def test_same_seed_draws_the_same_and_n_valid_does_not_move_the_test_images(seed, n_valid):
    whole = SourceImages(numbered([0, 1, 2] * 20))

    first, again = (split(whole, 3, n_valid, seed) for _ in range(2))

    assert [numbers(part) for part in first] == [numbers(part) for part in again]
    assert numbers(first[2]) == numbers(split(whole, 3, 0, seed)[2])


@pytest.mark.parametrize("n_valid", [2, 30])
def test_another_seed_draws_others(n_valid):
    """With two images for three classes the draw is not stratified, with 30 it is."""
    images = numbered([0, 1, 2] * 40)
    valid = [numbers(split(SourceImages(images, images), 3, n_valid, seed)[1]) for seed in range(4)]
    test = [numbers(split(SourceImages(images), 3, n_valid, seed)[2]) for seed in range(4)]

    for drawn in (valid, test):
        assert all(drawn[0] != other for other in drawn[1:])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 3, 4, 0, 1], "n_classes must be >= 5 .* got 3: .* got 3 at index 2 of the train"),
        ([0, 1, -1, 4, 0, 1], "got -1 at index 2"),
    ],
)
def test_first_label_outside_the_classes_is_named(labels, message):
    with pytest.raises(InputError, match=message):
        split(SourceImages(numbered(labels)), 3, 0, 0)


def test_label_outside_the_classes_among_the_test_images_is_named():
    with pytest.raises(InputError, match="got 7 at index 1 of the test images"):
        split(SourceImages(numbered([0, 1, 2]), numbered([0, 7])), 3, 0, 0)


@pytest.mark.parametrize(
    ("n_valid", "seed", "message"),
    [(-1, 0, "n_valid must be 0 to"), (0, -1, "seed must be 0 to"), (0, 2**32, "seed must be")],
)
def test_parameters_out_of_range_are_refused(n_valid, seed, message):
    with pytest.raises(InputError, match=message):
        split(SourceImages(numbered([0, 1] * 5)), 2, n_valid, seed)


def test_images_too_few_to_test_on_are_refused():
    with pytest.raises(InputError, match="3 images of as many classes leave none to test on"):
        split(SourceImages(numbered([0, 1, 2])), 3, 0, 0)
