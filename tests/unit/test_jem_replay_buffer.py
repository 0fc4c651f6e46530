import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jemtrack.data.images import LabelledImages, to_unit_range
from jemtrack.errors import ParameterError
from jemtrack.jem.sampling.chain_starts import GaussianStarts, UniformStarts
from jemtrack.jem.sampling.replay_buffer import ReplayBuffer

IMAGE = torch.Size((1, 2, 3))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def buffer_of(size=12, n_classes=3, reinit_probability=0.0) -> ReplayBuffer:
    return ReplayBuffer(size, n_classes, reinit_probability, UniformStarts(IMAGE), seeded())


@given(n=st.integers(1, 12), seed=st.integers(0, 99))
def test_chains_are_of_the_buffer_and_all_different(n, seed):
    buffer = buffer_of()
    chains = buffer.draw(n, seeded(seed))
    assert len(set(chains.indices_B.tolist())) == n
    assert torch.equal(chains.images_BCHW, buffer.images_MCHW[chains.indices_B])


@given(labels=st.lists(st.integers(0, 2), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_chains_of_classes_are_from_the_classes_own_part_and_all_different(labels, seed):
    chains = buffer_of().draw_of_classes(torch.tensor(labels), seeded(seed))
    places = chains.indices_B.tolist()
    assert [place // 4 for place in places] == labels
    assert len(set(places)) == len(labels)


def test_every_chain_is_drawn_in_its_turn():
    drawn = torch.cat([buffer_of().draw(4, seeded(seed)).indices_B for seed in range(300)])
    counts = drawn.bincount(minlength=12)
    assert counts.min() > 60  # of 100 on average, with a deviation of 8
    assert counts.max() < 140


def test_a_share_of_the_chains_begins_afresh():
    buffer = buffer_of(size=900, reinit_probability=0.3)
    chains = buffer.draw(900, seeded(1))
    kept = (chains.images_BCHW == buffer.images_MCHW[chains.indices_B]).flatten(1).all(1)
    assert 0.25 < 1 - kept.float().mean() < 0.35
    assert chains.images_BCHW.abs().max() <= 1


def test_places_left_over_by_the_classes_are_not_made():
    assert len(buffer_of(size=14).images_MCHW) == 12


def correlated_images(n: int) -> LabelledImages:
    """Two classes of two pixels: one rises with the other, or falls."""
    first_N = torch.randn(n, generator=seeded()) * 40
    second_N = torch.randn(n, generator=seeded(1)) * 20
    labels_N = torch.arange(n) % 2
    sign_N = 1 - 2 * labels_N
    pixels = torch.stack([first_N + 100 + 50 * labels_N, sign_N * first_N + second_N + 120], 1)
    images_NCHW = pixels.clamp(0, 255).round().to(torch.uint8)[:, None, None]
    return LabelledImages(images_NCHW, labels_N)


def test_class_gaussians_have_the_mean_and_covariance_of_their_class():
    images = correlated_images(4000)
    starts = GaussianStarts(images, 2)
    labels_B = torch.arange(40_000) % 2

    drawn_BP = starts(labels_B, seeded(3)).flatten(1)

    for label in (0, 1):
        right_NP = to_unit_range(images.images_NCHW[images.labels_N == label]).flatten(1)
        found_NP = drawn_BP[labels_B == label]
        torch.testing.assert_close(found_NP.mean(0), right_NP.mean(0), rtol=0, atol=0.01)
        torch.testing.assert_close(found_NP.T.cov(), right_NP.T.cov(), rtol=0, atol=0.005)
        assert (found_NP.T.cov()[0, 1] > 0.05) == (label == 0)


def test_a_class_without_images_has_no_gaussian():
    with pytest.raises(ParameterError, match=r"^start must be uniform"):
        GaussianStarts(correlated_images(10), 3)
