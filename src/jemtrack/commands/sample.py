"""`jemtrack sample`: images by captions, as one picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jemtrack.errors import InputError
from jemtrack.recipe.read import families

_FORMATS = (".png", ".webp")


@runtime_checkable
class DrawsByCaption(Protocol):
    """A family whose models draw images by captions."""

    def draw(
        self, model: Path, captions: Sequence[str], seed: int, out: Path, options: Mapping[str, Any]
    ) -> list[str]:
        """Draw an image for each caption into a grid at `out`, equal captions in a row.

        `options` are those of the sampler that are not its defaults. Returned is what to tell.
        """
        ...


def sample(
    model: Path, captions: Sequence[str], n: int, seed: int, out: Path, options: Mapping[str, Any]
) -> list[str]:
    """Draw `n` images for each caption into a grid at `out`; return the lines to print.

    Raises:
        InputError: if the file holds no model that draws by captions, or an option does not fit.
    """
    if n < 1:
        raise InputError(f"--n must be >= 1, got {n}")
    if out.suffix.lower() not in _FORMATS:
        raise InputError(f"--out must end in {' or '.join(_FORMATS)}, got {out}")
    family = next(each for each in families().values() if isinstance(each, DrawsByCaption))
    each_n_times = [caption for caption in dict.fromkeys(captions) for _ in range(n)]
    return family.draw(model, each_n_times, seed, out, options)
