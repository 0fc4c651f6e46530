"""Images by captions, laid out as one picture."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import torch

from jemtrack.errors import InputError
from jemtrack.flux.captions import unknown_words
from jemtrack.flux.networks.model_file import FluxFile, load_models
from jemtrack.flux.sampling.generate import FlowSampler
from jemtrack.shared.pictures import as_pixels, grid, write_picture

_SCREEN = 64  # pixels of the screen that an image has at least


def draw_grid(
    model: Path, captions: Sequence[str], seed: int, out: Path, sampler: FlowSampler,
    device: torch.device | None = None,
) -> list[str]:  # fmt: skip
    """Draw an image for each caption into a grid at `out`, equal captions in a row.

    Returned is what to tell: words that the model does not know, and what was drawn.

    Raises:
        InputError: if the file has no flow.
    """
    models, sizes, _ = load_flow(model, device)
    images_NCHW = sampler(models, captions, sizes.vocabulary, seed)
    rows = [len([*each]) for _, each in groupby(captions)]
    scale = -(-_SCREEN // max(sizes.height, sizes.width))
    write_picture(out, grid(as_pixels(images_NCHW), max(rows)), scale)
    unknown = unknown_words(captions, sizes.vocabulary)
    known = f"unknown to the model: {', '.join(unknown)}; it knows {', '.join(sizes.vocabulary)}"
    cost = f"{sampler.n_evaluations} evaluation" + "s" * (sampler.n_evaluations > 1)
    return [*([known] if unknown else []), f"{out}: {len(captions)} images, {cost} each"]


def load_flow(path: Path, device: torch.device | None = None) -> FluxFile:
    """Load the networks of a file that draws by captions, onto a device, the CPU by default.

    Raises:
        InputError: if it lacks one of the networks for that.
    """
    file = load_models(path)
    if missing := {"expander", "flow_processor", "text_encoder"} - {*file.models}:
        raise InputError(
            f"{path} cannot draw by captions, it has no {', '.join(sorted(missing))}: train a "
            "step with train_diff_full"
        )
    for network in file.models.values():
        network.to(device)
    return file
