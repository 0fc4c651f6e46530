import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jemtrack.data.augment import Augmentation
from jemtrack.data.images import LabelledImages
from jemtrack.errors import InputError
from jemtrack.jem.training.batches import TrainingBatches, pick_labelled


def make_batches(n_images=50, batch_size=16, seed=0, labelled=None) -> TrainingBatches:
    """Images whose pixels all are the image's number."""
    pixels_N = torch.arange(n_images, dtype=torch.uint8)
    images = pixels_N[:, None, None, None].expand(-1, 1, 8, 8).contiguous()
    plain = Augmentation(sigma=0.0, flip=False, pad=0)
    return TrainingBatches(
        LabelledImages(images, pixels_N.long()), plain, batch_size, seed, labelled
    )


def numbers(images_BCHW) -> list[int]:
    return ((images_BCHW[:, 0, 0, 0] + 1) * 127.5).round().long().tolist()


def test_an_epoch_is_a_pass_and_labels_belong_to_their_images():
    batches = list(make_batches().epoch(0))

    seen = [number for batch in batches for number in numbers(batch.images_BCHW)]
    assert sorted(seen) == list(range(50))
    assert seen == torch.cat([batch.labels_B for batch in batches]).tolist()
    assert all(batch.density_images_BCHW is None for batch in batches)


@given(epoch=st.integers(0, 3), start=st.integers(0, 4), few=st.booleans(), sigma=st.booleans())
def test_a_batch_depends_on_its_place_alone(epoch, start, few, sigma):
    batches = make_batches(labelled=torch.tensor([3, 5, 8, 40, 41]) if few else None)
    if sigma:
        noisy = Augmentation(sigma=0.1, flip=True, pad=1)
        batches = TrainingBatches(batches.images, noisy, 16, 0, batches.labelled_M)

    whole, rest = list(batches.epoch(epoch)), list(batches.epoch(epoch, start))

    assert len(whole) == len(batches) == 4
    for mine, theirs in zip(rest, whole[start:], strict=True):
        assert mine.images_BCHW.equal(theirs.images_BCHW)
        assert mine.labels_B.equal(theirs.labels_B)
        if few:
            assert mine.density_images_BCHW.equal(theirs.density_images_BCHW)


@pytest.mark.parametrize("few", [False, True])
def test_plain_images_for_the_density_are_others_and_whole(few):
    labelled = torch.tensor([3, 5, 8]) if few else None
    batches = make_batches(labelled=labelled)
    moved = Augmentation(sigma=0.1, flip=True, pad=3)
    columns = torch.arange(8, dtype=torch.uint8).expand(50, 1, 8, 8).contiguous()
    images = LabelledImages(columns * 30, batches.images.labels_N)
    plain = TrainingBatches(images, moved, 16, 0, labelled, plain_density=True)

    epoch = list(plain.epoch(1))

    density_NCHW = torch.cat([batch.density_images_BCHW for batch in epoch])
    noise_NCHW = density_NCHW - (images.images_NCHW / 127.5 - 1)
    assert len(density_NCHW) == 50
    assert noise_NCHW.std() == pytest.approx(0.1, rel=0.05)
    assert epoch[0].images_BCHW[:, 0, 0].diff().abs().max() > 0.5  # shifted or mirrored
    rest = next(plain.epoch(1, start=2))
    assert rest.density_images_BCHW.equal(epoch[2].density_images_BCHW)


def test_plain_images_are_drawn_apart_from_those_of_the_class():
    batches = make_batches()
    plain = TrainingBatches(batches.images, batches.augmentation, 16, 0, None, plain_density=True)

    seen = [numbers(batch.density_images_BCHW) for batch in plain.epoch(0)]

    assert sorted(number for batch in seen for number in batch) == list(range(50))
    assert seen[0] != numbers(next(plain.epoch(0)).images_BCHW)


def test_each_batch_has_a_seed_of_its_own_and_another_after_a_divergence():
    batches = make_batches()
    seeds = [
        batch.seed
        for epoch, retry in ((0, 0), (1, 0), (0, 1))
        for batch in batches.epoch(epoch, retry=retry)
    ]
    assert len(set(seeds)) == 12
    assert next(batches.epoch(1, 2)).seed == seeds[6]


def test_few_labelled_images_are_cycled_through_beside_all_images():
    labelled_M = torch.tensor([3, 5, 8, 40, 41])
    batches = [
        batch
        for epoch in (0, 1)
        for batch in make_batches(batch_size=2, labelled=labelled_M).epoch(epoch)
    ]

    density = [number for batch in batches for number in numbers(batch.density_images_BCHW)]
    assert sorted(density) == sorted([*range(50), *range(50)])
    given_labels = torch.cat([batch.labels_B for batch in batches]).tolist()
    assert set(given_labels) == set(labelled_M.tolist())
    # A pass over the five takes three batches; each pass has each of them once.
    for first in range(0, len(given_labels) - 4, 5):
        assert sorted(given_labels[first : first + 5]) == labelled_M.tolist()


def test_noise_and_order_differ_between_epochs_and_seeds():
    noisy = Augmentation(sigma=0.1, flip=False, pad=0)
    images = make_batches().images
    batches = {
        (seed, epoch): next(TrainingBatches(images, noisy, 50, seed).epoch(epoch)).images_BCHW
        for seed in (1, 2)
        for epoch in (0, 1)
    }

    noises = [image - image.mean((1, 2, 3), keepdim=True) for image in batches.values()]
    for i, one in enumerate(noises):
        assert all(not one.equal(other) for other in noises[:i])


@given(per_class=st.integers(1, 7), seed=st.integers(0, 99))
def test_labelled_images_are_drawn_per_class(per_class, seed):
    labels_N = torch.arange(35) % 5

    picked = pick_labelled(labels_N, per_class, seed)

    assert picked.unique().equal(picked)
    assert labels_N[picked].bincount().tolist() == [per_class] * 5
    assert pick_labelled(labels_N, per_class, seed).equal(picked)


def test_more_labels_than_there_are_is_refused_with_the_largest_number():
    with pytest.raises(InputError, match=r"labels_per_class must be <= 2.* got 3"):
        pick_labelled(torch.tensor([0, 0, 0, 1, 1, 2, 2, 2]), 3, 0)
