"""The networks of the family flux: sizes, what starts as the identity, captions, the file."""

import dataclasses
import math

import pytest
import torch
from flux_models import WORDS, batch_of, networks, noise, sizes_of
from safetensors.torch import load_file, save_file
from torch.nn import functional

from jemtrack.errors import InputError
from jemtrack.flux.captions import tokenise, unknown_words
from jemtrack.flux.networks.autoencoder import Expander, Posterior, SpadeNorm
from jemtrack.flux.networks.flow_processor import LatentScale
from jemtrack.flux.networks.model_file import load_models, make_network, save_models
from jemtrack.flux.networks.shape import MAX_TOKENS, FluxShape, chosen_sizes, halved_sides, halvings


@pytest.mark.parametrize(
    ("shape", "latent", "u_net"),
    [
        ((1, 8, 8), (4, 4, 4), True),
        ((3, 9, 13), (4, 5, 7), True),
        ((1, 28, 28), (4, 7, 7), True),
        ((3, 27, 27), (4, 7, 7), True),
        ((3, 32, 32), (4, 8, 8), False),
        ((3, 64, 64), (4, 8, 8), False),
        ((3, 256, 256), (4, 16, 16), False),
    ],
)
def test_every_size_of_image_has_networks_that_take_it(shape, latent, u_net):
    sizes = sizes_of(*shape, feature_maps_dim=32 if not u_net else 8)
    models, batch = networks(sizes), batch_of(2, *shape)

    posterior = models["compressor"](batch.images_BCHW)
    z = posterior.mean_BCHW
    text = models["text_encoder"](batch.tokens_BT)

    assert sizes.latent_shape == latent
    assert sizes.has_u_net is u_net
    assert z.shape == posterior.log_variance_BCHW.shape == (2, *latent)
    assert models["expander"](z).shape == batch.images_BCHW.shape
    assert models["flow_processor"](z, torch.rand(2), text).shape == z.shape
    assert models["discriminator"](batch.images_BCHW).shape[:2] == (2, 1)
    assert models["discriminator"](batch.images_BCHW).shape[2] >= 2


@pytest.mark.parametrize(
    ("side", "count"), [(8, 1), (12, 1), (13, 2), (63, 2), (64, 3), (255, 3), (256, 4)]
)
def test_larger_images_are_halved_more_often(side, count):
    assert halvings(side, side) == count
    assert len(halved_sides(side, side)) == count + 1


def test_sizes_that_a_file_gives_are_taken_and_others_follow_the_images():
    given = FluxShape(vae_dim=6, feature_maps_dim=10, text_embedding_dim=12)
    small, large = (
        chosen_sizes(shape, (1, side, side), WORDS, ("compressor",), False)
        for shape, side in ((FluxShape(), 28), (FluxShape(), 64))
    )
    own = chosen_sizes(given, (1, 28, 28), WORDS, ("compressor",), False)

    assert (small.vae_dim, small.feature_maps_dim, small.text_embedding_dim) == (4, 48, 64)
    assert large.feature_maps_dim == 128
    assert (own.vae_dim, own.feature_maps_dim, own.text_embedding_dim) == (6, 10, 12)


def test_the_published_sizes_can_be_given():
    sizes = sizes_of(vae_dim=128, feature_maps_dim=128, text_embedding_dim=1024)

    assert make_network("compressor", sizes)(batch_of(1).images_BCHW).mean_BCHW.shape[1] == 128


def test_an_extreme_log_variance_stays_finite():
    models = networks()
    torch.nn.init.constant_(models["compressor"].head.bias, 1e4)

    posterior = models["compressor"](batch_of().images_BCHW)

    assert posterior.log_variance_BCHW.max() == 20
    assert posterior.sample(torch.ones_like(posterior.mean_BCHW)).isfinite().all()


def test_a_sample_of_a_posterior_has_its_mean_and_deviation():
    mean, log_variance = torch.tensor(2.0), torch.tensor(2 * math.log(3))

    drawn = Posterior(mean, log_variance).sample(noise(100_000))

    assert drawn.mean() == pytest.approx(2, abs=0.05)
    assert drawn.std() == pytest.approx(3, abs=0.05)


def test_spade_starts_as_the_plain_norm():
    z, x = noise(2, 4, 3, 3), noise(2, 8, 6, 6, seed=2)
    norm = SpadeNorm(8, 4)

    torch.testing.assert_close(norm(x, z), functional.group_norm(x, 8))

    torch.manual_seed(0)
    expander = Expander(sizes_of(height=16, width=16))
    z = noise(2, 4, 4, 4)
    assert torch.equal(expander(z, True), expander(z, False))


def test_spade_with_a_constant_map_scales_and_shifts_each_channel():
    norm = SpadeNorm(8, 4)
    torch.nn.init.normal_(norm.modulation.weight)
    constant = torch.ones(1, 4, 9, 9)
    x = noise(1, 8, 9, 9)

    found, plain = norm(x, constant), norm(x, None)

    # Away from the borders, where convolutions see zeros: FiLM, found - beta = n(x) (1 + gamma).
    inner = (..., slice(2, -2), slice(2, -2))
    for channel in range(8):
        pairs = torch.stack([plain[inner][0, channel].flatten(), torch.ones(25)], dim=1)
        fit = torch.linalg.lstsq(pairs, found[inner][0, channel].flatten()[:, None])
        torch.testing.assert_close(pairs @ fit.solution, found[inner][0, channel].reshape(-1, 1))


