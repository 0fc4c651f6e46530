"""The options of the objectives, free of torch, so that a recipe can be checked without it."""

from typing import Annotated, Literal

from pydantic import Field

from jemtrack.parameters import parameters


@parameters
class CrossEntropyOptions:
    """Cross entropy has none."""


@parameters
class MaxEntropyOptions:
    """The weight of the entropy penalty, and how it is reduced over the batch."""

    entropy_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    entropy_reduction: Literal["mean", "sum"] = "mean"
