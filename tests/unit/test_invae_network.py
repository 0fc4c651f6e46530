"""The bound of inVAE: divergences, mixtures and the evidence against closed forms."""

import dataclasses

import pytest
import torch
from cells import network, seeded, some_cells, some_splits, training
from torch import distributions

from jemtrack.data.cells.cells import Cells
from jemtrack.invae.batches import cell_batch
from jemtrack.invae.inference import bound_terms, latents, log_evidence
from jemtrack.invae.network import Condition, Gaussian, one_hot

CPU = torch.device("cpu")


def gaussian(seed: int, n: int = 5) -> Gaussian:
    return Gaussian(torch.randn(n, 3, generator=seeded(seed)), torch.randn(n, 3))


def as_torch(of: Gaussian) -> distributions.Distribution:
    normal = distributions.Normal(of.mean_BK, (0.5 * of.log_variance_BK).exp())
    return distributions.Independent(normal, 1)


def whole(cells: Cells):
    return cell_batch(cells, torch.arange(len(cells)), CPU)


def flatten_decoder(of) -> None:
    """Let the decoder ignore the latent: the evidence is then its likelihood."""
    with torch.no_grad():
        of.decoder.logits.weight.zero_()


def test_densities_and_divergences_are_those_of_torch():
    one, other, x = gaussian(1), gaussian(2), torch.randn(5, 3)

    torch.testing.assert_close(one.log_density(x), as_torch(one).log_prob(x))
    expected = distributions.kl_divergence(as_torch(one), as_torch(other))
    torch.testing.assert_close(one.kl(other), expected)


def test_an_unlabelled_cell_has_the_mixture_of_the_labels_priors():
    priors, z = network().prior, torch.randn(7, 3)
    by_label = priors.z_i(torch.eye(3))
    mixture = distributions.MixtureSameFamily(
        distributions.Categorical(priors.label_shares_C), as_torch(by_label)
    )

    torch.testing.assert_close(priors.mixture_log_density(z), mixture.log_prob(z))


def test_labelled_cells_have_the_closed_divergence_and_others_a_draw_of_it():
    priors, posterior = network().prior, gaussian(3, n=4)
    labels = torch.tensor([0, -1, 2, -1])
    z = posterior.sample(seeded())

    found = priors.kl_i(posterior, z, Condition(labels, labels))

    closed = posterior.kl(priors.z_i(one_hot(labels, 3)))
    drawn = posterior.log_density(z) - priors.mixture_log_density(z)
    torch.testing.assert_close(found, torch.where(labels >= 0, closed, drawn))


def test_whether_all_cells_are_labelled_is_decided_on_the_cpu():
    """A tensor without values, as one that a GPU has not computed yet, would be asked for them."""
    priors = network().prior.to("meta")
    z, labels = torch.zeros(4, 3, device="meta"), torch.zeros(4, dtype=torch.int64, device="meta")

    for all_labelled in (True, False):
        condition = Condition(labels, labels, all_labelled)
        assert priors.kl_i(Gaussian(z, z), z, condition).shape == (4,)
    assert whole(some_cells(9)).condition.all_labelled
    condition = whole(some_cells(9, unlabelled=1)).condition
    assert not condition.all_labelled
    assert not whole(some_cells(9)).condition.with_labels(condition.labels_B).all_labelled


def test_divergences_and_dispersions_keep_their_precision_under_autocast():
    of, cells = network(dispersion="gene_batch"), some_cells(40)
    with torch.no_grad():
        of.decoder.log_dispersion.normal_(generator=seeded())
    batch = whole(cells)

    with torch.autocast("cpu", torch.bfloat16):
        posterior = of.encoder(batch.counts.logs(), batch.condition)
        decoded = of.decoder(posterior.mean_BK, batch.condition.batches_B)
        terms = of.terms(batch.counts, batch.condition, batch.condition, seeded())

    assert {part.dtype for part in (*posterior, *terms)} == {torch.float32}
    expected = of.decoder.log_dispersion[batch.condition.batches_B]
    assert decoded.log_dispersion_BG.equal(expected)
    unknown = of.decoder(posterior.mean_BK, torch.full((40,), -1)).log_dispersion_BG
    torch.testing.assert_close(unknown[7], of.decoder.log_dispersion.mean(dim=0))


