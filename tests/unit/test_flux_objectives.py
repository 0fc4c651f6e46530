"""What the family flux minimises, against closed forms; whose gradient reaches whom."""

import dataclasses
import math

import pytest
import torch
from flux_models import batch_of, networks, noise
from torch import nn
from torch.distributions import Normal, kl_divergence

from jemtrack.data.images import LabelledImages
from jemtrack.flux.batches import CaptionedImages
from jemtrack.flux.networks.autoencoder import Posterior
from jemtrack.flux.objectives.adversarial import (
    AdversarialWeight,
    GradientPenalty,
    discriminator_hinge,
    generator_hinge,
)
from jemtrack.flux.objectives.autoencoder import Adversary, AutoencoderObjective
from jemtrack.flux.objectives.divergence import Divergence
from jemtrack.flux.objectives.feature_distance import (
    FeatureNetwork,
    feature_distance,
    trained_features,
)
from jemtrack.flux.objectives.rectified_flow import FlowObjective, FlowPath

NO_WARM_UP = {"warmup_steps": 0}


def test_the_divergence_is_that_of_the_distributions():
    mean, log_variance = noise(5, 3, 2, 2).double(), noise(5, 3, 2, 2, seed=2).double()
    divergence = Divergence()

    kl_C = divergence.by_channel(Posterior(mean, log_variance))

    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0, 1))
    torch.testing.assert_close(kl_C, expected.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(divergence(kl_C), expected.mean())
    assert (kl_C > 0).all()
    prior = Posterior(torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2))
    assert torch.equal(divergence.by_channel(prior), torch.zeros(3))


def test_the_divergence_does_not_grow_with_the_image():
    small, large = (torch.full((2, 4, side, side), 1.5) for side in (2, 16))

    values = [Divergence().by_channel(Posterior(mean, mean)).mean() for mean in (small, large)]

    torch.testing.assert_close(*values)


def test_free_bits_are_of_a_channel_and_its_mean():
    # Channel 0 has 0.5 nats a value on average, channel 1 two nats.
    mean = torch.zeros(2, 2, 2, 2)
    mean[:, 0], mean[:, 1] = 1.0, 2.0
    mean[0, 0, 0, 0] = 2.0  # one value alone is above the free bits
    mean.requires_grad_()
    divergence = Divergence(free_bits=1.0)

    kl_C = divergence.by_channel(Posterior(mean, torch.zeros_like(mean)))
    loss = divergence(kl_C)
    (slope,) = torch.autograd.grad(loss, mean)

    torch.testing.assert_close(loss, torch.tensor((1.0 + 2.0) / 2))
    assert not slope[:, 0].any()
    torch.testing.assert_close(slope[:, 1], mean[:, 1].detach() / 16)


def test_the_weight_of_the_divergence_warms_up_along_half_a_cosine():
    divergence = Divergence(beta=2.0, warmup_steps=8)

    weights = [divergence.weight(step) for step in (0, 2, 4, 6, 8, 100)]

    quarter = 1 - math.cos(math.pi / 4)
    assert weights == pytest.approx([0, quarter, 1, 2 - quarter, 2, 2])
    assert Divergence(beta=2.0, **NO_WARM_UP).weight(0) == 2


def test_the_hinge_judges_each_patch():
    real = torch.tensor([[[[2.0, 0.5]]]], requires_grad=True)
    fake = torch.tensor([[[[-3.0, 0.0]]]], requires_grad=True)

    loss = discriminator_hinge(real, fake)
    loss.backward()

    assert discriminator_hinge(torch.zeros(3, 1, 2, 2), torch.zeros(3, 1, 2, 2)) == 2
    # Means of patches: (0 + 0.5) / 2 of the real ones, and (0 + 1) / 2 of the others.
    assert loss.item() == pytest.approx(0.75)
    assert real.grad.tolist() == [[[[0, -0.5]]]]
    assert fake.grad.tolist() == [[[[0, 0.5]]]]
    assert generator_hinge(fake) == 1.5


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(noise(4).double())
        self.bias = nn.Parameter(torch.tensor(5.0).double())

    def forward(self, x):
        return (x.double().flatten(1) @ self.weight + self.bias)[:, None]


