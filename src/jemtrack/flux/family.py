"""The recipes of the family `flux`: a variational autoencoder, adversarial training, a flow.

The networks of this family are not part of this version: a recipe of it can be checked, not run.
"""

from typing import Annotated

from pydantic import Field

from jemtrack.parameters import Count, NotNegative, parameters
from jemtrack.train.optimizers import AdamW
from jemtrack.train.recipe import Family, ModesForm


@parameters
class FluxModes:
    """What a step trains, and the weights of its losses.

    Attributes:
        train_vae: compressor and expander, by reconstruction.
        gan_training: the discriminator, and the autoencoder against it.
        train_spade: condition the expander on its context.
        use_lpips: add the perceptual loss to the reconstruction.
        train_diff: the flow, in part.
        train_diff_full: the flow, whole.
        kl_beta: weight of the divergence from the prior.
        kl_warmup_steps: steps until it has its full weight.
        kl_free_bits: nats of the divergence that cost nothing.
        lambda_adv: weight of the adversarial loss.
        lambda_lpips: weight of the perceptual loss.
    """

    train_vae: bool = False
    gan_training: bool = False
    train_spade: bool = False
    use_lpips: bool = False
    train_diff: bool = False
    train_diff_full: bool = False
    kl_beta: NotNegative = 0.0001
    kl_warmup_steps: Count = 5000
    kl_free_bits: NotNegative = 0.0
    lambda_adv: NotNegative = 0.5
    lambda_lpips: NotNegative = 0.1

    @property
    def autoencoder(self) -> bool:
        """Whether compressor and expander are trained, by whichever loss."""
        return self.train_vae or self.gan_training

    @property
    def flow(self) -> bool:
        """Whether the flow is trained."""
        return self.train_diff or self.train_diff_full


@parameters
class FluxShape:
    """The sizes of the networks: channels of the latent, of the flow, of the text's embedding."""

    vae_dim: Annotated[int, Field(ge=1)] = 128
    feature_maps_dim: Annotated[int, Field(ge=1)] = 128
    text_embedding_dim: Annotated[int, Field(ge=1)] = 1024


def _metrics(modes: FluxModes) -> tuple[str, ...]:
    return (
        *(["vae_loss"] if modes.train_vae else []),
        *(["kl_loss"] if modes.autoencoder else []),
        *(["g_loss", "d_loss"] if modes.gan_training else []),
        *(["lpips_loss"] if modes.train_vae and modes.use_lpips else []),
        *(["flow_loss"] if modes.flow else []),
    )


def _trained(modes: FluxModes) -> tuple[str, ...]:
    return (
        *(["vae"] if modes.autoencoder else []),
        *(["discriminator"] if modes.gan_training else []),
        *(["flow", "text_encoder"] if modes.flow else []),
    )


_TRAINING = ("train_vae", "gan_training", "train_diff", "train_diff_full")


def _fault(modes: FluxModes) -> str:
    if any(getattr(modes, name) for name in _TRAINING):
        return ""
    return f"trains nothing: at least one of {', '.join(_TRAINING)} must be true"


def _shown(modes: FluxModes) -> str:
    words = {
        "train_vae": "VAE",
        "gan_training": "GAN",
        "train_spade": "SPADE",
        "use_lpips": "perceptual loss",
        "train_diff": "flow (partial)",
        "train_diff_full": "flow (full)",
    }
    return ", ".join(word for name, word in words.items() if getattr(modes, name))


FAMILY = Family(
    name="flux",
    models=("compressor", "expander", "flow_processor", "text_encoder", "discriminator"),
    optimizers={
        "vae": ("compressor", "expander"),
        "flow": ("flow_processor",),
        "text_encoder": ("text_encoder",),
        "discriminator": ("discriminator",),
    },
    usual_optimizer=AdamW(lr=1e-4),
    shape=FluxShape,
    modes=ModesForm(FluxModes, _metrics, _trained, _fault, _shown),
    note="the networks of this family are not part of this version: it can be checked, not run",
)
