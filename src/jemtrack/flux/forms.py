"""What recipes say of a training of this family, in forms that are checked without PyTorch."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from jemtrack.flux.networks.shape import MODELS
from jemtrack.parameters import (
    FROM_LIST,
    AtLeastOne,
    Count,
    NotNegative,
    Share,
    ValueProblem,
    parameters,
)
from jemtrack.train.optimizers import AdamW, OptimizerOptions
from jemtrack.train.recipe import Step, TrainingSettings, still_frozen

_WORDS = {
    "train_vae": "VAE",
    "gan_training": "GAN",
    "train_spade": "SPADE",
    "use_lpips": "perceptual loss",
    "train_diff": "flow (partial)",
    "train_diff_full": "flow (full)",
}
_TRAINING = ("train_vae", "gan_training", "train_diff", "train_diff_full")
_FLOW = ("train_diff", "train_diff_full")
_OPTIMIZED: Mapping[str, tuple[str, ...]] = {
    "vae": ("compressor", "expander"),
    "flow": ("flow_processor",),
    "text_encoder": ("text_encoder",),
    "discriminator": ("discriminator",),
}


@parameters
class FluxStep(Step):
    """A phase of the family's training: what it trains, and the weights of its losses.

    Attributes:
        description: for readers.
        train_vae: compressor and expander, by reconstruction.
        gan_training: the discriminator, and the autoencoder against it.
        train_spade: let the latent modulate the expander's norms.
        use_lpips: add the perceptual loss to the reconstruction.
        train_diff: the flow processor; the text encoder stays as it is.
        train_diff_full: the flow processor and the text encoder.
        mse_weight: weight of the mean squared error of pixels, beside the mean absolute one.
        kl_beta: weight of the divergence from the prior, in nats per latent value.
        kl_warmup_steps: optimization steps until `kl_beta` is reached.
        kl_free_bits: nats per value of a latent channel that cost nothing.
        lambda_adv: weight of the adversarial loss.
        adv_weight: adaptive: `lambda_adv` times the ratio of the gradients of reconstruction and
            adversarial loss at the expander's last layer; fixed: `lambda_adv` itself, as it is
            where there is no reconstruction.
        adv_warmup_steps: optimization steps in which the discriminator trains alone.
        r1_gamma: of the gradient penalty; 0: none.
        r1_interval: batches from one penalty to the next.
        lambda_lpips: weight of the perceptual loss.
        flow_objective: rectified_flow, or mean_flow, whose samples may take a single step.
        flow_guidance: of a mean flow, with which it is learned; 1 is none.
        flow_time: distribution of the flow's times.
        cfg_dropout_prob: probability with which an image has no caption.
        batch_size: images in an optimization step; null: as the section `training` says.
        use_ema: keep averages of the weights; without, they are the weights in this step.
    """

    models: ClassVar[tuple[str, ...]] = MODELS
    optimized: ClassVar[Mapping[str, tuple[str, ...]]] = _OPTIMIZED
    usual_optimizer: ClassVar[OptimizerOptions] = AdamW(lr=1e-4)
    aliases: ClassVar[Mapping[str, str]] = {"D_img": "discriminator", "flow": "flow_processor"}

    description: str = ""
    train_vae: bool = False
    gan_training: bool = False
    train_spade: bool = False
    use_lpips: bool = False
    train_diff: bool = False
    train_diff_full: bool = False
    mse_weight: NotNegative = 0.0
    kl_beta: NotNegative = 0.0001
    kl_warmup_steps: Count = 5000
    kl_free_bits: NotNegative = 0.0
    lambda_adv: NotNegative = 0.5
    adv_weight: Literal["adaptive", "fixed"] = "adaptive"
    adv_warmup_steps: Count = 0
    r1_gamma: NotNegative = 5.0
    r1_interval: AtLeastOne = 16
    lambda_lpips: NotNegative = 0.1
    flow_objective: Literal["rectified_flow", "mean_flow"] = "rectified_flow"
    flow_guidance: NotNegative = 1.0
    flow_time: Literal["logit_normal", "uniform"] = "logit_normal"
    cfg_dropout_prob: Share = 0.1
    batch_size: AtLeastOne | None = None
    use_ema: bool = True

    @classmethod
    def trained(cls, values: Mapping[str, Any]) -> tuple[str, ...] | None:
        """Name the optimizers of what a step of these values trains; None if that is unclear."""
        if _unclear(values):
            return None
        vae, gan, flow = _losses(values)
        return (
            *(["vae"] if vae or gan else []),
            *(["discriminator"] if gan else []),
            *(["flow"] if flow else []),
            *(["text_encoder"] if values.get("train_diff_full") else []),
        )

    @classmethod
    def metrics(cls, values: Mapping[str, Any]) -> tuple[str, ...] | None:
        """Name the metrics of its batches; None if a switch has a problem."""
        if _unclear(values):
            return None
        vae, gan, flow = _losses(values)
        return (
            "loss",
            *(["vae_loss"] if vae else []),
            *(["kl_loss"] if vae or gan else []),
            *(["g_loss", "d_loss"] if gan else []),
            *(["lpips_loss"] if vae and values.get("use_lpips") else []),
            *(["flow_loss"] if flow else []),
        )

    @classmethod
    def validation_metrics(cls, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Name what validation adds to its epochs."""
        _, _, flow = _losses(values)
        return ("valid_psnr", *(["valid_flow_loss"] if flow else []))

    @classmethod
    def own_problems(cls, values: Mapping[str, Any]) -> Iterator[ValueProblem]:
        """Yield that nothing is trained, or that a mode has nothing left to train."""
        if _unclear(values):
            return
        if not any(_losses(values)):
            names = ", ".join(_TRAINING)
            yield ValueProblem((), f"trains nothing: at least one of {names} must be true")
        if values.get("flow_guidance", 1) != 1 and values.get("flow_objective") != "mean_flow":
            text = "is of a mean flow: a rectified flow is guided when it is sampled"
            yield ValueProblem(("flow_guidance",), text)
        frozen = {*_frozen(values)}
        for mode in _TRAINING:
            for optimizer in _needs(mode) if values.get(mode) else ():
                if {*_OPTIMIZED[optimizer]} <= frozen:
                    text = f"trains {' and '.join(_OPTIMIZED[optimizer])}, but all of it is frozen"
                    yield ValueProblem((mode,), text)

    @property
    def summary(self) -> str:
        """What it trains, in words."""
        return ", ".join(word for name, word in _WORDS.items() if getattr(self, name))

    @property
    def trains_autoencoder(self) -> bool:
        """Whether the compressor and the expander are trained, or what of them is not frozen."""
        return self.train_vae or self.gan_training

    @property
    def trains_flow(self) -> bool:
        """Whether the flow processor is trained."""
        return self.train_diff or self.train_diff_full

    @property
    def has_features(self) -> bool:
        """Whether there is a perceptual loss."""
        return self.train_vae and self.use_lpips

    @property
    def needed(self) -> tuple[str, ...]:
        """The models that it works with, beside the features of a perceptual loss."""
        return (
            *("compressor", "expander"),
            *(["discriminator"] if self.gan_training else []),
            *(["flow_processor", "text_encoder"] if self.trains_flow else []),
        )


