import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from jemtrack.jem.networks.energy_model import JointEnergyModel
from jemtrack.jem.objectives.cross_entropy import CrossEntropy
from jemtrack.jem.objectives.max_entropy_l1 import MaxEntropyL1Objective
from jemtrack.jem.objectives.max_entropy_l2 import MaxEntropyL2Objective
from jemtrack.jem.training.batches import Batch

PENALTIES = [MaxEntropyL1Objective, MaxEntropyL2Objective]
SPREADS = {MaxEntropyL1Objective: np.abs, MaxEntropyL2Objective: np.square}

both_penalties = pytest.mark.parametrize("penalty", PENALTIES)
seeds = st.integers(0, 10_000)
sizes = st.integers(1, 20)


def network_of(n_classes=4, uncond=False):
    """A model whose 'images' are its logits: nothing stands between them and the objective."""
    model = JointEnergyModel(nn.Flatten(), n_classes, n_classes, uncond).double()
    with torch.no_grad():
        model.class_head.weight.copy_(torch.eye(n_classes))
        model.class_head.bias.zero_()
    return model


def logits_of(n_images, seed, n_classes=4, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n_images, n_classes, generator=generator, dtype=torch.float64)


def batch_of(logits_BC, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels_B = torch.randint(logits_BC.shape[1], (len(logits_BC),), generator=generator)
    return Batch(logits_BC[:, :, None, None], labels_B)


def losses_of(objective, batch):
    return objective({"network": network_of(batch.images_BCHW.shape[1])}, batch)


def log_sum_exp(logits_BC):
    return np.log(np.exp(logits_BC).sum(1))


def cross_entropy_by_hand(batch):
    logits_BC = batch.images_BCHW.flatten(1).numpy()
    chosen_B = logits_BC[np.arange(len(logits_BC)), batch.labels_B.numpy()]
    return (log_sum_exp(logits_BC) - chosen_B).mean()


@settings(deadline=None)
@given(n_images=sizes, seed=seeds)
def test_cross_entropy_is_the_formula(n_images, seed):
    batch = batch_of(logits_of(n_images, seed), seed)
    losses = losses_of(CrossEntropy(), batch)

    assert losses["loss"].item() == pytest.approx(cross_entropy_by_hand(batch), abs=1e-12)
    assert losses["cross_entropy"].item() == losses["loss"].item()


@both_penalties
@settings(deadline=None)
@given(n_images=sizes, seed=seeds, weight=st.floats(0, 100), reduction=st.sampled_from("ms"))
def test_max_entropy_is_the_formula(penalty, n_images, seed, weight, reduction):
    name = {"m": "mean", "s": "sum"}[reduction]
    objective = penalty(entropy_weight=weight, entropy_reduction=name)
    batch = batch_of(logits_of(n_images, seed), seed)
    log_density_B = log_sum_exp(batch.images_BCHW.flatten(1).numpy())
    spread_B = SPREADS[penalty](log_density_B.mean() - log_density_B)
    expected = getattr(spread_B, name)()
    losses = losses_of(objective, batch)

    assert losses["cross_entropy"].item() == pytest.approx(cross_entropy_by_hand(batch), abs=1e-12)
    assert losses["entropy_penalty"].item() == pytest.approx(expected, abs=1e-10)
    assert losses["loss"].item() == pytest.approx(
        cross_entropy_by_hand(batch) + weight * expected, abs=1e-9
    )


def test_two_images_by_hand():
    """LSE is log 4 and log 8: m - LSE = +-(log 2) / 2; p(y|x) is uniform."""
    logits_BC = torch.tensor([[0.0] * 4, [np.log(2)] * 4], dtype=torch.float64)
    batch = batch_of(logits_BC)
    l1, l2 = (losses_of(penalty(), batch)["entropy_penalty"].item() for penalty in PENALTIES)

    assert l1 == pytest.approx(np.log(2) / 2)
    assert l2 == pytest.approx(np.log(2) ** 2 / 4)
    assert losses_of(CrossEntropy(), batch)["loss"].item() == pytest.approx(np.log(4))


@both_penalties
@settings(deadline=None)
@given(seed=seeds, shift=st.floats(-50, 50))
def test_a_constant_added_to_all_logits_changes_nothing(penalty, seed, shift):
    logits_BC = logits_of(6, seed)
    before = losses_of(penalty(), batch_of(logits_BC))
    after = losses_of(penalty(), batch_of(logits_BC + shift))

    for name in ("loss", "cross_entropy", "entropy_penalty"):
        torch.testing.assert_close(after[name], before[name], rtol=1e-9, atol=1e-9)


@both_penalties
@settings(deadline=None)
@given(seed=seeds, shift=st.floats(1, 50))
def test_a_constant_added_to_one_image_is_seen_by_the_penalty_alone(penalty, seed, shift):
    logits_BC = logits_of(2, seed, scale=0.1)
    shifted_BC = logits_BC + torch.tensor([[shift], [0.0]], dtype=torch.float64)
    before = losses_of(penalty(), batch_of(logits_BC))
    after = losses_of(penalty(), batch_of(shifted_BC))

    torch.testing.assert_close(after["cross_entropy"], before["cross_entropy"])
    assert after["entropy_penalty"] > before["entropy_penalty"]


@both_penalties
@settings(deadline=None)
@given(n_images=sizes, seed=seeds)
def test_the_sum_is_the_mean_times_the_batch(penalty, n_images, seed):
    batch = batch_of(logits_of(n_images, seed))
    mean, total = (
        losses_of(penalty(entropy_reduction=name), batch)["entropy_penalty"]
        for name in ("mean", "sum")
    )
    torch.testing.assert_close(total, n_images * mean)


@both_penalties
@settings(deadline=None)
@given(seed=seeds)
def test_weight_zero_is_cross_entropy(penalty, seed):
    batch = batch_of(logits_of(5, seed))
    assert torch.equal(
        losses_of(penalty(entropy_weight=0.0), batch)["loss"],
        losses_of(CrossEntropy(), batch)["loss"],
    )


@both_penalties
@settings(deadline=None)
@given(seed=seeds)
def test_the_order_of_the_images_does_not_matter(penalty, seed):
    batch = batch_of(logits_of(7, seed), seed)
    order_B = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
    shuffled = Batch(batch.images_BCHW[order_B], batch.labels_B[order_B])

    torch.testing.assert_close(
        losses_of(penalty(), shuffled), losses_of(penalty(), batch), rtol=1e-12, atol=1e-12
    )


@settings(deadline=None)
@given(seed=seeds, n_images=sizes)
def test_l2_mean_is_the_biased_variance(seed, n_images):
    logits_BC = logits_of(n_images, seed)
    penalty = losses_of(MaxEntropyL2Objective(), batch_of(logits_BC))["entropy_penalty"]

    torch.testing.assert_close(penalty, logits_BC.logsumexp(1).var(correction=0))


@settings(deadline=None)
@given(seed=seeds, scale=st.floats(1e-4, 1e-2))
def test_l2_is_twice_the_missing_entropy(seed, scale):
    """log B - H(p) = Var(log p~) / 2 + O(scale^3), p the softmax of log p~ over the batch."""
    log_density_B = scale * logits_of(8, seed, n_classes=2)[:, 0]
    logits_BC = log_density_B[:, None].expand(8, 4)
    penalty = losses_of(MaxEntropyL2Objective(), batch_of(logits_BC))["entropy_penalty"].item()
    log_p_B = log_density_B.log_softmax(0)
    entropy = -(log_p_B.exp() * log_p_B).sum().item()

    assert np.log(8) - entropy == pytest.approx(penalty / 2, abs=100 * scale**3)
    assert penalty / 2 > 0


@both_penalties
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_gradient_goes_through_the_batch_mean(penalty, reduction):
    """Finite differences know nothing of `detach`."""
    objective = penalty(entropy_reduction=reduction)
    labels_B = batch_of(logits_of(5, 3)).labels_B
    network = network_of()

    def loss(logits_BC):
        return objective({"network": network}, Batch(logits_BC[:, :, None, None], labels_B))["loss"]

    assert torch.autograd.gradcheck(loss, (logits_of(5, 3).requires_grad_(),))


@both_penalties
def test_density_images_bear_the_penalty_and_labelled_images_the_cross_entropy(penalty):
    labelled, others = batch_of(logits_of(3, 1)), batch_of(logits_of(9, 2))
    mixed = Batch(labelled.images_BCHW, labelled.labels_B, others.images_BCHW)
    losses = losses_of(penalty(), mixed)

    torch.testing.assert_close(losses["cross_entropy"], losses_of(CrossEntropy(), labelled)["loss"])
    torch.testing.assert_close(
        losses["entropy_penalty"], losses_of(penalty(), others)["entropy_penalty"]
    )
    assert torch.equal(
        losses_of(CrossEntropy(), mixed)["loss"], losses_of(CrossEntropy(), labelled)["loss"]
    )


@both_penalties
def test_uncond_puts_the_penalty_on_the_energy_head(penalty):
    network, batch = network_of(uncond=True), batch_of(logits_of(6, 1))
    losses = penalty()({"network": network}, batch)
    losses["loss"].backward()
    log_density_B = network.log_density(batch.images_BCHW).detach().numpy()
    expected = SPREADS[penalty](log_density_B.mean() - log_density_B).mean()

    assert losses["entropy_penalty"].item() == pytest.approx(expected)
    assert network.energy_head.weight.grad.any()


@pytest.mark.parametrize("objective", [CrossEntropy(), *(penalty() for penalty in PENALTIES)])
def test_the_loss_alone_carries_a_gradient(objective):
    losses = losses_of(objective, batch_of(logits_of(5, 1)))

    assert {name for name, value in losses.items() if value.requires_grad} == {"loss"}
    assert all(value.shape == () for value in losses.values())
