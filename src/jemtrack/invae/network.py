"""The network of inVAE: an encoder, priors and a decoder of counts.

Letters: B cells, G genes, C codes of a batch or label, H hidden units, K latent dimensions, in
`BZ` those of z = [z_i, z_s].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from jemtrack.invae.counts import Decoded, SparseCounts, gaussian_log_density, log_likelihood
from jemtrack.invae.options import InVAEShape

_NORMS: dict[str, Callable[[int], list[nn.Module]]] = {
    # A momentum of 0.01, as in scVI, lags by a hundred steps: twenty epochs of a thousand cells.
    "batch": lambda n: [nn.BatchNorm1d(n, eps=1e-3, momentum=0.1)],
    "layer": lambda n: [nn.LayerNorm(n)],
    "none": lambda n: [],
}
_BOUND = 10.0  # of a log variance, which approaches it smoothly


class Gaussian(NamedTuple):
    """Normal distributions with diagonal covariances."""

    mean_BK: Tensor
    log_variance_BK: Tensor

    def sample(self, stream: torch.Generator) -> Tensor:
        """Draw from each; the gradient flows back to mean and variance."""
        noise_BK = torch.randn(self.mean_BK.shape, generator=stream, device=stream.device)
        return self.mean_BK + (0.5 * self.log_variance_BK).exp() * noise_BK

    def log_density(self, x_BK: Tensor) -> Tensor:
        """Compute the log density at `x_BK`, (B,)."""
        return gaussian_log_density(x_BK, self.mean_BK, self.log_variance_BK)

    def kl(self, other: Gaussian) -> Tensor:
        """Compute the divergence KL(self, other), (B,)."""
        difference_BK = self.log_variance_BK - other.log_variance_BK
        squares_BK = (self.mean_BK - other.mean_BK).square() * (-other.log_variance_BK).exp()
        return 0.5 * (difference_BK.exp() + squares_BK - 1 - difference_BK).sum(dim=-1)

    def part(self, dimensions: slice) -> Gaussian:
        """Return the distributions of some dimensions."""
        return Gaussian(self.mean_BK[:, dimensions], self.log_variance_BK[:, dimensions])


class Condition(NamedTuple):
    """The codes of the cells' batches and labels, (B,); -1: unknown.

    Attributes:
        all_labelled: every label is known. It is on the CPU: a look at `labels_B` would make the
            CPU wait for the GPU in each step. False is always right.
    """

    batches_B: Tensor
    labels_B: Tensor
    all_labelled: bool = False

    def with_labels(self, labels_B: Tensor) -> Condition:
        """Return the same batches with other labels, some of which may be unknown."""
        return Condition(self.batches_B, labels_B)


class Terms(NamedTuple):
    """What the evidence lower bound of each cell is made of, (B,), for one draw of z."""

    reconstruction_B: Tensor
    kl_i_B: Tensor
    kl_s_B: Tensor

    @property
    def bound(self) -> Tensor:
        """The evidence lower bound, (B,): log p(x given z) less the divergences."""
        return self.reconstruction_B - self.kl_i_B - self.kl_s_B


def one_hot(codes_B: Tensor, n_codes: int) -> Tensor:
    """Return rows of zeros with a one; an unknown code, -1, has none."""
    is_code_BC: Tensor = codes_B[:, None] == torch.arange(n_codes, device=codes_B.device)
    return is_code_BC.float()


class Layers(nn.Module):
    """Hidden layers; the first `n_conditioned` of them are given a condition of size C, too."""

    def __init__(
        self, n_in: int, shape: InVAEShape, *, n_codes: int = 0, n_conditioned: int = 0
    ) -> None:
        super().__init__()
        self.n_conditioned = n_conditioned
        sizes = [n_in, *[shape.hidden] * (shape.n_layers - 1)]
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Linear(size + (n_codes if number < n_conditioned else 0), shape.hidden),
                *_NORMS[shape.norm](shape.hidden),
                nn.ReLU(),
                *([nn.Dropout(shape.dropout)] if shape.dropout else []),
            )
            for number, size in enumerate(sizes)
        )

    def forward(self, hidden_BH: Tensor, condition_BC: Tensor | None = None) -> Tensor:
        """Compute the last hidden layer, (B, H)."""
        for number, layer in enumerate(self.layers):
            if condition_BC is not None and number < self.n_conditioned:
                hidden_BH = torch.cat([hidden_BH, condition_BC], dim=1)
            hidden_BH = layer(hidden_BH)
        return hidden_BH


class GaussianHead(nn.Module):
    """Means and log variances of K dimensions, linear in the hidden units."""

    def __init__(self, n_hidden: int, n_latent: int) -> None:
        super().__init__()
        self.mean = nn.Linear(n_hidden, n_latent)
        self.log_variance = nn.Linear(n_hidden, n_latent)

    def forward(self, hidden_BH: Tensor) -> Gaussian:
        """Compute them; a log variance is within bounds that it only approaches."""
        # In the lower precision of autocast, a divergence would lose its digits.
        raw_BK = self.log_variance(hidden_BH).float()
        return Gaussian(self.mean(hidden_BH).float(), _BOUND * torch.tanh(raw_BK / _BOUND))


class Prior(nn.Module):
    """A normal distribution of K dimensions for each code.

    No norm and no dropout are in it: the density of a latent must depend on nothing else.
    """

    def __init__(self, n_codes: int, n_latent: int, shape: InVAEShape) -> None:
        super().__init__()
        self.n_codes, self.kind = n_codes, shape.prior
        self.layers = Layers(n_codes, replace(shape, norm="none", dropout=0.0))
        self.head = GaussianHead(shape.hidden, n_latent)

    def forward(self, condition_BC: Tensor) -> Gaussian:
        """Return the distributions by one-hot codes."""
        prior: Gaussian = self.head(self.layers(condition_BC))
        if self.kind == "variance":
            return prior._replace(mean_BK=torch.zeros_like(prior.mean_BK))
        return prior


class Priors(nn.Module):
    """The priors of z_i and z_s; without labels or batches to depend on, standard normal.

    `label_shares_C` are the shares of the labels, by which an unlabelled cell's prior is mixed.
    """

    def __init__(self, shape: InVAEShape, n_batches: int, label_shares_C: Tensor) -> None:
        super().__init__()
        learned = shape.prior != "standard"
        n_labels = len(label_shares_C) if shape.labels_in_prior and learned else 0
        self.z_i = Prior(n_labels, shape.z_i_dim, shape) if n_labels else None
        self.z_s = Prior(n_batches, shape.z_s, shape) if shape.z_s and learned else None
        self.label_shares_C: Tensor
        self.register_buffer("label_shares_C", label_shares_C[:n_labels])

    def kl_i(self, posterior: Gaussian, z_BK: Tensor, condition: Condition) -> Tensor:
        """Compute KL(q, p) in closed form; of unlabelled cells, log q - log p at the draw `z_BK`.

        The divergence from a mixture has no closed form.
        """
        if self.z_i is None:
            return posterior.kl(_standard(posterior))
        labels_B = condition.labels_B
        closed_B = posterior.kl(self.z_i(one_hot(labels_B, self.z_i.n_codes)))
        if condition.all_labelled:
            return closed_B
        drawn_B = posterior.log_density(z_BK) - self.mixture_log_density(z_BK)
        return torch.where(labels_B >= 0, closed_B, drawn_B)

    def kl_s(self, posterior: Gaussian, batches_B: Tensor) -> Tensor:
        """Compute KL(q, p) in closed form."""
        if self.z_s is None:
            return posterior.kl(_standard(posterior))
        return posterior.kl(self.z_s(one_hot(batches_B, self.z_s.n_codes)))

    def log_density(self, z_i_BK: Tensor, z_s_BK: Tensor, condition: Condition) -> Tensor:
        """Compute log p(z given the batch and, if there is one, the label), (B,)."""
        if self.z_i is None:
            density_B = _standard_log_density(z_i_BK)
        else:
            labels_B = condition.labels_B
            labelled = self.z_i(one_hot(labels_B, self.z_i.n_codes)).log_density(z_i_BK)
            density_B = torch.where(labels_B >= 0, labelled, self.mixture_log_density(z_i_BK))
        if self.z_s is None:
            return density_B + _standard_log_density(z_s_BK)
        of_batch: Gaussian = self.z_s(one_hot(condition.batches_B, self.z_s.n_codes))
        return density_B + of_batch.log_density(z_s_BK)

    def mixture_log_density(self, z_BK: Tensor) -> Tensor:
        """Compute log p(z_i) of cells whose label is unknown, (B,)."""
        assert self.z_i is not None
        by_label = self.z_i(torch.eye(self.z_i.n_codes, device=z_BK.device))
        return torch.logsumexp(self.label_shares_C.log() + by_label.log_density(z_BK[:, None]), 1)


def _standard(like: Gaussian) -> Gaussian:
    zeros_BK = torch.zeros_like(like.mean_BK)
    return Gaussian(zeros_BK, zeros_BK)


def _standard_log_density(z_BK: Tensor) -> Tensor:
    return Gaussian(torch.zeros_like(z_BK), torch.zeros_like(z_BK)).log_density(z_BK)


class Encoder(nn.Module):
    """q(z given x), of log(1 + counts) and, if the shape says so, of label and batch."""

    def __init__(self, shape: InVAEShape, n_genes: int, n_batches: int, n_labels: int) -> None:
        super().__init__()
        self.n_labels = n_labels if shape.labels_in_encoder else 0
        self.n_batches = n_batches if shape.batch_in_encoder else 0
        self.layers = Layers(n_genes + self.n_labels + self.n_batches, shape)
        self.head = GaussianHead(shape.hidden, shape.z_i_dim + shape.z_s)

    def forward(self, logs_BG: Tensor, condition: Condition) -> Gaussian:
        """Compute the posterior of z, (B, Z)."""
        labels_BC = one_hot(condition.labels_B, self.n_labels)
        batches_BC = one_hot(condition.batches_B, self.n_batches)
        posterior: Gaussian = self.head(self.layers(torch.cat([logs_BG, labels_BC, batches_BC], 1)))
        return posterior


class Decoder(nn.Module):
    """p(x given z and the batch)."""

    def __init__(self, shape: InVAEShape, n_genes: int, n_batches: int) -> None:
        super().__init__()
        n_conditioned = {"every_layer": shape.n_layers, "first": 1, "none": 0}
        # As in scVI, no dropout: what drops the batch makes the latent carry it.
        self.layers = Layers(
            shape.z_i_dim + shape.z_s,
            replace(shape, dropout=0.0),
            n_codes=n_batches,
            n_conditioned=n_conditioned[shape.batch_in_decoder],
        )
        self.n_batches = n_batches
        self.logits = nn.Linear(shape.hidden, n_genes)
        self.zero_logits = nn.Linear(shape.hidden, n_genes) if shape.likelihood == "zinb" else None
        n_dispersions = n_batches if shape.dispersion == "gene_batch" else 1
        self.log_dispersion = nn.Parameter(torch.zeros(n_dispersions, n_genes))

    def forward(self, z_BZ: Tensor, batches_B: Tensor) -> Decoded:
        """Compute the distribution of each count; of an unknown batch, with the mean dispersion."""
        batches_BC = one_hot(batches_B, self.n_batches)
        hidden_BH = self.layers(z_BZ, batches_BC)
        log_dispersion: Tensor = self.log_dispersion
        if len(log_dispersion) > 1:
            known_B1 = (batches_B >= 0)[:, None]
            # Rows, and not a product with one-hot codes, which autocast would round.
            of_batch_BG = log_dispersion[batches_B.clamp_min(0)]
            log_dispersion = torch.where(known_B1, of_batch_BG, log_dispersion.mean(dim=0))
        zero_logits_BG = self.zero_logits(hidden_BH).float() if self.zero_logits else None
        # In the lower precision of autocast, a likelihood would lose its digits.
        return Decoded(self.logits(hidden_BH).float(), log_dispersion, zero_logits_BG)


class InVAE(nn.Module):
    """The encoder, the priors and the decoder of counts of G genes."""

    def __init__(
        self, shape: InVAEShape, n_genes: int, n_batches: int, label_shares_C: Tensor
    ) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = Encoder(shape, n_genes, n_batches, len(label_shares_C))
        self.prior = Priors(shape, n_batches, label_shares_C)
        self.decoder = Decoder(shape, n_genes, n_batches)
        for module in self.modules():
            if isinstance(module, nn.Linear):  # as the authors' code does
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def terms(
        self, counts: SparseCounts, seen: Condition, condition: Condition, stream: torch.Generator
    ) -> Terms:
        """Draw z and compute the terms of the bound.

        `seen` is what the encoder may see, `condition` what prior and decoder are given.
        """
        posterior = self.encoder(counts.logs(), seen)
        z_BZ = posterior.sample(stream)
        of_z_i, of_z_s = self.parts()
        return Terms(
            self.log_likelihood(counts, z_BZ, condition.batches_B),
            self.prior.kl_i(posterior.part(of_z_i), z_BZ[:, of_z_i], condition),
            self.prior.kl_s(posterior.part(of_z_s), condition.batches_B),
        )

    def log_likelihood(self, counts: SparseCounts, z_BZ: Tensor, batches_B: Tensor) -> Tensor:
        """Compute log p(x given z and the batch), (B,)."""
        decoded: Decoded = self.decoder(z_BZ, batches_B)
        return log_likelihood(counts, decoded, self.shape.likelihood)

    def parts(self) -> tuple[slice, slice]:
        """Return the dimensions of z_i and of z_s."""
        return slice(self.shape.z_i_dim), slice(self.shape.z_i_dim, None)
