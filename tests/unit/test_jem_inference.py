import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from profiles import at_most

from jemtrack.data.images import LabelledImages
from jemtrack.jem.networks.inference import Predictions, predict, validation_metrics
from jemtrack.jem.networks.shape import WideResNetShape
from jemtrack.jem.networks.wide_resnet import build_model
from jemtrack.jem.sampling.langevin import LangevinSampler, chain_log_density


def make_model(**fields):
    torch.manual_seed(0)
    fields = {"depth": 10, "width": 1, "channels": 1, "n_classes": 3, **fields}
    return build_model(WideResNetShape(**fields))


def make_images(n=7, side=9) -> LabelledImages:
    stream = torch.Generator().manual_seed(1)
    images = torch.randint(256, (n, 1, side, side), dtype=torch.uint8, generator=stream)
    return LabelledImages(images, torch.arange(n) % 3)


@at_most(15)
@given(batch_size=st.integers(1, 9), side=st.integers(8, 12))
def test_the_batch_size_changes_nothing(batch_size, side):
    """Not the noise either, whether or not the pixels fill PyTorch's blocks of 16."""
    model, images = make_model(), make_images(side=side)

    whole = predict(model, images, sigma=0.3, seed=1, batch_size=100)
    parts = predict(model, images, sigma=0.3, seed=1, batch_size=batch_size)

    torch.testing.assert_close(parts, whole)


def test_noise_is_that_of_sigma_and_seed():
    model, images = make_model(), make_images()
    clean, again, other, more = (
        predict(model, images, sigma=sigma, seed=seed).logits_NC
        for sigma, seed in [(0.0, 1), (0.0, 2), (0.1, 1), (0.1, 2)]
    )

    assert clean.equal(again)
    assert not clean.equal(other)
    assert not other.equal(more)
    scaled = images.images_NCHW / 127.5 - 1
    torch.testing.assert_close(clean, model.eval()(scaled).detach())


def test_it_measures_in_evaluation_mode_and_gives_the_mode_back():
    model, images = make_model(norm="batch", dropout_rate=0.5), make_images()
    state = {name: value.clone() for name, value in model.state_dict().items()}

    one = predict(model.train(), images, sigma=0.0, seed=1)
    two = predict(model, images, sigma=0.0, seed=1)

    assert model.training
    assert one.logits_NC.equal(two.logits_NC)
    assert all(state[name].equal(value) for name, value in model.state_dict().items())


def test_the_density_is_logsumexp_of_the_logits():
    predictions = predict(make_model(), make_images(), sigma=0.0, seed=1)

    torch.testing.assert_close(predictions.log_density_N, predictions.logits_NC.logsumexp(1))


def test_validation_metrics_on_logits_made_by_hand():
    logits_NC = torch.tensor([[2.0, 0.0], [0.0, 0.0], [1.0, 3.0]])
    labels_N = torch.tensor([0, 1, 0])

    metrics = validation_metrics(Predictions(logits_NC, torch.tensor([1.0, 2.0, 6.0])), labels_N)

    probabilities = torch.stack(
        [logits_NC.softmax(1)[i, label] for i, label in enumerate(labels_N)]
    )
    assert metrics["valid_accuracy"] == pytest.approx(1 / 3)
    assert metrics["valid_nll"] == pytest.approx(-probabilities.log().mean().item(), rel=1e-6)
    assert metrics["valid_log_density"] == 3.0


def test_chains_climb_the_density():
    model = make_model()
    values = [
        chain_log_density(model, LangevinSampler(n_steps=steps, noise_std=0.0), (1, 8, 8), seed=1)
        for steps in (1, 10, 50)
    ]

    assert values == sorted(values)
    assert len(set(values)) == 3
    assert all(parameter.grad is None for parameter in model.parameters())
