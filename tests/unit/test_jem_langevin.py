import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jemtrack.errors import InputError
from jemtrack.jem.networks.shape import WideResNetShape
from jemtrack.jem.networks.wide_resnet import build_model
from jemtrack.jem.sampling.langevin import LangevinSampler
from jemtrack.parameters import build


def quadratic(samples_BCHW):
    """log p~(x) = -|x|^2 / 2, a standard normal."""
    return -samples_BCHW.square().flatten(1).sum(1) / 2


def start_of(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 3, 2, 2, dtype=dtype, generator=generator)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(deadline=None)
@given(step_size=st.floats(0.01, 0.99), n_steps=st.integers(1, 30))
def test_noiseless_chain_shrinks_geometrically(step_size, n_steps):
    """On E(x) = |x|^2 / 2 the chain is x -> (1 - step) x, exactly."""
    chain = LangevinSampler(n_steps=n_steps, step_size=step_size, noise_std=0.0)

    torch.testing.assert_close(
        chain(quadratic, start_of(), seeded()), (1 - step_size) ** n_steps * start_of()
    )


@settings(deadline=None)
@given(step_size=st.floats(0.01, 0.99), noise_std=st.floats(0.01, 2), n_steps=st.integers(1, 10))
def test_noisy_chain_is_the_recursion_with_the_generator_s_noise(step_size, noise_std, n_steps):
    chain = LangevinSampler(n_steps=n_steps, step_size=step_size, noise_std=noise_std)
    generator, expected_BCHW = seeded(5), start_of()
    for _ in range(n_steps):
        noise_BCHW = torch.randn(4, 3, 2, 2, dtype=torch.float64, generator=generator)
        expected_BCHW = (1 - step_size) * expected_BCHW + noise_std * noise_BCHW

    torch.testing.assert_close(chain(quadratic, start_of(), seeded(5)), expected_BCHW)


def test_flat_density_leaves_a_random_walk():
    """After n steps of noise s the variance is n s^2."""
    chain = LangevinSampler(n_steps=16, step_size=1.0, noise_std=0.5)
    start_BCHW = torch.zeros(2000, 1, 4, 4)
    ends_BCHW = chain(lambda x_BCHW: 0 * x_BCHW.flatten(1).sum(1), start_BCHW, seeded())

    assert ends_BCHW.var().item() == pytest.approx(16 * 0.25, rel=0.05)


def test_zero_steps_give_the_start():
    start_BCHW = start_of()
    end_BCHW = LangevinSampler(n_steps=0)(quadratic, start_BCHW, seeded())

    assert torch.equal(end_BCHW, start_BCHW)
    assert end_BCHW.data_ptr() != start_BCHW.data_ptr()


def test_the_generator_alone_decides():
    chain = LangevinSampler(n_steps=5, noise_std=1.0)
    torch.manual_seed(1)
    first_BCHW = chain(quadratic, start_of(), seeded(3))
    torch.manual_seed(2)
    again_BCHW = chain(quadratic, start_of(), seeded(3))

    assert torch.equal(first_BCHW, again_BCHW)
    assert not torch.equal(first_BCHW, chain(quadratic, start_of(), seeded(4)))


def test_memory_format_does_not_change_the_noise():
    start_BCHW = start_of()
    chain = LangevinSampler(n_steps=3, noise_std=1.0)
    last_BCHW = chain(quadratic, start_BCHW.to(memory_format=torch.channels_last), seeded())

    assert torch.equal(last_BCHW, chain(quadratic, start_BCHW, seeded()))
    assert last_BCHW.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("norm", ["none", "batch", "act"])
@pytest.mark.parametrize("training", [False, True])
def test_the_model_and_the_start_are_left_as_they_were(norm, training):
    torch.manual_seed(0)
    model = build_model(WideResNetShape(depth=10, width=1, channels=3, n_classes=2, norm=norm))
    model(torch.randn(4, 3, 8, 8))
    model.train(training)
    weights = {name: value.clone() for name, value in model.named_parameters()}
    start_BCHW = torch.rand(2, 3, 8, 8).requires_grad_()
    before_BCHW = start_BCHW.detach().clone()
    end_BCHW = LangevinSampler(n_steps=2)(model.log_density, start_BCHW, seeded())

    assert not end_BCHW.requires_grad
    assert end_BCHW.grad_fn is None
    assert start_BCHW.grad is None
    assert torch.equal(start_BCHW, before_BCHW)
    assert model.training is training
    for name, parameter in model.named_parameters():
        assert parameter.grad is None
        assert parameter.requires_grad
        assert torch.equal(parameter, weights[name])


def test_it_works_where_gradients_are_off():
    with torch.no_grad():
        end_BCHW = LangevinSampler(n_steps=1, step_size=0.5, noise_std=0.0)(
            quadratic, start_of(), seeded()
        )
    torch.testing.assert_close(end_BCHW, start_of() / 2)


@pytest.mark.parametrize(
    ("field", "value"),
    [("n_steps", -1), ("step_size", 0.0), ("step_size", float("inf")), ("noise_std", -0.1)],
)
def test_a_bad_parameter_is_refused_by_name(field, value):
    with pytest.raises(InputError, match=f"here.{field}"):
        build(LangevinSampler, {field: value}, "here")


def steep(samples_BCHW):
    return 50 * samples_BCHW.flatten(1).sum(1)


def test_the_score_can_be_clamped():
    chain = LangevinSampler(n_steps=3, step_size=0.5, noise_std=0.0, score_clamp=0.2)
    torch.testing.assert_close(chain(steep, start_of(), seeded()), start_of() + 3 * 0.5 * 0.2)


def test_the_pixels_can_be_clamped():
    chain = LangevinSampler(n_steps=2, noise_std=3.0, pixel_clamp=True)
    samples_BCHW = chain(quadratic, start_of(), seeded())
    assert samples_BCHW.abs().max() == 1


def test_a_share_of_the_chains_runs_as_among_all():
    chain = LangevinSampler(n_steps=3, step_size=0.1, noise_std=0.5)
    whole = chain(quadratic, start_of(), seeded(1))
    torch.testing.assert_close(
        chain(quadratic, start_of(), seeded(1), lambda chains: chains[1:3]), whole[1:3]
    )
