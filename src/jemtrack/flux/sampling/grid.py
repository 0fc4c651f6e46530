"""Images by captions, laid out as one picture."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from jemtrack.errors import InputError
from jemtrack.flux.captions import unknown_words
from jemtrack.flux.networks.model_file import load_models
from jemtrack.flux.sampling.generate import FlowSampler
from jemtrack.flux.sampling.pictures import as_pixels, grid, write_picture
from jemtrack.parameters import build

_SCREEN = 64  # pixels of the screen that an image has at least


def draw_grid(
    model: Path, captions: Sequence[str], seed: int, out: Path, options: Mapping[str, Any]
) -> list[str]:
    """Draw an image for each caption into a grid at `out`, equal captions in a row.

    Returned is what to tell: words that the model does not know, and what was drawn.

    Raises:
        InputError: if the file has no flow, or an option does not fit.
    """
    sampler = build(FlowSampler, dict(options), "jemtrack sample:")
    models, sizes, _ = load_models(model)
    if missing := {"expander", "flow_processor", "text_encoder"} - {*models}:
        raise InputError(
            f"{model} cannot draw by captions, it has no {', '.join(sorted(missing))}: train a "
            "step with train_diff_full"
        )
    images_NCHW = sampler(models, captions, sizes.vocabulary, seed)
    rows = [len([*each]) for _, each in groupby(captions)]
    scale = -(-_SCREEN // max(sizes.height, sizes.width))
    write_picture(out, grid(as_pixels(images_NCHW), max(rows)), scale)
    unknown = unknown_words(captions, sizes.vocabulary)
    known = f"unknown to the model: {', '.join(unknown)}; it knows {', '.join(sizes.vocabulary)}"
    return [
        *([known] if unknown else []),
        f"{out}: {len(captions)} images, {sampler.n_evaluations} evaluations each",
    ]