def test_spade_shifts_with_its_input_and_map():
    norm = SpadeNorm(8, 4)
    torch.nn.init.normal_(norm.modulation.weight)
    x, z = torch.zeros(1, 8, 12, 12), torch.zeros(1, 4, 12, 12)
    x[..., 3:7, 3:7], z[..., 3:7, 3:7] = noise(1, 8, 4, 4), noise(1, 4, 4, 4, seed=2)

    moved = norm(x.roll((2, 1), (2, 3)), z.roll((2, 1), (2, 3)))

    inner = (..., slice(3, -3), slice(3, -3))
    torch.testing.assert_close(moved[inner], norm(x, z).roll((2, 1), (2, 3))[inner])


def test_latents_are_standardised_and_restored():
    scale = LatentScale(3)
    z = noise(16, 3, 4, 4) * torch.tensor([1.0, 5, 0.1])[:, None, None] + 7
    scale.measure(z)

    standard = scale.standardise(z)

    torch.testing.assert_close(standard.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(standard.std(dim=(0, 2, 3)), torch.ones(3))
    torch.testing.assert_close(scale.restore(standard), z)


@pytest.mark.parametrize("side", [8, 32])
def test_the_flow_knows_its_time_and_caption(side):
    sizes = sizes_of(height=side, width=side, feature_maps_dim=32)
    models = networks(sizes)
    z = noise(1, *sizes.latent_shape)
    texts = [models["text_encoder"](tokenise([each], WORDS)) for each in ("seven", "the digit")]

    def velocity(time, text):
        return models["flow_processor"](z, torch.tensor([time]), text)

    assert not torch.allclose(velocity(0.1, texts[0]), velocity(0.9, texts[0]), atol=1e-3)
    assert not torch.allclose(velocity(0.5, texts[0]), velocity(0.5, texts[1]), atol=1e-4)
    # A step of the solver at a high time is another time, not the last of a table.
    assert not torch.equal(velocity(0.98, texts[0]), velocity(0.99, texts[0]))


def test_padding_and_the_company_of_other_captions_change_nothing():
    encoder = networks()["text_encoder"]
    tokens = tokenise(["the digit seven", "", "a b c d e f g h i j k l m n o p"], WORDS)

    together = encoder(tokens)
    alone = encoder(tokens[:1, :3])

    assert tokens.shape == (3, MAX_TOKENS)
    torch.testing.assert_close(together.mean_BD[:1], alone.mean_BD)
    torch.testing.assert_close(together.tokens_BTD[:1, :4], alone.tokens_BTD)
    assert together.mask_BT.sum(dim=1).tolist() == [4, 1, 17]


def test_words_are_told_apart_and_unknown_ones_named():
    assert tokenise(["The seven, digit", "seven zebras"], WORDS)[:, :4].tolist() == [
        [4, 3, 2, 0],
        [3, 1, 0, 0],
    ]
    assert unknown_words(["Seven zebras", "the apes"], WORDS) == ["apes", "zebras"]


def test_a_file_holds_what_loading_needs(tmp_path):
    sizes, path = sizes_of(height=9), tmp_path / "new" / "model.safetensors"
    models = networks(sizes)
    models["flow_processor"].scale.measure(noise(4, *sizes.latent_shape))

    save_models(path, models, sizes, {"dataset": "digits"})
    loaded = load_models(path)

    assert (loaded.sizes, loaded.metadata) == (sizes, {"dataset": "digits"})
    for name, model in models.items():
        expected = model.state_dict()
        found = loaded.models[name].state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)
        assert not loaded.models[name].training


def test_layers_that_the_sizes_do_not_have_are_left_out(tmp_path):
    models, path = networks(), tmp_path / "model.safetensors"
    plain = dataclasses.replace(sizes_of(), spade=False, models=("expander",))

    save_models(path, models, plain, {})

    z = noise(1, 4, 4, 4)
    assert torch.equal(load_models(path).models["expander"](z), models["expander"](z, False))


def test_a_file_that_does_not_fit_its_own_sizes_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_models(path, networks(), sizes_of(), {})
    content, weights = path.read_bytes(), load_file(path)

    path.write_bytes(content.replace(b'\\"vae_dim\\": 4', b'\\"vae_dim\\": 5'))
    with pytest.raises(InputError, match="weights do not fit its own shape"):
        load_models(path)
    path.write_bytes(content.replace(b'\\"vae_dim\\": 4', b'\\"vae_dim\\": 0'))
    with pytest.raises(InputError, match=r"shape.vae_dim must be >= 1, got 0"):
        load_models(path)
    save_file(weights, path)
    with pytest.raises(InputError, match="not a jemtrack model"):
        load_models(path)
