import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jemtrack.data.augment import (
    Augmentation,
    add_noise,
    augment,
    crop_padding,
    shifted_crop,
)
from jemtrack.data.images import to_unit_range
from jemtrack.errors import InputError
from jemtrack.parameters import build


def images_of(n_images=5, channels=3, height=8, width=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (n_images, channels, height, width)
    return torch.randint(256, shape, generator=generator, dtype=torch.uint8)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def plain_augment(images_BCHW, augmentation, generator):
    """One image after the other, from the same draws."""
    n_images, pad = len(images_BCHW), augmentation.pad
    shifts_B2 = torch.randint(2 * pad + 1, (n_images, 2), generator=generator).tolist()
    flips_B = [False] * n_images
    if augmentation.flip:
        flips_B = (torch.rand(n_images, generator=generator) < 0.5).tolist()
    height, width = images_BCHW.shape[2:]
    results = []
    for image_CHW, (row, column), flipped in zip(
        images_BCHW.numpy(), shifts_B2, flips_B, strict=True
    ):
        padded_CHW = np.pad(image_CHW, ((0, 0), (pad, pad), (pad, pad)), mode="reflect")
        crop_CHW = padded_CHW[:, row : row + height, column : column + width]
        crop_CHW = crop_CHW[:, :, ::-1] if flipped else crop_CHW
        results.append(crop_CHW.astype(np.float32) / np.float32(127.5) - np.float32(1))
    result_BCHW = torch.from_numpy(np.stack(results))
    if augmentation.sigma == 0:
        return result_BCHW
    noise_BCHW = torch.randn(images_BCHW.shape, generator=generator)
    return result_BCHW + augmentation.sigma * noise_BCHW


@settings(deadline=None)
@given(
    n_images=st.integers(1, 8),
    channels=st.sampled_from([1, 3]),
    sides=st.tuples(st.integers(5, 12), st.integers(5, 12)),
    pad=st.integers(0, 4),
    flipping=st.booleans(),
    sigma=st.sampled_from([0.0, 0.03]),
    seed=st.integers(0, 1000),
)
def test_a_batch_is_what_its_images_are_one_by_one(
    n_images, channels, sides, pad, flipping, sigma, seed
):
    augmentation = Augmentation(sigma=sigma, flip=flipping, pad=pad)
    images_BCHW = images_of(n_images, channels, *sides, seed=seed)

    torch.testing.assert_close(
        augment(images_BCHW, augmentation, seeded(seed)),
        plain_augment(images_BCHW, augmentation, seeded(seed)),
        rtol=0,
        atol=1e-6,
    )


def test_images_in_another_memory_format_give_the_same():
    images_BCHW, augmentation = images_of(), Augmentation(sigma=0.1, flip=True, pad=2)
    channels_last_BCHW = images_BCHW.to(memory_format=torch.channels_last)

    assert torch.equal(
        augment(channels_last_BCHW, augmentation, seeded()),
        augment(images_BCHW, augmentation, seeded()),
    )


@pytest.mark.parametrize("pad", [1, 4])
def test_shifts_are_uniform_over_the_allowed_range(pad):
    """Each image shows its own coordinates, so that its centre tells its shift (chi-squared)."""
    n_images, side, n_shifts = 40_000, 9, 2 * pad + 1
    rows_HW = torch.arange(side, dtype=torch.uint8)[:, None].expand(side, side)
    image_CHW = torch.stack([rows_HW, rows_HW.T])
    images_BCHW = image_CHW.expand(n_images, 2, side, side)
    augmentation = Augmentation(sigma=0.0, flip=False, pad=pad)
    centres_B2 = augment(images_BCHW, augmentation, seeded())[:, :, side // 2, side // 2]
    shifts_B2 = ((centres_B2 + 1) * 127.5).round().long() - side // 2 + pad
    counts = torch.bincount(shifts_B2[:, 0] * n_shifts + shifts_B2[:, 1])

    assert shifts_B2.min() == 0
    assert shifts_B2.max() == 2 * pad
    expected = n_images / n_shifts**2
    chi_squared = ((counts - expected).square() / expected).sum().item()
    freedom = n_shifts**2 - 1
    assert chi_squared < freedom + 4 * (2 * freedom) ** 0.5


def test_half_of_the_natural_images_are_flipped_and_no_digit():
    n_images = 20_000
    images_BCHW = torch.tensor([[[[0, 255]]]], dtype=torch.uint8).expand(n_images, 1, 1, 2)
    natural, digits = (Augmentation(sigma=0.0, flip=flip, pad=0) for flip in (True, False))
    flipped_B = augment(images_BCHW, natural, seeded())[:, 0, 0, 0] == 1

    assert flipped_B.double().mean().item() == pytest.approx(0.5, abs=0.015)
    assert torch.equal(augment(images_BCHW, digits, seeded()), to_unit_range(images_BCHW))


def test_flipping_twice_is_nothing():
    images_BCHW, flipped_B = images_of(), torch.tensor([True, False, True, True, False])
    still_B2 = torch.ones(5, 2, dtype=torch.int64)
    once_BCHW = shifted_crop(images_BCHW, still_B2, 1, flipped_B)

    assert torch.equal(shifted_crop(once_BCHW, still_B2, 1, flipped_B), images_BCHW)
    assert torch.equal(once_BCHW[1], images_BCHW[1])
    assert torch.equal(once_BCHW[0], images_BCHW[0].flip(2))


@settings(deadline=None)
@given(pad=st.integers(0, 4))
def test_the_middle_shift_changes_nothing(pad):
    images_BCHW = images_of()
    assert torch.equal(shifted_crop(images_BCHW, torch.full((5, 2), pad), pad), images_BCHW)


def test_the_scale_s_ends_are_exact():
    pixels_BCHW = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    scaled = to_unit_range(pixels_BCHW).flatten()

    assert (scaled[0].item(), scaled[255].item()) == (-1.0, 1.0)
    assert torch.equal(((scaled + 1) * 127.5).round().to(torch.uint8), pixels_BCHW.flatten())


def test_scaling_and_noise_leave_their_input_alone():
    images_BCHW = torch.rand(2, 1, 8, 8)
    before_BCHW = images_BCHW.clone()
    to_unit_range(images_BCHW)
    add_noise(images_BCHW, 1.0, seeded())

    assert torch.equal(images_BCHW, before_BCHW)


@settings(deadline=None)
@given(sigma=st.floats(0.01, 2), seed=st.integers(0, 1000))
def test_noise_has_its_standard_deviation(sigma, seed):
    noise_BCHW = add_noise(torch.zeros(20, 3, 32, 32), sigma, seeded(seed))

    assert noise_BCHW.std().item() == pytest.approx(sigma, rel=0.02)
    assert noise_BCHW.mean().item() == pytest.approx(0, abs=0.025 * sigma)


def test_sigma_zero_draws_nothing():
    generator, images_BCHW = seeded(), torch.rand(2, 1, 8, 8)

    assert torch.equal(add_noise(images_BCHW, 0.0, generator), images_BCHW)
    assert torch.equal(generator.get_state(), seeded().get_state())


@pytest.mark.parametrize("flipping", [True, False])
def test_noise_lies_on_top_of_the_same_crops(flipping):
    images_BCHW = images_of(50)
    clean_BCHW, noisy_BCHW = (
        augment(images_BCHW, Augmentation(sigma=sigma, flip=flipping, pad=2), seeded())
        for sigma in (0.0, 1e-3)
    )
    assert (clean_BCHW - noisy_BCHW).abs().max() < 1e-2


def test_the_generator_alone_decides():
    images_BCHW, augmentation = images_of(), Augmentation(sigma=0.1, flip=True, pad=1)
    torch.manual_seed(1)
    first_BCHW = augment(images_BCHW, augmentation, seeded(3))
    torch.manual_seed(2)

    assert torch.equal(augment(images_BCHW, augmentation, seeded(3)), first_BCHW)
    assert not torch.equal(augment(images_BCHW, augmentation, seeded(4)), first_BCHW)


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (1, 28), (3, 32)])
def test_shape_and_type(channels, side):
    images_BCHW = images_of(4, channels, side, side)
    before_BCHW = images_BCHW.clone()
    augmentation = Augmentation(sigma=0.03, flip=True, pad=crop_padding(side))
    result_BCHW = augment(images_BCHW, augmentation, seeded())

    assert result_BCHW.shape == images_BCHW.shape
    assert result_BCHW.dtype == torch.float32
    assert result_BCHW.is_contiguous()
    assert torch.equal(images_BCHW, before_BCHW)


def test_padding_by_size():
    assert [crop_padding(side) for side in (8, 15, 16, 28, 32)] == [1, 1, 4, 4, 4]


def test_padding_as_wide_as_the_image_is_refused():
    with pytest.raises(InputError, match="pad must be < the image's side, got 8 for 8x9 pixels"):
        augment(images_of(1, 1, 8, 9), Augmentation(sigma=0.0, flip=False, pad=8), seeded())


@pytest.mark.parametrize(
    ("field", "value"),
    [("sigma", -0.1), ("sigma", float("nan")), ("pad", -1), ("pad", 1.5), ("flip", 1)],
)
def test_a_bad_parameter_is_refused_by_name(field, value):
    values = {"sigma": 0.0, "flip": False, "pad": 1} | {field: value}
    with pytest.raises(InputError, match=f"here.{field}"):
        build(Augmentation, values, "here")