@pytest.mark.parametrize("interval", [1, 4])
def test_the_penalty_of_a_linear_judge_is_the_square_of_its_weights(interval):
    judge, penalty = Linear(), GradientPenalty(gamma=2.0, interval=interval)
    images = noise(3, 1, 2, 2)

    value = penalty(judge, images)
    slope, of_bias = torch.autograd.grad(value, (judge.weight, judge.bias), materialize_grads=True)

    expected = interval * judge.weight.square().sum()
    torch.testing.assert_close(value, expected, check_dtype=False, rtol=1e-5, atol=0)
    torch.testing.assert_close(slope, 2 * interval * judge.weight.detach(), rtol=1e-5, atol=0)
    assert of_bias == 0
    assert not images.requires_grad
    assert [penalty.due(step) for step in range(5)] == [step % interval == 0 for step in range(5)]


def test_the_penalty_of_a_constant_judge_is_zero():
    judge = Linear()
    nn.init.zeros_(judge.weight)

    assert GradientPenalty(gamma=2.0)(judge, noise(3, 1, 2, 2)) == 0


def test_without_gamma_nothing_is_penalised():
    assert not GradientPenalty(gamma=0.0).due(0)


def test_the_adaptive_weight_is_the_ratio_of_the_gradients():
    last = nn.Parameter(noise(3))
    first, second = torch.tensor([3.0, 0, 4]), torch.tensor([0.0, 2, 0])
    losses = (first * last).sum(), (second * last).sum()
    weight = AdversarialWeight(scale=0.8, warmup_steps=2)

    assert weight(2, *losses, last).item() == pytest.approx(0.8 * 5 / 2, rel=1e-4)
    assert weight(1, *losses, last) == 0.0
    assert weight(2, None, losses[1], last) == 0.8
    assert AdversarialWeight(scale=0.8, kind="fixed")(0, *losses, last) == 0.8


def turns_of(objective, batch=None, seed=0):
    models = networks(seed=seed)
    return models, objective(models, batch or batch_of())


def slopes(loss, models, name):
    weights = [*models[name].parameters()]
    found = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
    return sum(float(each.abs().sum()) for each in found if each is not None)


def adversary(**weight):
    return Adversary(AdversarialWeight(**{"kind": "fixed", **weight}), GradientPenalty(interval=2))


FREE = Divergence(beta=0.0)


def test_by_reconstruction_the_loss_is_that_of_pixels_and_divergence():
    objective = AutoencoderObjective(Divergence(beta=0.5, **NO_WARM_UP))
    _, turns = turns_of(objective)

    (turn,) = turns

    assert turn.optimizers == ("vae",)
    expected = turn.losses["vae_loss"] + 0.5 * turn.losses["kl_loss"]
    torch.testing.assert_close(turn.losses["loss"], expected)


def test_beside_a_reconstruction_the_adversarial_loss_does_not_reach_the_compressor():
    with_, without = (
        AutoencoderObjective(FREE, adversary=adversary(scale=scale)) for scale in (3.0, 0.0)
    )
    differences = {}
    for name in ("compressor", "expander"):
        sums = []
        for objective in (with_, without):
            models, turns = turns_of(objective)
            *_, last = turns
            weights = [*models[name].parameters()]
            found = torch.autograd.grad(last.losses["loss"], weights, materialize_grads=True)
            sums.append(torch.cat([each.flatten() for each in found]))
        differences[name] = (sums[0] - sums[1]).abs().max().item()

    assert differences["compressor"] == 0
    assert differences["expander"] > 1e-6


