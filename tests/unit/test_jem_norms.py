import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed, multiprocessing, nn

from jemtrack.jem.networks.norms import ActNorm, make_norm


def features_of(n_images=32, n_channels=5, spread=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_images, n_channels, 6, 6, generator=generator) * spread + 2


@pytest.mark.parametrize("name", ["batch", "instance", "layer", "act"])
def test_a_norm_has_a_scale_and_a_bias_a_channel(name):
    assert [parameter.shape for parameter in make_norm(name, 7).parameters()] == [(7,), (7,)]


def test_none_is_the_identity():
    features_BCHW = features_of()
    assert make_norm("none", 5)(features_BCHW) is features_BCHW


def test_layer_norm_normalises_an_image_over_its_channels():
    features_BCHW = features_of()
    expected_BCHW = nn.functional.layer_norm(features_BCHW, features_BCHW.shape[1:])

    torch.testing.assert_close(make_norm("layer", 5)(features_BCHW), expected_BCHW)


@settings(deadline=None)
@given(spread=st.floats(0.1, 100), seed=st.integers(0, 1000))
def test_act_norm_starts_with_zero_mean_and_unit_variance(spread, seed):
    output_BCHW = ActNorm(5)(features_of(spread=spread, seed=seed))
    variance_C, mean_C = torch.var_mean(output_BCHW, (0, 2, 3), correction=0)

    torch.testing.assert_close(mean_C, torch.zeros(5), rtol=0, atol=1e-4)
    torch.testing.assert_close(variance_C, torch.ones(5), rtol=0, atol=2e-3)


def test_act_norm_keeps_the_first_batch_s_statistics():
    norm = ActNorm(5)
    first_BCHW, second_BCHW = features_of(seed=0), features_of(seed=1) + 7
    expected_BCHW = (second_BCHW - first_BCHW.mean((0, 2, 3), keepdim=True)) / first_BCHW.std(
        (0, 2, 3), keepdim=True, correction=0
    )
    norm(first_BCHW)

    torch.testing.assert_close(norm(second_BCHW), expected_BCHW, rtol=1e-4, atol=1e-4)


def test_act_norm_reads_nothing_in_eval_mode():
    norm, features_BCHW = ActNorm(5).eval(), features_of()

    assert torch.equal(norm(features_BCHW), features_BCHW)
    assert not norm.initialised


def test_act_norm_survives_a_state_dict():
    first, second = ActNorm(5), ActNorm(5)
    first(features_of(seed=0))
    second.load_state_dict(first.state_dict())
    other_BCHW = features_of(seed=1) * 9

    assert torch.equal(second(other_BCHW), first(other_BCHW))


def test_act_norm_starts_anew_from_a_state_of_before_the_first_batch():
    norm = ActNorm(5)
    before = {name: each.clone() for name, each in norm.state_dict().items()}
    norm(features_of(seed=0))
    norm.load_state_dict(before)
    other_BCHW = features_of(seed=1) * 9

    assert torch.equal(norm(other_BCHW), ActNorm(5)(other_BCHW))


def test_act_norm_bears_a_constant_channel():
    output_BCHW = ActNorm(5)(torch.full((4, 5, 2, 2), 3.0))
    torch.testing.assert_close(output_BCHW, torch.zeros(4, 5, 2, 2), rtol=0, atol=1e-3)


def replica(rank, features_BCHW, folder):
    """Give the norm that one of two processes makes of its half of the batch, and store it."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    try:
        norm = ActNorm(features_BCHW.shape[1])
        norm(features_BCHW.chunk(2)[rank])
    finally:
        distributed.destroy_process_group()
    torch.save(norm.state_dict(), folder / f"{rank}.pt")


def second_replica(_, features_BCHW, folder):
    replica(1, features_BCHW, folder)


def test_act_norm_starts_replicas_from_what_all_of_them_saw(tmp_path):
    features_BCHW = features_of()
    features_BCHW[:16] *= 4
    other = multiprocessing.spawn(second_replica, (features_BCHW, tmp_path), join=False)
    replica(0, features_BCHW, tmp_path)
    while not other.join():
        pass
    alone = ActNorm(5)
    alone(features_BCHW)

    for rank in range(2):
        state = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(state, dict(alone.state_dict()))
