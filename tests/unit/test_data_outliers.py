"""Outliers: what each partner is, and that it is the same again."""

from pathlib import Path

import numpy as np
import pytest
import torch

from jemtrack.data.images import DataSplits, LabelledImages, load_outliers, save_outliers
from jemtrack.data.outliers import MADE, draw_letters, make_outliers
from jemtrack.errors import InputError, ParameterError

NO_DATA = Path("nowhere")


def some_data(channels=1, side=12, seed=3):
    stream = torch.Generator().manual_seed(0)
    parts = [
        LabelledImages(
            torch.randint(256, (n, channels, side, side), dtype=torch.uint8, generator=stream),
            torch.arange(n) % 4,
        )
        for n in (8, 4, 30)
    ]
    return DataSplits("mine", 4, False, seed, *parts)


def made(data, *partners, n_images=20, root=NO_DATA):
    return make_outliers(data, [*partners], n_images, root)


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 12), (1, 28)])
def test_partners_have_the_shape_of_the_data_and_as_many_images_as_asked_for(channels, side):
    found = made(some_data(channels, side), *MADE)

    assert [*found] == ["letters", "permuted", "interpolated", "uniform"]
    for images_NCHW in found.values():
        assert images_NCHW.shape == (20, channels, side, side)
        assert images_NCHW.dtype == torch.uint8


def test_a_partner_follows_from_the_seed_and_not_from_the_others():
    together, alone = made(some_data(), *MADE), made(some_data(), "permuted")
    other = made(some_data(seed=4), *MADE)

    torch.testing.assert_close(alone["permuted"], together["permuted"], rtol=0, atol=0)
    assert all(not torch.equal(other[name], together[name]) for name in MADE)


def test_permuted_images_have_the_pixels_of_test_images_in_another_order():
    data = some_data(channels=3)
    found_NCP = made(data, "permuted", n_images=100)["permuted"].flatten(2)

    assert len(found_NCP) == len(data.test)
    pixels = {self_CP.sort(dim=1).values.numpy().tobytes() for self_CP in found_NCP}
    own = {self_CP.sort(1).values.numpy().tobytes() for self_CP in data.test.images_NCHW.flatten(2)}
    assert pixels == own
    # The channels of a pixel stay together.
    as_sets = {frozenset(map(tuple, image_CP.T.tolist())) for image_CP in found_NCP}
    assert as_sets == {
        frozenset(map(tuple, image_CP.T.tolist())) for image_CP in data.test.images_NCHW.flatten(2)
    }
    assert not torch.equal(found_NCP.flatten(), data.test.images_NCHW.flatten())


def test_interpolated_images_are_the_mean_of_two_of_different_classes():
    data = some_data()
    found = made(data, "interpolated")["interpolated"]

    images = data.test.images_NCHW.float()
    for image_CHW in found:
        pairs = (images[:, None] + images[None]) / 2
        off = (pairs - image_CHW).abs().flatten(2).amax(dim=2)
        one, other = divmod(int(off.argmin()), len(images))
        assert off.min() <= 0.5
        assert data.test.labels_N[one] != data.test.labels_N[other]


def test_uniform_images_are_uniform():
    found = made(some_data(side=32), "uniform", n_images=200)["uniform"]

    share = torch.bincount(found.flatten().long(), minlength=256) / found.numel()
    assert (share * 256 - 1).abs().max() < 0.25
    assert found.min() == 0
    assert found.max() == 255


def test_letters_are_as_tall_as_what_the_images_show():
    like = torch.zeros(5, 3, 28, 28, dtype=torch.uint8)
    like[:, :, 6:22, 10:18] = 200

    found = draw_letters(like, 40, torch.Generator().manual_seed(0))

    shown = (found > 0).any(dim=1)
    for image_HW in shown:
        height, width = (image_HW.any(dim=d).sum() for d in (1, 0))
        assert max(height, width) == 16
    assert torch.equal(found[:, 0], found[:, 2])
    assert len({image.numpy().tobytes() for image in found}) > 30
    # In the middle.
    rows = [np.flatnonzero(image.any(1)) for image in shown.numpy()]
    assert all(abs((r[0] + r[-1]) / 2 - 13.5) <= 1 for r in rows)


def test_images_of_one_brightness_do_not_stop_the_letters():
    drawn = draw_letters(torch.full((3, 1, 8, 8), 7, dtype=torch.uint8), 4, torch.Generator())

    assert drawn.shape == (4, 1, 8, 8)


def test_what_cannot_be_a_partner_is_named(tmp_path):
    with pytest.raises(ParameterError, match=r"partners must be of letters.* or data sets: .*nope"):
        made(some_data(), "nope", root=tmp_path)
    with pytest.raises(InputError, match="jemtrack data mnist"):
        made(some_data(), "mnist", root=tmp_path)
    one_class = some_data()
    one_class.test.labels_N.zero_()
    with pytest.raises(ParameterError, match="interpolated needs images of two classes"):
        made(one_class, "interpolated")


def test_another_data_set_is_a_partner_where_its_images_have_the_shape(tmp_path):
    from jemtrack.data.sources.fetch import fetch

    fetch("digits", tmp_path)

    found = made(some_data(side=8), "digits", n_images=50, root=tmp_path)["digits"]
    assert found.shape == (50, 1, 8, 8)
    with pytest.raises(ParameterError, match=r"shape \(1, 12, 12\) as mine has, got 'digits'"):
        made(some_data(), "digits", root=tmp_path)
    data = some_data(side=8)
    own = DataSplits("digits", 4, False, 1, data.train, data.valid, data.test)
    with pytest.raises(ParameterError, match="must not be the data set itself"):
        made(own, "digits", root=tmp_path)


def test_a_file_gives_back_what_it_was_given_and_a_broken_one_is_named(tmp_path):
    outliers = made(some_data(), *MADE)
    path = tmp_path / "PrepareOutliers" / "outliers.safetensors"

    save_outliers(outliers, path)

    found = load_outliers(path)
    assert found.keys() == outliers.keys()
    assert all(torch.equal(found[name], each) for name, each in outliers.items())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="dvc repro PrepareOutliers"):
        load_outliers(path)