def test_of_a_decoder_that_ignores_the_latent_the_evidence_is_its_likelihood():
    of, cells = network(), some_cells(40, unlabelled=10)
    flatten_decoder(of)
    batch = whole(cells)
    exact = of.log_likelihood(batch.counts, torch.zeros(40, 3), batch.condition.batches_B).detach()

    terms = bound_terms(of, cells, n_samples=2, seed=1)
    estimate = log_evidence(of, cells, n_samples=400, seed=1)

    torch.testing.assert_close(terms.reconstruction_B, exact)
    torch.testing.assert_close(estimate, exact, rtol=0, atol=0.5)
    labelled = cells.labels_N >= 0
    assert (terms.bound[labelled] <= exact[labelled]).all()


def test_more_draws_bring_the_evidence_nearer():
    of, cells = network(likelihood="zinb", dispersion="gene_batch"), some_cells(60)

    few, many = (log_evidence(of, cells, n, seed=2).mean() for n in (1, 50))

    bound = bound_terms(of, cells, n_samples=50, seed=2).bound.mean()
    assert bound < many
    assert few < many


def test_the_encoder_of_the_default_form_sees_counts_alone():
    of, cells = network(), some_cells()
    shuffled = dataclasses.replace(
        cells, labels_N=cells.labels_N[::-1].copy(), batches_N=1 - cells.batches_N
    )

    assert latents(of, cells).z_i_NZ.equal(latents(of, shuffled, labels_seen=True).z_i_NZ)


def test_the_published_form_has_z_s_and_is_shown_labels_only_if_asked():
    form = {"batch_in_decoder": "none", "labels_in_encoder": True, "batch_in_encoder": True}
    of, cells = network(**form), some_cells()
    others = dataclasses.replace(cells, labels_N=(cells.labels_N + 1) % 3)

    assert latents(of, cells).z_s_NZ.shape == (70, 2)
    assert [*latents(of, cells).obsm()] == ["X_inVAE", "X_inVAE_spurious"]
    assert [*latents(network(), cells).obsm()] == ["X_inVAE"]
    assert latents(of, cells).z_i_NZ.equal(latents(of, others).z_i_NZ)
    seen = [latents(of, each, labels_seen=True).z_i_NZ for each in (cells, others)]
    assert not seen[0].equal(seen[1])
    # No layer of its decoder is given the batch.
    z, batches = torch.zeros(70, 5), whole(cells).condition.batches_B
    assert of.decoder(z, batches).logits_BG.equal(of.decoder(z, 1 - batches).logits_BG)


@pytest.mark.parametrize(
    ("where", "given"), [("every_layer", [True, True]), ("first", [True, False])]
)
def test_the_layers_of_the_decoder_that_are_given_the_batch(where, given):
    layers = network(batch_in_decoder=where).decoder.layers.layers

    assert [layer[0].in_features for layer in layers] == [
        size + 2 * is_given for size, is_given in zip([3, 8], given, strict=True)
    ]


@pytest.mark.parametrize(
    "form",
    [
        {"likelihood": "normal", "norm": "layer", "prior": "variance"},
        {"likelihood": "zinb", "dispersion": "gene_batch", "batch_in_decoder": "first"},
        {"labels_in_prior": False, "norm": "none", "dropout": 0.0},
        {"prior": "standard", "batch_in_decoder": "none", "batch_in_encoder": True},
    ],
)
def test_every_form_trains(form):
    longer = {"n_epochs": 8, "lr": 0.01, "kl_warmup_epochs": 0}
    made = training(some_splits(unlabelled=9), **longer, **form)
    phase = made.phases[0]
    first = next(iter(phase.batches.epoch(0)))
    before = phase.objective(made.state.models, first)["loss"].item()

    metrics = made.train((), None)

    assert metrics["train_loss"] < before
    assert metrics["valid_loss"] == pytest.approx(
        metrics["valid_kl_i"] + metrics["valid_kl_s"] - metrics["valid_reconstruction"]
    )


def test_cells_without_labels_are_trained_on():
    data = some_splits(unlabelled=70)
    nameless = data.vocabulary._replace(labels=())
    valid = dataclasses.replace(data.valid, labels_N=data.valid.labels_N * 0 - 1)
    data = dataclasses.replace(data, vocabulary=nameless, valid=valid)

    made = training(data)

    assert made.state.models["network"].prior.z_i is None
    assert made.train((), None)["valid_loss"] > 0
