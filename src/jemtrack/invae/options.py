"""The options of the network and of its training, free of torch."""

from typing import Annotated, Literal

from pydantic import Field

from jemtrack.parameters import AtLeastOne, Count, NotNegative, Share, parameters

NETWORK = "network"  # the name of the one model of a training


@parameters
class InVAEShape:
    """The network: what the encoder, the prior and the decoder see, and their sizes.

    The defaults are not the published form, which Aliee et al. (https://arxiv.org/abs/2307.00558)
    call FinVAE: that one has `batch_in_decoder: none`, `labels_in_encoder: true` and
    `batch_in_encoder: true`. See docs/single_cell.md.

    Attributes:
        z_i_dim: dimensions of z_i, the biological part of the latent.
        z_s_dim: dimensions of z_s, the technical part, whose prior is that of the batch; 0: none.
            While the decoder is given the batch itself, there is no z_s.
        hidden: units of a hidden layer.
        n_layers: hidden layers of the encoder, of the decoder and of each prior.
        dropout: share of the hidden units of the encoder that is dropped in a training step.
        norm: of the hidden layers; not in the priors.
        likelihood: of the counts: negative binomial, the same with inflated zeros, or a normal
            distribution of log(1 + 10,000 times a gene's share of the cell's counts).
        dispersion: one for each gene, or for each gene in each batch.
        batch_in_decoder: the layers that are given the batch.
        labels_in_prior: z_i has a prior for each label; an unlabelled cell has their mixture.
        labels_in_encoder: the encoder is given the label; of an unlabelled cell, zeros.
        batch_in_encoder: the encoder is given the batch.
        prior: what is learned of the normal priors; standard: nothing.
    """

    z_i_dim: AtLeastOne = 30
    z_s_dim: Count = 5
    hidden: AtLeastOne = 128
    n_layers: AtLeastOne = 2
    dropout: Share = 0.1
    norm: Literal["batch", "layer", "none"] = "batch"
    likelihood: Literal["nb", "zinb", "normal"] = "nb"
    dispersion: Literal["gene", "gene_batch"] = "gene"
    batch_in_decoder: Literal["every_layer", "first", "none"] = "every_layer"
    labels_in_prior: bool = True
    labels_in_encoder: bool = False
    batch_in_encoder: bool = False
    prior: Literal["mean_and_variance", "variance", "standard"] = "mean_and_variance"

    @property
    def z_s(self) -> int:
        """The dimensions of z_s that the network has."""
        return self.z_s_dim if self.batch_in_decoder == "none" else 0


@parameters
class KLOptions:
    """The weight of the divergence from the prior.

    Attributes:
        kl_weight: the weight at last; 1 is the evidence lower bound. The decoder is given the
            batch, so that what the latent says of it is divergence alone: more weight removes it.
        kl_start: the weight at first.
        kl_warmup_epochs: epochs over which it rises linearly, step by step; 0: none.
        free_bits: nats of a cell's divergence that cost nothing.
    """

    kl_weight: NotNegative = 4.0
    kl_start: NotNegative = 0.0
    kl_warmup_epochs: Count = 80
    free_bits: NotNegative = 0.0


@parameters
class InVAEBatchArgs:
    """What the network sees in a training.

    Attributes:
        batch_size: cells in an optimization step at most; all batches have nearly one size.
        label_dropout: probability that the encoder is given no label, if it is given any.
        valid_samples: draws of the latent for each validation cell.
        eval_every: epochs between looks at the validation cells.
    """

    batch_size: AtLeastOne = 256
    label_dropout: Annotated[float, Field(ge=0, le=1)] = 0.0
    valid_samples: AtLeastOne = 5
    eval_every: AtLeastOne = 1
