"""Mean flow against closed forms, and trained."""

import dataclasses

import pytest
import torch
from flux_models import WORDS, batch_of, networks, noise, sizes_of
from flux_runs import STEPS, every_step, saved, train, training, weights
from small_run import Seen

from jemtrack.errors import InputError
from jemtrack.flux.forms import FluxStep
from jemtrack.flux.networks.model_file import load_models
from jemtrack.flux.objectives.mean_flow import MeanFlowPath, mean_velocity_target
from jemtrack.flux.objectives.rectified_flow import FlowPath
from jemtrack.flux.sampling.generate import FlowSampler, guided_velocity
from jemtrack.flux.sampling.ode import integrate

MEAN, STD = 1.5, 0.3
MEAN_FLOW = {"name": "mean", "train_diff_full": True, "flow_objective": "mean_flow",
             "freeze": ["compressor", "expander"]}  # fmt: skip


def deviation(time):
    return ((1 - time) ** 2 + time**2 * STD**2) ** 0.5


def moved(z, time, span):
    """Follow the flow from N(0, 1) to N(m, s^2) exactly."""
    start = (z - time * MEAN) / deviation(time)
    return (time + span) * MEAN + deviation(time + span) * start


def mean_velocity(z, time, span):
    return (moved(z, time, span) - z) / span


def velocity(z, time):
    slope = (time * STD**2 - (1 - time)) / deviation(time) ** 2
    return MEAN + slope * (z - time * MEAN)


def places(n=64):
    stream = torch.Generator().manual_seed(0)
    time = 0.9 * torch.rand(n, generator=stream).double()
    span = 0.05 + (0.95 - time) * torch.rand(n, generator=stream).double()
    return noise(n, seed=4).double(), time, span


def test_the_exact_mean_velocity_is_its_own_target():
    z, time, span = places()

    found, target = mean_velocity_target(mean_velocity, (z, time, span), velocity(z, time))

    torch.testing.assert_close(found, mean_velocity(z, time, span))
    torch.testing.assert_close(target, found)


def test_the_target_s_mean_over_pairs_is_the_mean_velocity():
    """As a regression, at one time and span: pairs of noise and data have noisy velocities."""
    n, t, h = 200_000, 0.3, 0.5
    start, end = noise(n).double(), MEAN + STD * noise(n, seed=2).double()
    time, span = (torch.full((n,), each).double() for each in (t, h))
    z = (1 - t) * start + t * end

    _, target = mean_velocity_target(mean_velocity, (z, time, span), end - start)

    fit = torch.linalg.lstsq(torch.stack([z, torch.ones(n)], dim=1), target[:, None]).solution
    for at in (-1.0, 0.5, 2.0):
        expected = mean_velocity(torch.tensor(at).double(), t, h)
        found = fit[0, 0] * at + fit[1, 0]
        torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("n_steps", [1, 3])
def test_steps_by_the_mean_velocity_are_exact(n_steps):
    z, span = noise(64).double(), torch.tensor(1 / n_steps).double()

    end = integrate(lambda at, time: mean_velocity(at, time, span), z, "euler", n_steps)

    torch.testing.assert_close(end, MEAN + STD * z)


@pytest.mark.parametrize("side", [8, 32])
def test_the_derivative_is_that_of_finite_differences_and_the_target_is_held(side):
    sizes = sizes_of(height=side, width=side, feature_maps_dim=32, mean_flow=True)
    models = {name: model.double() for name, model in networks(sizes).items()}
    processor = models["flow_processor"]
    processor.forward = lambda z, t, text, h: processor.network(z, torch.stack([t, h], 1), text)
    batch = batch_of(2, height=side, width=side)
    text = models["text_encoder"](batch.tokens_BT)
    z, v = noise(2, *sizes.latent_shape).double(), noise(2, *sizes.latent_shape, seed=2).double()
    time, span = torch.tensor([0.2, 0.6]).double(), torch.tensor([0.5, 0.1]).double()

    found, target = mean_velocity_target(
        lambda z, t, h: processor(z, t, text, h), (z, time, span), v
    )

    e = 1e-5
    ahead, behind = (processor(z + s * v, time + s, text, span - s) for s in (e, -e))
    expected = v + span[:, None, None, None] * (ahead - behind) / (2 * e)
    torch.testing.assert_close(target, expected, rtol=1e-6, atol=1e-6)
    assert found.requires_grad
    assert not target.requires_grad


