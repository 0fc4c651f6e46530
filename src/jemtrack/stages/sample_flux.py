"""The stage SampleFlux: draw images by captions."""

from pathlib import Path
from typing import Annotated

import zntrack
from pydantic import Field

from jemtrack.flux.sampling.generate import FlowSampler
from jemtrack.flux.sampling.grid import draw_grid
from jemtrack.parameters import FROM_LIST, AtLeastOne, Count, parameters
from jemtrack.shared.hardware import DEFAULT_THREADS, DeviceName, Threads, chosen_device
from jemtrack.shared.progress import say
from jemtrack.stages.stage import Stage, plot


@parameters
class CaptionArgs:
    """What is drawn.

    Attributes:
        captions: each is a row.
        n: images of each caption.
        seed: of the noise.
        device: auto is a GPU if there is one, else the CPU.
        threads: of the CPU; see `jemtrack.shared.hardware.Hardware`.
    """

    captions: Annotated[tuple[str, ...], FROM_LIST, Field(min_length=1)] = ("an image",)
    n: AtLeastOne = 8
    seed: Count = 0
    device: DeviceName = "auto"
    threads: Threads = DEFAULT_THREADS


class SampleFlux(Stage):
    """Draw images by captions with a trained flow.

    Attributes:
        model: the file of a model with a flow.
        params: which captions.
        sampler: how the flow is followed.
        picture: a row of images for each caption.
    """

    model: Path = zntrack.deps_path()
    params: CaptionArgs = zntrack.deps(default_factory=CaptionArgs)
    sampler: FlowSampler = zntrack.deps(default_factory=FlowSampler)
    picture: Path = plot(zntrack.nwd / "samples.png")

    def compute(self) -> None:
        """Draw the images into one picture."""
        params = self.params
        captions = [each for each in dict.fromkeys(params.captions) for _ in range(params.n)]
        device = chosen_device(params.device)
        lines = draw_grid(self.model, captions, params.seed, self.picture, self.sampler, device)
        for line in lines:
            say(f"{self.name}: {line}")
