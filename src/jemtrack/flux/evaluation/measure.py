"""Measure a model: its reconstructions, and its samples by captions, beside real images.

A judge's accuracy on real test images stands beside that on reconstructions and samples: what is
above it is the work of guidance, not quality. Distances are squared MMDs of the judge's features,
each in units of its standard deviation over the test images; the floor is that of training images.
They cannot be compared with published FIDs, whose features are of another network.

Letters: C channels, F features, H height, L classes, N images, P pixels, W width.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from jemtrack.data.images import DataSplits, LabelledImages, to_unit_range
from jemtrack.evaluation.measures.feature_distance import squared_mmd
from jemtrack.flux.captions import unseen_captions
from jemtrack.flux.evaluation.judge import Judge, deviations
from jemtrack.flux.networks.model_file import FluxFile
from jemtrack.flux.sampling.generate import FlowSampler
from jemtrack.flux.training import psnr
from jemtrack.shared.progress import say

REAL, FLOOR, RECONSTRUCTED = "test images", "training images", "reconstructions"
GUIDED, PLAIN = "samples with guidance", "samples without guidance"
_SOLVERS = ("euler", "midpoint")
_AT_ONCE = 256


class Measures(NamedTuple):
    """What was measured of a set of images.

    Attributes:
        judged_right: share whose class the judge finds.
        distance: from the test images.
        psnr: of reconstructions, in dB.
        evaluations: of the flow processor, for a sample.
        milliseconds: of processor time, of all cores together, for a sample.
    """

    judged_right: float
    distance: float | None = None
    psnr: float | None = None
    evaluations: int | None = None
    milliseconds: float | None = None


class Drawn(NamedTuple):
    """Samples, float (N, C, H, W) in [-1, 1] on the CPU, and what they cost."""

    images_NCHW: Tensor
    milliseconds: float


class Nearest(NamedTuple):
    """The nearest training image of each image, and the root mean squared difference, in [0, 1]."""

    index_N: Tensor
    apart_N: Tensor


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The measures of a model by a judge, on `n` test images and as many samples, or fewer.

    Captions are of templates that no training has seen.
    """

    file: FluxFile
    data: DataSplits
    judge: Judge
    n: int
    seed: int

    @cached_property
    def test(self) -> LabelledImages:
        """The test images."""
        return self.data.test[spread(len(self.data.test), self.n)]

    @cached_property
    def real_images(self) -> Tensor:
        """The test images, in [-1, 1]."""
        return to_unit_range(self.test.images_NCHW)

    @cached_property
    def _real_features(self) -> Tensor:
        return self.judge.judged(self.real_images)[0]

    def measures(self, images_NCHW: Tensor, labels_N: Tensor | None = None) -> Measures:
        """Judge images of these classes, by default those of the test images."""
        features_NF, predicted_N = self.judge.judged(images_NCHW)
        wanted_N = self.test.labels_N if labels_N is None else labels_N
        scale_F = deviations(self._real_features)
        right = float((predicted_N == wanted_N).double().mean())
        return Measures(right, squared_mmd(features_NF / scale_F, self._real_features / scale_F))

    def of_real_images(self) -> dict[str, Measures]:
        """Measure test images, and training images: no samples can be expected to be nearer."""
        train = self.data.train[spread(len(self.data.train), self.n)]
        floor = self.measures(to_unit_range(train.images_NCHW), train.labels_N)
        return {REAL: self.measures(self.real_images)._replace(distance=None), FLOOR: floor}

    @torch.inference_mode()
    def reconstructed(self) -> Tensor:
        """Decode the means of the posteriors of the test images."""
        compressor, expander = self.file.models["compressor"], self.file.models["expander"]
        device = next(expander.parameters()).device
        parts = torch.split(self.real_images, _AT_ONCE)
        return torch.cat([expander(compressor(each.to(device)).mean_BCHW).cpu() for each in parts])

    def of_reconstructions(self, decoded_NCHW: Tensor) -> Measures:
        """Measure what `reconstructed` returns."""
        error_N = (decoded_NCHW - self.real_images).square().flatten(1).mean(dim=1)
        return self.measures(decoded_NCHW)._replace(psnr=psnr(error_N))

    def drawn(self, sampler: FlowSampler) -> Drawn:
        """Draw a sample by a caption of the class of each test image."""
        of_classes = unseen_captions(self.data)
        captions = [
            of_classes[label][number % len(of_classes[label])]
            for number, label in enumerate(self.test.labels_N.tolist())
        ]
        return drawn(self.file, captions, sampler, self.seed)

    def of_samples(self, sampler: FlowSampler, drawn: Drawn) -> Measures:
        """Measure what `drawn` returns."""
        return self.measures(drawn.images_NCHW)._replace(
            evaluations=sampler.n_evaluations, milliseconds=drawn.milliseconds
        )

    def curve(self, evaluations: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Measure samples without guidance over the number of evaluations, a row a sampler."""
        solvers = [*_SOLVERS, *(["mean_flow"] if self.file.sizes.mean_flow else [])]
        for solver in solvers:
            for count in evaluations if solver != "mean_flow" else (1, 2, *evaluations):
                n_steps = max(count // 2, 1) if solver == "midpoint" else count
                sampler = FlowSampler(solver=cast(Any, solver), n_steps=n_steps, guidance=1.0)
                found = self.of_samples(sampler, self.drawn(sampler))._asdict()
                yield {"solver": solver, **{n: each for n, each in found.items() if n != "psnr"}}

    @cached_property
    def _train_pixels(self) -> Tensor:
        return self.data.train.images_NCHW.flatten(1).float() / 255

    def nearest(self, images_NCHW: Tensor) -> Nearest:
        """Find the nearest training images by the difference of pixels."""
        pixels_NP = ((images_NCHW + 1) / 2).flatten(1)
        found = [torch.cdist(each, self._train_pixels).min(dim=1)
                 for each in torch.split(pixels_NP, _AT_ONCE)]  # fmt: skip
        apart_N = torch.cat([each.values for each in found]) / pixels_NP.shape[1] ** 0.5
        return Nearest(torch.cat([each.indices for each in found]), apart_N)

    def memorised(self, images_NCHW: Tensor) -> float:
        """Compare how far samples and test images are from their nearest training image.

        Returned is the ratio of the medians. Near 0 samples are copies of training images.
        """
        medians = [self.nearest(each).apart_N.median() for each in (images_NCHW, self.real_images)]
        return float(medians[0] / medians[1])


@dataclass(frozen=True, eq=False)
class Findings:
    """All that is measured of a model.

    Attributes:
        measures: of real images, reconstructions and samples, by their names.
        curve: samples without guidance over the number of evaluations, a row a sampler.
        reconstructions_NCHW: of the test images.
        samples: with guidance and without, (N, C, H, W), by their names.
        memorised: see `Evaluation.memorised`; of samples without guidance.
    """

    measures: dict[str, Measures]
    curve: list[dict[str, Any]]
    reconstructions_NCHW: Tensor
    samples: dict[str, Tensor]
    memorised: float


def measured(evaluation: Evaluation, sampler: FlowSampler, evaluations: Sequence[int]) -> Findings:
    """Measure all of a model; samples are drawn by `sampler` and without its guidance, too."""
    decoded_NCHW = evaluation.reconstructed()
    measures = evaluation.of_real_images()
    measures[RECONSTRUCTED] = evaluation.of_reconstructions(decoded_NCHW)
    samples = {}
    for name, each in guided_and_plain(sampler).items():
        found = evaluation.drawn(each)
        measures[name], samples[name] = evaluation.of_samples(each, found), found.images_NCHW
    say("Sampling by other numbers of evaluations")
    curve = [*evaluation.curve(evaluations)]
    memorised = evaluation.memorised(samples[PLAIN])
    return Findings(measures, curve, decoded_NCHW, samples, memorised)


def drawn(file: FluxFile, captions: Sequence[str], sampler: FlowSampler, seed: int) -> Drawn:
    """Draw a sample by each caption, and take the time."""
    start = time.process_time()
    images_NCHW = sampler(file.models, captions, file.sizes.vocabulary, seed).cpu()
    return Drawn(images_NCHW, 1000 * (time.process_time() - start) / len(captions))


def guided_and_plain(sampler: FlowSampler) -> dict[str, FlowSampler]:
    """Return the sampler with its guidance and without, by name."""
    return {GUIDED: sampler, PLAIN: replace(cast(Any, sampler), guidance=1.0)}


def spread(length: int, n: int) -> Tensor:
    """Return the indices of `n` of so many images, or of all, evenly over them."""
    return torch.linspace(0, length - 1, min(n, length)).round().long()
