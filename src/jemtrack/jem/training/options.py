"""The options of the objectives, free of torch, so that a recipe can be checked without it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from jemtrack.parameters import NotNegative, Positive, parameters

NETWORK = "network"  # the name of the one model of a training


@parameters
class CrossEntropyOptions:
    """Cross entropy has none."""


@parameters
class MaxEntropyOptions:
    """The weight of the entropy penalty, and how it is reduced over the batch."""

    entropy_weight: NotNegative = 1.0
    entropy_reduction: Literal["mean", "sum"] = "mean"


@parameters
class SampledJEMOptions:
    """The weights of JEM's three terms, how its chains run, and what keeps them stable.

    The defaults are JEM's own (Grathwohl et al. 2020, https://arxiv.org/abs/1912.03263); the
    chains' length is the trainer's `n_steps`. IGEBM is Du & Mordatch 2019
    (https://arxiv.org/abs/1903.08689), JEM++ Yang & Ji 2021 (https://arxiv.org/abs/2109.09032),
    SADA-JEM Yang, Su & Ji 2023 (https://arxiv.org/abs/2209.07959).

    Attributes:
        p_x_weight: of log p(x), by chains that climb log p~(x).
        p_y_given_x_weight: of log p(y|x), the cross entropy.
        p_x_y_weight: of log p(x, y), by chains that climb the logit of an image's own class.
        class_conditional: let the chains for p(x) climb the logit of a class drawn for each.
        step_size: of a chain, times the gradient of the log density.
        noise_std: of the noise of a step, on the scale [-1, 1]; 0: none, as in SADA-JEM.
        buffer_size: images in the replay buffer, from which chains go on.
        reinit_probability: with which a chain begins afresh instead.
        start: where a fresh chain begins: anywhere in [-1, 1], or at a draw from a Gaussian
            fitted to the training images of a class, as in JEM++.
        score_clamp: bound of the gradient in every pixel, as in JEM++; none: unbounded.
        pixel_clamp: keep the chains within [-1, 1], as IGEBM does.
        energy_weight: of E(x)^2, over images and samples, as in IGEBM.
        plain_density_images: learn p(x) from images that are not cropped or flipped, drawn apart
            from those of the cross entropy, as in SADA-JEM.
    """

    p_x_weight: NotNegative = 1.0
    p_y_given_x_weight: NotNegative = 1.0
    p_x_y_weight: NotNegative = 0.0
    class_conditional: bool = False
    step_size: Positive = 1.0
    noise_std: NotNegative = 0.01
    buffer_size: Annotated[int, Field(ge=1)] = 10_000
    reinit_probability: Annotated[float, Field(ge=0, le=1)] = 0.05
    start: Literal["uniform", "class_gaussians"] = "uniform"
    score_clamp: Positive | None = None
    pixel_clamp: bool = False
    energy_weight: NotNegative = 0.0
    plain_density_images: bool = False

    @model_validator(mode="after")
    def _has_chains(self) -> "SampledJEMOptions":
        if not self.p_x_weight and not self.p_x_y_weight:
            raise ValueError("p_x_weight or p_x_y_weight must be > 0")
        return self
