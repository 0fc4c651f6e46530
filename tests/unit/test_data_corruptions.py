"""Corruptions: what each does to an image, and how much."""

import pytest
import torch

from jemtrack.data.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from jemtrack.errors import ParameterError

GREY = torch.full((6, 3, 16, 16), 100, dtype=torch.uint8)


def pictures(n=40, channels=1, side=20):
    """Images with a bright square on black."""
    images = torch.zeros(n, channels, side, side, dtype=torch.uint8)
    images[:, :, 6:14, 6:14] = 200
    return images


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("side", [8, 28, 32])
def test_corrupted_images_have_the_shape_and_are_the_same_again(kind, side):
    images = pictures(4, 3, side)
    before = images.clone()

    for strength in STRENGTHS:
        found = corrupt(images, kind, strength, seed=1)
        assert found.shape == images.shape
        assert found.dtype == torch.uint8
        assert torch.equal(found, corrupt(images, kind, strength, seed=1))
    assert torch.equal(images, before)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_what_is_stronger_changes_more(kind):
    images = pictures()
    off = [
        (corrupt(images, kind, strength, seed=2).float() - images).square().mean().item()
        for strength in STRENGTHS
    ]

    assert off == sorted(off)
    assert 0 < off[0] < off[-1]


def test_noise_has_the_deviation_that_it_says():
    noise = corrupt(GREY.repeat(40, 1, 1, 1), "gaussian_noise", 1, seed=0).float() - 100

    assert noise.mean().abs() < 0.5
    assert noise.std() == pytest.approx(0.08 * 255, rel=0.02)


def test_impulses_are_as_many_as_they_say_and_of_all_channels_at_once():
    found = corrupt(GREY.repeat(60, 1, 1, 1), "impulse_noise", 5, seed=0)

    changed = (found != 100).any(dim=1)
    assert changed.double().mean() == pytest.approx(0.27, abs=0.01)
    assert {*found.unique().tolist()} == {0, 100, 255}
    assert torch.equal(found[:, 0], found[:, 2])


def test_contrast_and_brightness_are_exact():
    half = torch.cat([GREY[:, :, :8] + 100, GREY[:, :, 8:]], dim=2)  # 200 above, 100 below

    assert {*corrupt(half, "contrast", 2, seed=0).unique().tolist()} == {125, 175}
    assert {*corrupt(half, "brightness", 2, seed=0).unique().tolist()} == {151, 251}
    assert corrupt(half, "brightness", 5, seed=0).max() == 255


def test_blur_keeps_what_is_even_and_the_mean():
    assert torch.equal(corrupt(GREY, "blur", 5, seed=0), GREY)
    images = pictures()
    blurred = corrupt(images, "blur", 3, seed=0).float()
    assert blurred.mean() == pytest.approx(images.float().mean().item(), rel=0.02)


def test_a_shift_is_as_long_as_it_says():
    images = torch.zeros(30, 1, 20, 20, dtype=torch.uint8)
    images[:, :, 10, 10] = 240

    found = corrupt(images, "translation", 4, seed=0)  # a fifth of 20 pixels

    places = {tuple(image[0].nonzero()[0].tolist()) for image in found}
    assert places == {(6, 6), (6, 14), (14, 6), (14, 14)}


def test_a_square_is_hidden_anywhere():
    found = corrupt(torch.full((3000, 2, 20, 20), 9, dtype=torch.uint8), "occlusion", 3, seed=0)

    hidden = (found == 0).all(dim=1)
    assert ((found == 0).any(dim=1) == hidden).all()
    assert (hidden.sum(dim=(1, 2)) == 7 * 7).all()
    assert hidden.any(dim=0).all()


def test_turning_is_about_the_middle():
    images = torch.zeros(20, 1, 21, 21, dtype=torch.uint8)
    images[:, :, 10, 10] = 240

    found = corrupt(images, "rotation", 5, seed=0)

    assert (found[:, 0, 10, 10] > 200).all()
    # To the left and to the right: a mark above the middle goes either way.
    images = torch.zeros(20, 1, 21, 21, dtype=torch.uint8)
    images[:, :, 3, 10] = 240
    columns = [image[0].float().amax(dim=0).argmax().item() for image in
               corrupt(images, "rotation", 5, seed=0)]  # fmt: skip
    assert {column > 10 for column in columns} == {True, False}


def test_what_is_not_known_is_refused():
    with pytest.raises(ParameterError, match=r"corruptions must be of gaussian_noise.*got 'fog'"):
        corrupt(GREY, "fog", 1, seed=0)
    with pytest.raises(ParameterError, match="strength must be 1 to 5, got 6"):
        corrupt(GREY, "blur", 6, seed=0)
