"""The outputs of models: approximate mass against finite differences; what is left of the model."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from profiles import at_most
from torch import nn

from jemtrack.data.images import LabelledImages
from jemtrack.errors import InputError
from jemtrack.evaluation.measures.mahalanobis import Mahalanobis
from jemtrack.jem.networks.energy_model import JointEnergyModel
from jemtrack.jem.networks.inference import noisy_batches, predict, trunk_features
from jemtrack.jem.networks.model_file import load_model, save_model
from jemtrack.jem.networks.shape import WideResNetShape
from jemtrack.jem.networks.wide_resnet import build_model
from jemtrack.jem.scores import model_outputs, run_models

STEP = 1e-5


def outputs_of(model, batches):
    """The first feature stands for the Mahalanobis score."""
    return model_outputs(model, batches, lambda features_NF: features_NF[:, 0])


def equal(one, other):
    torch.testing.assert_close(one.tensors(), other.tensors())


def small_model(seed=0, uncond=False):
    torch.manual_seed(seed)
    trunk = nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.Tanh(), nn.Linear(7, 5), nn.Tanh())
    return JointEnergyModel(trunk, n_features=5, n_classes=3, uncond=uncond).double()


def make_images(n, seed=1, side=2):
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, side, 12 // 3 // side, dtype=torch.float64, generator=stream)


def by_finite_differences(model, image_CHW):
    """The norm of central differences along each pixel."""
    steps = STEP * torch.eye(image_CHW.numel(), dtype=torch.float64).reshape(-1, *image_CHW.shape)
    with torch.no_grad():
        rises = model.log_density(image_CHW + steps) - model.log_density(image_CHW - steps)
    return -(rises / (2 * STEP)).norm()


@at_most(10)
@given(st.integers(0, 1000), st.booleans())
def test_it_is_the_norm_of_the_finite_differences(seed, uncond):
    model, images_NCHW = small_model(seed, uncond), make_images(4, seed)

    found = outputs_of(model, [images_NCHW])

    expected = torch.stack([by_finite_differences(model, image) for image in images_NCHW])
    torch.testing.assert_close(found.approximate_mass_N, expected, rtol=1e-7, atol=1e-9)


def test_a_quadratic_has_the_closed_form():
    """Where log p~(x) = -|x|^2 / 2 the slope is -x, so the mass is -|x|, and 0 at the mode."""

    class Quadratic(JointEnergyModel):
        def heads(self, features_BF):
            density_B = -features_BF.square().sum(1) / 2
            return torch.stack([density_B, density_B], dim=1), density_B

    images_NCHW = make_images(5)
    images_NCHW[0] = 0

    found = outputs_of(Quadratic(nn.Flatten(), 1, 2), images_NCHW.split(2))

    torch.testing.assert_close(found.approximate_mass_N, -images_NCHW.flatten(1).norm(dim=1))
    torch.testing.assert_close(found.mahalanobis_N, images_NCHW.flatten(1)[:, 0])
    assert found.approximate_mass_N[0] == 0


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_the_batches_change_nothing_also_with_a_norm_over_the_batch(batch_size):
    torch.manual_seed(0)
    model = build_model(WideResNetShape(depth=10, width=1, channels=1, n_classes=3, norm="batch"))
    images_NCHW = torch.rand(7, 1, 8, 8) * 2 - 1

    parts = outputs_of(model, images_NCHW.split(batch_size))

    whole = outputs_of(model, [images_NCHW])
    equal(parts, whole)
    with torch.inference_mode():
        expected = model.eval().logits_and_log_density(images_NCHW)
    torch.testing.assert_close((parts.logits_NC, parts.log_density_N), expected)


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_model_stays_as_it_was_wherever_it_is_called(around):
    model = small_model().train()
    images_NCHW = make_images(3)

    with around():
        found = outputs_of(model, [images_NCHW])

    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not images_NCHW.requires_grad
    assert not any(part.requires_grad for part in found.tensors().values())
    equal(found, outputs_of(model, [images_NCHW]))


def test_batches_are_taken_one_after_the_other():
    """The next batch is made when the last one's graph has gone: the memory is that of one."""
    model, graphs = small_model(), []
    model.class_head.register_forward_hook(lambda *parts: graphs.append(1))
    seen = []

    def batches():
        for _ in range(3):
            seen.append(len(graphs))
            yield make_images(2)

    outputs_of(model, batches())

    assert seen == [0, 1, 2]


def test_no_images_are_refused():
    with pytest.raises(InputError, match="no images"):
        outputs_of(small_model(), [])


def saved(path, weight=None):
    torch.manual_seed(0)
    shape = WideResNetShape(depth=10, width=1, channels=1, n_classes=3)
    model = build_model(shape)
    if weight is not None:
        torch.nn.init.constant_(model.class_head.weight, weight)
    save_model(path, model, shape, {"sigma": "0.1"})
    return path


IMAGES = LabelledImages(
    torch.randint(256, (9, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)),
    torch.arange(9) % 3,
)


@pytest.mark.parametrize("noise", [True, False])
def test_each_model_is_run_on_each_set(noise, tmp_path):
    paths = [
        saved(tmp_path / name / "model.safetensors", at) for name, at in (("a", None), ("b", 1))
    ]
    options = {"noise": noise, "seed": 1, "batch_size": 4, "device": torch.device("cpu")}

    found = run_models(paths, {"all": IMAGES.images_NCHW}, IMAGES, **options)

    assert [*found] == ["a", "b"]
    for path in paths:
        model, sigma = load_model(path).model, 0.1 * noise
        features_NF = trunk_features(model, noisy_batches(IMAGES.images_NCHW, sigma, 1))
        expected = model_outputs(
            model,
            noisy_batches(IMAGES.images_NCHW, sigma, 1),
            Mahalanobis(features_NF, IMAGES.labels_N),
        )
        torch.testing.assert_close(
            found[path.parent.name]["all"].tensors(), expected.tensors(), rtol=1e-3, atol=1e-4
        )
        said = predict(model, IMAGES, sigma=sigma, seed=1)
        torch.testing.assert_close(found[path.parent.name]["all"].logits_NC, said.logits_NC)


def test_a_model_that_has_diverged_is_named(tmp_path):
    path = saved(tmp_path / "a" / "model.safetensors", 3e38)
    options = {"noise": True, "seed": 1, "batch_size": 4, "device": torch.device("cpu")}

    with pytest.raises(InputError, match=r"a/model\.safetensors: 9 of 9 images .* diverged"):
        run_models([path], {"all": IMAGES.images_NCHW}, IMAGES, **options)
    saved(path, torch.nan)
    with pytest.raises(InputError, match=r"a/model\.safetensors: its weights must be finite"):
        run_models([path], {"all": IMAGES.images_NCHW}, IMAGES, **options)