def test_without_a_reconstruction_it_reaches_both():
    objective = AutoencoderObjective(FREE, reconstruct=False, adversary=adversary())
    models, turns = turns_of(objective)

    first, second = turns

    assert [*first.losses] == ["loss", "d_loss"]
    assert {*second.losses} == {"loss", "kl_loss", "g_loss"}
    assert slopes(second.losses["loss"], models, "compressor") > 0
    assert slopes(second.losses["loss"], models, "expander") > 0


def test_the_discriminator_s_turn_gives_the_autoencoder_nothing():
    models, turns = turns_of(AutoencoderObjective(FREE, adversary=adversary()))

    turn = next(turns)

    assert turn.optimizers == ("discriminator",)
    assert slopes(turn.losses["loss"], models, "discriminator") > 0
    assert slopes(turn.losses["loss"], models, "compressor") == 0
    assert slopes(turn.losses["loss"], models, "expander") == 0


def test_the_penalty_is_lazy_and_a_head_start_is_the_discriminator_s_alone():
    objective = AutoencoderObjective(FREE, adversary=adversary(warmup_steps=3))

    for step in range(4):
        first, second = turns_of(objective, batch_of(step=step))[1]
        penalty = first.losses["loss"] - first.losses["d_loss"]
        assert (penalty.item() > 0) is (step % 2 == 0)
        adversarial = second.losses["loss"] - second.losses["vae_loss"]
        assert (adversarial.abs().item() > 1e-6) is (step == 3)


def test_warm_ups_go_on_from_earlier_phases():
    divergence = Divergence(beta=1.0, warmup_steps=4)
    for before, step in ((0, 3), (3, 0), (2, 1)):
        objective = AutoencoderObjective(divergence, steps_before=before)
        (turn,) = turns_of(objective, batch_of(step=step))[1]
        share = (turn.losses["loss"] - turn.losses["vae_loss"]) / turn.losses["kl_loss"]
        assert share.item() == pytest.approx((1 - math.cos(0.75 * math.pi)) / 2, rel=1e-4)


def test_spade_changes_what_is_decoded():
    values = [
        next(iter(turns_of(AutoencoderObjective(FREE, spade=spade))[1])).losses["vae_loss"].item()
        for spade in (False, True)
    ]

    assert values[0] != values[1]


def digits(n=60):
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 3
    images = torch.randint(40, (n, 1, 8, 8), generator=stream)
    images += labels[:, None, None, None] * 100
    return LabelledImages(images.to(torch.uint8), labels)


def test_the_distance_of_features_is_a_distance_and_its_gradient_the_true_one():
    torch.manual_seed(0)
    network = FeatureNetwork(1, 3).double()
    one, other = (noise(2, 1, 8, 8, seed=seed).double() for seed in (1, 2))

    assert feature_distance(network, one, one) == 0
    torch.testing.assert_close(
        feature_distance(network, one, other), feature_distance(network, other, one)
    )
    leaf = one.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: feature_distance(network, x, other), leaf, fast_mode=True
    )


def test_the_distance_of_features_grows_with_noise():
    torch.manual_seed(0)
    network, images = FeatureNetwork(1, 3).requires_grad_(False), batch_of(8).images_BCHW
    other = noise(8, 1, 8, 8)

    distances = [
        float(feature_distance(network, images + s * other, images)) for s in (0.1, 0.3, 1)
    ]

    assert 0 < distances[0] < distances[1] < distances[2]


def test_the_features_are_of_a_classifier_that_has_learned_the_images():
    images = digits()
    torch.manual_seed(0)

    network = trained_features(images, 3, seed=1)

    logits = network(images.images_NCHW / 127.5 - 1)
    assert (logits.argmax(dim=1) == images.labels_N).double().mean() > 0.9
    assert not any(weight.requires_grad for weight in network.parameters())


def test_the_perceptual_loss_is_added_with_its_weight():
    models = networks()
    models["features"] = FeatureNetwork(1, 3)
    (turn,) = AutoencoderObjective(FREE, features=0.25)(models, batch_of())

    expected = turn.losses["vae_loss"] + 0.25 * turn.losses["lpips_loss"]
    torch.testing.assert_close(turn.losses["loss"], expected)