def _losses(values: Mapping[str, Any]) -> tuple[bool, bool, bool]:
    vae, gan, *flow = (values.get(name) is True for name in _TRAINING)
    return vae, gan, any(flow)


def _unclear(values: Mapping[str, Any]) -> bool:
    return any(not isinstance(values.get(name, False), bool) for name in _WORDS)


def _needs(mode: str) -> tuple[str, ...]:
    return {"train_vae": ("vae",), "gan_training": ("vae", "discriminator")}.get(mode, ("flow",))


def _frozen(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the models that a step of these values freezes; what is no model is skipped."""
    given = (values.get(name) for name in ("freeze", "unfreeze"))
    lists = [[n for n in each if n in MODELS] if isinstance(each, list) else [] for each in given]
    return still_frozen(MODELS, *lists)


@parameters
class FluxOptions:
    """What is seen and kept in a training.

    Attributes:
        batch_size: images in an optimization step.
        use_ema: validate, sample and save averages of the weights over the training, and train
            each later phase on those of the one before.
        ema_decay: share of the average that an update keeps.
        checkpoint_save_interval: batches from one writing of samples to the next within an epoch;
            null: at the ends of epochs alone.
        n_samples: images whose reconstructions are written as samples, and captions that are
            drawn; 0: no samples are written.
        sample_captions: the captions to draw; without, those of the first classes.
    """

    batch_size: AtLeastOne = 64
    use_ema: bool = True
    ema_decay: Share = 0.999
    checkpoint_save_interval: AtLeastOne | None = None
    n_samples: Count = 2
    sample_captions: Annotated[tuple[str, ...], FROM_LIST] = ()


@parameters
class FluxSettings(FluxOptions, TrainingSettings):
    """The section `training` of a recipe file."""


def first_steps(steps: tuple[FluxStep, ...]) -> dict[str, str]:
    """Return the models that the steps need, with the name of the first step that needs each."""
    found: dict[str, str] = {}
    for step in steps:
        for model in step.needed:
            found.setdefault(model, step.name)
    return found


def spade_after(steps: tuple[FluxStep, ...]) -> bool:
    """Return whether the expander decodes with SPADE after these steps, as the last trained it."""
    flags = [step.train_spade for step in steps if step.trains_autoencoder]
    return flags[-1] if flags else False
