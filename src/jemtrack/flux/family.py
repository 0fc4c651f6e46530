"""The family `flux`: a variational autoencoder, adversarial training, a flow.

Its networks are not part of this version: a recipe of it can be checked, not run.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from jemtrack.parameters import AtLeastOne, Count, NotNegative, ValueProblem, parameters
from jemtrack.train.optimizers import AdamW, OptimizerOptions
from jemtrack.train.recipe import Step, TrainingSettings

_WORDS = {
    "train_vae": "VAE",
    "gan_training": "GAN",
    "train_spade": "SPADE",
    "use_lpips": "perceptual loss",
    "train_diff": "flow (partial)",
    "train_diff_full": "flow (full)",
}
_TRAINING = ("train_vae", "gan_training", "train_diff", "train_diff_full")


@parameters
class FluxStep(Step):
    """A phase of the family's training: what it trains, and the weights of its losses.

    Attributes:
        train_vae: compressor and expander, by reconstruction.
        gan_training: the discriminator, and the autoencoder against it.
        train_spade: condition the expander on its context.
        use_lpips: add the perceptual loss to the reconstruction.
        train_diff: the flow, in part.
        train_diff_full: the flow, whole.
        kl_beta: weight of the divergence from the prior.
        kl_warmup_steps: steps until `kl_beta` is reached.
        kl_free_bits: nats of the divergence that cost nothing.
        lambda_adv: weight of the adversarial loss.
        lambda_lpips: weight of the perceptual loss.
    """

    models: ClassVar[tuple[str, ...]] = (
        *("compressor", "expander", "flow_processor", "text_encoder", "discriminator"),
    )
    optimized: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "vae": ("compressor", "expander"),
        "flow": ("flow_processor",),
        "text_encoder": ("text_encoder",),
        "discriminator": ("discriminator",),
    }
    usual_optimizer: ClassVar[OptimizerOptions] = AdamW(lr=1e-4)

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

    @classmethod
    def trained(cls, values: Mapping[str, Any]) -> tuple[str, ...] | None:
        """Name the optimizers of what a step of these values trains; None if that is unclear."""
        if _unclear(values):
            return None
        vae, gan, flow = _losses(values)
        return (
            *(["vae"] if vae or gan else []),
            *(["discriminator"] if gan else []),
            *(["flow", "text_encoder"] if flow else []),
        )

    @classmethod
    def metrics(cls, values: Mapping[str, Any]) -> tuple[str, ...] | None:
        """Name the metrics of its batches; None if a switch has a problem."""
        if _unclear(values):
            return None
        vae, gan, flow = _losses(values)
        return (
            *(["vae_loss"] if vae else []),
            *(["kl_loss"] if vae or gan else []),
            *(["g_loss", "d_loss"] if gan else []),
            *(["lpips_loss"] if vae and values.get("use_lpips") else []),
            *(["flow_loss"] if flow else []),
        )

    @classmethod
    def own_problems(cls, values: Mapping[str, Any]) -> Iterator[ValueProblem]:
        """Yield that nothing is trained, if so."""
        if not _unclear(values) and not any(_losses(values)):
            names = ", ".join(_TRAINING)
            yield ValueProblem((), f"trains nothing: at least one of {names} must be true")

    @property
    def summary(self) -> str:
        """What it trains, in words."""
        return ", ".join(word for name, word in _WORDS.items() if getattr(self, name))


def _losses(values: Mapping[str, Any]) -> tuple[bool, bool, bool]:
    vae, gan, *flow = (values.get(name) is True for name in _TRAINING)
    return vae, gan, any(flow)


def _unclear(values: Mapping[str, Any]) -> bool:
    return any(not isinstance(values.get(name, False), bool) for name in _WORDS)


@parameters
class FluxShape:
    """The sizes of the networks: channels of the latent, of the flow, of the text's embedding."""

    vae_dim: AtLeastOne = 128
    feature_maps_dim: AtLeastOne = 128
    text_embedding_dim: AtLeastOne = 1024


@parameters
class FluxSettings(TrainingSettings):
    """The section `training` of a recipe file."""

    batch_size: AtLeastOne = 64


class FluxFamily:
    """What there is of the family: its forms."""

    name: str = "flux"
    note: str = (
        "the networks of this family are not part of this version: it can be checked, not run"
    )
    step: type[Step] = FluxStep
    shape: type = FluxShape
    settings: type = FluxSettings
    objectives: Mapping[str, type] = {}

    def recipe_problems(self, recipe: Any, model: Any, objective: Any) -> Iterator[ValueProblem]:
        """Yield nothing: `own_problems` says it all."""
        yield from ()


FAMILY = FluxFamily()