@pytest.mark.parametrize("full", [False, True])
def test_the_flow_trains_the_text_encoder_only_when_full(full):
    models, turns = turns_of(FlowObjective(FlowPath(), train_text=full))

    (turn,) = turns

    assert turn.optimizers == (("flow", "text_encoder") if full else ("flow",))
    loss = turn.losses["loss"]
    assert slopes(loss, models, "flow_processor") > 0
    assert (slopes(loss, models, "text_encoder") > 0) is full
    assert slopes(loss, models, "compressor") == 0


def test_the_scale_of_the_latents_is_measured_by_the_very_first_batch():
    objective = FlowObjective(FlowPath(), False)
    models = networks()
    scale = models["flow_processor"].scale

    next(objective(models, batch_of(step=1)))
    assert torch.equal(scale.std_C, torch.ones(4))
    next(dataclasses.replace(objective, steps_before=9)(models, batch_of(step=0)))
    assert torch.equal(scale.std_C, torch.ones(4))
    next(objective(models, batch_of(step=0)))
    assert not torch.equal(scale.std_C, torch.ones(4))


def test_times_are_drawn_as_said():
    batch = batch_of(20_000, height=1, width=1)

    uniform, normal = (FlowPath(time=time).times(batch) for time in ("uniform", "logit_normal"))

    deciles = torch.linspace(0.1, 0.9, 9)
    torch.testing.assert_close(uniform.quantile(deciles), deciles, atol=0.02, rtol=0)
    assert torch.logit(normal).std() == pytest.approx(1, abs=0.03)
    assert torch.logit(normal).mean() == pytest.approx(0, abs=0.03)


def test_captions_are_left_out_image_by_image_at_their_rate():
    batch = batch_of(20_000, height=1, width=1)

    kept = FlowPath(caption_dropout=0.25).captions(batch)

    dropped = (kept == 0).all(dim=1)
    assert dropped.double().mean() == pytest.approx(0.25, abs=0.015)
    assert torch.equal(kept[~dropped], batch.tokens_BT[~dropped])
    assert torch.equal(FlowPath(caption_dropout=0.0).captions(batch), batch.tokens_BT)


def test_a_path_leads_from_noise_to_data():
    start, end = noise(3, 1, 2, 2), noise(3, 1, 2, 2, seed=2)
    time = torch.tensor([0.0, 0.25, 1.0])

    points, velocity = FlowPath.between(start, end, time)

    torch.testing.assert_close(points[0], start[0])
    torch.testing.assert_close(points[2], end[2])
    rest = (1 - time)[:, None, None, None]
    torch.testing.assert_close(points + rest * velocity, end)
    torch.testing.assert_close(points - (1 - rest) * velocity, start)


def test_a_batch_is_found_again_and_captions_are_drawn_anew_in_each_epoch():
    tokens = torch.arange(3 * 4 * 5).view(3, 4, 5)
    batches = CaptionedImages(digits(), tokens, True, 8, seed=1)

    first, second = ([*batches.epoch(epoch)] for epoch in (0, 1))
    again = [*batches.epoch(0, start=3)]
    other = [*batches.epoch(0, retry=1)]

    assert len(first) == len(batches) == 8
    assert torch.equal(first[3].images_BCHW, again[0].images_BCHW)
    assert torch.equal(first[3].tokens_BT, again[0].tokens_BT)
    assert first[3].seed == again[0].seed != other[3].seed
    # Which caption of its class an image has is drawn: of class c, rows 20 c to 20 c + 19.
    seen = torch.cat([batch.tokens_BT[:, 0] for batch in (*first, *second)])
    assert {*seen.tolist()} == {*range(0, 60, 5)}
    labels = torch.cat([batch.tokens_BT[:, 0] // 20 for batch in first])
    assert labels.bincount().tolist() == [20, 20, 20]
