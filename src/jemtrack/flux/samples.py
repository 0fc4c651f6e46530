"""Samples on the way: reconstructions and images by captions, written while a training runs.

A file is called `{step}_{index:03d}_{epoch:03d}[_{batch:05d}]_{hash}-{suffix}.webp`, with numbers
from 1. The hash is of what the picture is of, an image or a caption, so that it can be followed
through a run.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from jemtrack.data.images import to_unit_range
from jemtrack.events.events import BatchEnd, EpochEnd, Event, PhaseStart, Position, RunStart, Status
from jemtrack.events.handlers import Callback
from jemtrack.flux.networks.autoencoder import Compressor, Expander
from jemtrack.flux.sampling.generate import FlowSampler
from jemtrack.shared.pictures import as_pixels, pillow, write_picture
from jemtrack.shared.random_streams import generator
from jemtrack.train.distributed import is_rank_zero
from jemtrack.train.phase import Models
from jemtrack.train.state import TrainState

log = logging.getLogger("jemtrack")

FOLDER = "samples"
Picture = tuple[str, str, Tensor]  # hash, suffix and image in [-1, 1]


class CreatedModels(Callback):
    """Logs each model that was created for the run, with the step that needs it."""

    def __init__(self, first_steps: Mapping[str, str]) -> None:
        self.first_steps = first_steps

    def __call__(self, event: Event, state: TrainState) -> None:
        """Log when the run starts, but not when it resumes."""
        if isinstance(event, RunStart) and event.position == Position() and is_rank_zero():
            for name, model in state.models.items():
                n_weights = sum(weight.numel() for weight in model.parameters())
                step = self.first_steps.get(name)
                needed = f": step {step} needs it" if step else ""
                log.info(f"created {name}, {n_weights:,} weights{needed}")


@dataclass(frozen=True, eq=False)
class SamplePlan:
    """What is written as samples, and when.

    Attributes:
        pixels_NCHW: uint8 images to reconstruct.
        captions: to draw, from the first phase on that trains a flow.
        vocabulary: of the text encoder.
        spade: whether the expander decodes with SPADE, in each phase.
        first_flow: number of the first phase that trains a flow; None: there is none.
        seed: of the noise.
        every: batches from one writing to the next within an epoch; None: after epochs alone.
    """

    pixels_NCHW: Tensor
    captions: tuple[str, ...]
    vocabulary: tuple[str, ...]
    spade: tuple[bool, ...]
    first_flow: int | None
    seed: int
    every: int | None = None


class Samples(Callback):
    """Writes samples of the models that are served, averages where there are some.

    All noise is of streams of its own, so the training is the same without them.
    """

    def __init__(self, plan: SamplePlan) -> None:
        pillow()  # if it is missing, say so before the training
        self.plan = plan

    def __call__(self, event: Event, state: TrainState) -> None:
        """Write what is due."""
        match event:
            case PhaseStart():
                self._phase = event
            case EpochEnd(status=Status.SUCCESS, position=at):
                self._write(f"{at.epoch:03d}", state)
            case BatchEnd(status=Status.SUCCESS, position=at) if self._due(at):
                self._write(f"{at.epoch + 1:03d}_{at.batch:05d}", state)

    def _due(self, at: Position) -> bool:
        return self.plan.every is not None and at.batch % self.plan.every == 0

    def _write(self, place: str, state: TrainState) -> None:
        if not is_rank_zero():
            return
        phase = self._phase.position.phase
        start = f"{self._phase.name}_{phase + 1:03d}_{place}"
        first = self.plan.first_flow
        pictures = self._reconstructions(state.served, self.plan.spade[phase])
        if first is not None and phase >= first:
            pictures = chain(pictures, self._drawn(state.served, self.plan.spade[phase]))
        for identity, suffix, image_CHW in pictures:
            path = self.run_folder / FOLDER / f"{start}_{identity}-{suffix}.webp"
            write_picture(path, as_pixels(image_CHW))

    @torch.inference_mode()
    def _reconstructions(self, models: Models, spade: bool) -> Iterator[Picture]:
        compressor = cast(Compressor, models["compressor"])
        expander = cast(Expander, models["expander"])
        images_NCHW = to_unit_range(self.plan.pixels_NCHW)
        posterior = compressor(images_NCHW)
        mean_NCHW = posterior.mean_BCHW
        stream = generator(self.plan.seed, "samples", device=mean_NCHW.device)
        noise_NCHW = torch.randn(mean_NCHW.shape, generator=stream, device=mean_NCHW.device)
        shown = {
            "original": images_NCHW,
            "nr_o": expander(mean_NCHW, spade),
            "ns_o": expander(posterior.sample(noise_NCHW), spade),
        }
        if spade:
            shown |= {"ctx": _context(mean_NCHW, images_NCHW), "nc": expander(mean_NCHW, False)}
        for number, pixels_CHW in enumerate(self.plan.pixels_NCHW):
            identity = _hash(pixels_CHW.cpu().numpy().tobytes())
            for suffix, of_all in shown.items():
                yield identity, suffix, of_all[number]

    def _drawn(self, models: Models, spade: bool) -> Iterator[Picture]:
        plan = self.plan
        images_NCHW = FlowSampler()(models, plan.captions, plan.vocabulary, plan.seed, spade)
        for number, (caption, image_CHW) in enumerate(zip(plan.captions, images_NCHW, strict=True)):
            yield _hash(f"{plan.seed}/{number}/{caption}".encode()), "caption", image_CHW


def _context(z_NCHW: Tensor, images_NCHW: Tensor) -> Tensor:
    """Show the mean of a latent map's channels in the image's size, its range as [-1, 1]."""
    map_N1HW = z_NCHW.mean(dim=1, keepdim=True)
    largest_N111 = map_N1HW.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
    return functional.interpolate(map_N1HW / largest_N111, size=images_NCHW.shape[2:])


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:6]
