"""The options of the networks, free of torch, so that a recipe can be checked without it."""

from typing import Annotated, Literal

from pydantic import AfterValidator

NormName = Literal["none", "batch", "instance", "layer", "act"]


def _blocks_fit(depth: int) -> int:
    """Check that `depth` is 6n + 4: three groups of n blocks of two layers, and the four others."""
    if depth >= 10 and depth % 6 == 4:
        return depth
    below = max(10, depth - (depth - 4) % 6)
    nearest = f"the nearest are {below} and {below + 6}" if depth > 10 else "the least is 10"
    raise ValueError(f"must be 6n + 4 with n >= 1: {nearest}")


Depth = Annotated[int, AfterValidator(_blocks_fit)]