def test_spans_end_within_the_unit_interval_and_many_are_moments():
    models = networks(sizes_of(mean_flow=True))
    batch = batch_of(4000)
    seen = {}
    processor = models["flow_processor"]
    network = processor.network

    def watched(z, times, text):
        seen["times"] = times
        return network(z, times, text)

    processor.network.forward, forward = watched, network.forward
    network = forward
    ends = noise(4000, *processor.latent_shape), noise(4000, *processor.latent_shape, seed=2)
    with torch.no_grad():
        text = models["text_encoder"](batch.tokens_BT)
        MeanFlowPath(moments=0.6).errors(processor, ends, text, batch, models["text_encoder"])

    time, span = torch.func.debug_unwrap(seen["times"], recurse=True).unbind(1)
    assert (span == 0).double().mean() == pytest.approx(0.6, abs=0.03)
    assert (span >= 0).all()
    assert (time + span).max() <= 1


def errors_of(path, batch):
    models = networks(sizes_of(mean_flow=True))
    ends = noise(4, 4, 4, 4), noise(4, 4, 4, 4, seed=2)
    encoder = models["text_encoder"]
    return path.errors(models["flow_processor"], ends, encoder(batch.tokens_BT), batch, encoder)[1]


def test_a_moment_s_loss_is_that_of_a_rectified_flow():
    both = [errors_of(path, batch_of()) for path in (AtHalf(), AtHalfMean(moments=1.0))]

    torch.testing.assert_close(*both)


class AtHalf(FlowPath):
    def times(self, batch, name="time"):
        return torch.full((batch.size,), 0.5)


class AtHalfMean(MeanFlowPath):
    times = AtHalf.times


def test_guidance_in_the_training_is_of_images_with_a_caption():
    batch = batch_of()
    empty = dataclasses.replace(batch, tokens_BT=torch.zeros_like(batch.tokens_BT))
    paths = [MeanFlowPath(caption_dropout=0.0, guidance=w) for w in (1.0, 3.0)]

    plain, guided = (errors_of(path, batch) for path in paths)

    assert not torch.allclose(plain, guided)
    torch.testing.assert_close(*(errors_of(path, empty) for path in paths))


def test_it_trains_resumes_and_samples_in_one_step(tmp_path):
    steps = (STEPS[0], MEAN_FLOW)
    for cut in (3, 4):
        train(training(steps), [Seen()], every_step(tmp_path / "kept"), cut=cut)
    seen = Seen()
    resumed = train(training(steps), [seen], every_step(tmp_path / "kept"))
    whole = train(training(steps))
    assert saved(resumed, tmp_path / "a") == saved(whole, tmp_path / "b")
    before = weights(training(steps))
    after = weights(whole)
    assert any(not after[n].equal(before[n]) for n in after if n.startswith("text_encoder"))
    models, sizes, _ = load_models(tmp_path / "a")
    assert sizes.mean_flow
    captions = ["the digit seven", "the digit one"]

    one = FlowSampler(solver="mean_flow", n_steps=1, guidance=1)
    images = one(models, captions, sizes.vocabulary, seed=1)

    assert one.n_evaluations == 1
    assert images.shape == (2, 1, 8, 8)


def test_a_span_changes_the_velocity_and_a_plain_model_refuses_it():
    tokens = torch.tensor([[2, 3], [4, 0]])
    z = noise(2, 4, 4, 4)
    models = networks(sizes_of(mean_flow=True))
    with torch.no_grad():
        moment, span = (guided_velocity(models, tokens, 2, h)(z, 0.2) for h in (0.0, 0.5))
    assert not torch.allclose(moment, span, atol=1e-4)

    with pytest.raises(InputError, match="the model was trained by a rectified flow"):
        FlowSampler(solver="mean_flow")(networks(), ["seven"], WORDS, seed=1)


def test_a_mean_flow_s_guidance_is_refused_for_a_rectified_flow():
    values = {"train_diff": True, "flow_guidance": 2.0}

    (problem,) = FluxStep.own_problems(values)

    assert problem.place == ("flow_guidance",)
    assert [*FluxStep.own_problems({**values, "flow_objective": "mean_flow"})] == []
