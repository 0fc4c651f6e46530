"""Both sides of each row whose steps are timed.

Every function returns the step of the reference and the step of jemtrack, with equal weights and
the same images.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle, pairwise

import torch

from benchmarks.engine_steps import EngineStep, endless
from benchmarks.options import BenchOptions
from benchmarks.reference import evaluation as plain_evaluation
from benchmarks.reference.images import AugmentedImages, loader
from benchmarks.reference.images import cycle as read_again_and_again
from benchmarks.reference.sampled import Chains, PlainSampledStep
from benchmarks.reference.steps import Loss, PlainStep, cross_entropy_loss, max_entropy_loss
from benchmarks.sizes import SEED, Size, plain_images, two_loaders
from benchmarks.turns import Step, timed
from jemtrack.data.augment import Augmentation, crop_padding
from jemtrack.jem.networks.inference import predict
from jemtrack.jem.objectives.cross_entropy import CrossEntropy
from jemtrack.jem.objectives.max_entropy_l2 import MaxEntropyL2Objective
from jemtrack.jem.objectives.sampled_jem import SampledJEMObjective
from jemtrack.jem.training.batches import TrainingBatches
from jemtrack.train.launch import Runtime
from jemtrack.train.phase import Objective

CHAIN_STEPS = 20
EVALUATED = 10_000
PART = 500
_LARGEST_BATCH = 1024


@dataclass(frozen=True)
class Sides:
    """A step of each side; `note` returns a line to print below the table afterwards."""

    reference: Step
    ours: Step
    note: Callable[[], str] = lambda: ""


def cross_entropy(size: Size, runtime: Runtime, options: BenchOptions) -> Sides:
    """Train a classifier."""
    return _training(CrossEntropy(), cross_entropy_loss, size, runtime)


def max_entropy(size: Size, runtime: Runtime, options: BenchOptions) -> Sides:
    """Train by maximum entropy."""
    return _training(MaxEntropyL2Objective(), max_entropy_loss, size, runtime)


def max_entropy_best(size: Size, runtime: Runtime, options: BenchOptions) -> Sides:
    """Train by maximum entropy, with the batch size at which jemtrack is fastest per image."""
    best = dataclasses.replace(size, batch_size=_best_batch(size, runtime))
    both = _training(MaxEntropyL2Objective(), max_entropy_loss, best, runtime)
    return dataclasses.replace(both, note=lambda: f"the best batch size is {best.batch_size}")


def _training(objective: Objective, loss: Loss, size: Size, runtime: Runtime) -> Sides:
    params, data = size.params(), size.random_data()
    ours = EngineStep(objective, params, data, runtime)
    network = size.plain_network(ours.network)
    loaders = two_loaders(data, params)
    return Sides(PlainStep(network, loss, *loaders, runtime.device, params.lr), ours)


def sampled(size: Size, runtime: Runtime, options: BenchOptions) -> Sides:
    """Train by JEM's own loss, with chains."""
    params = size.params(n_steps=2 if options.tiny else CHAIN_STEPS)
    data = size.random_data()
    ours = EngineStep(SampledJEMObjective(), params, data, runtime)
    network = size.plain_network(ours.network)
    chains = Chains(size.image_shape, runtime.device, params.n_steps)
    loaders = two_loaders(data, params)
    return Sides(PlainSampledStep(network, chains, *loaders, runtime.device, params.lr), ours)


def evaluation(size: Size, runtime: Runtime, options: BenchOptions) -> Sides:
    """Evaluate images with noise; a step takes the next part of them."""
    n_images, part = (8, 4) if options.tiny else (EVALUATED, PART)
    params, data = size.params(), size.random_data(n_images)
    network = EngineStep(CrossEntropy(), params, data, runtime).network
    plain = size.plain_network(network).to(runtime.device)
    images = AugmentedImages(data.train.images_NCHW, data.train.labels_N, params.sigma)
    plain_parts, our_parts = _parts(n_images, part), _parts(n_images, part)

    def reference() -> object:
        chosen = next(plain_parts)
        taken = dataclasses.replace(
            images, images_NCHW=images.images_NCHW[chosen], labels_N=images.labels_N[chosen]
        )
        return plain_evaluation.evaluate(plain, taken, runtime.device)

    def ours() -> object:
        return predict(network, data.train[next(our_parts)], sigma=params.sigma, seed=SEED)

    return Sides(reference, ours)


def augmentation(size: Size, runtime: Runtime, options: BenchOptions) -> Sides:
    """Draw and augment a batch."""
    params, data = size.params(), size.random_data()
    batches = read_again_and_again(
        loader(plain_images(data.train, params.sigma, data.flip), size.batch_size)
    )
    chosen = Augmentation(sigma=params.sigma, flip=data.flip, pad=crop_padding(size.side))
    ours = endless(TrainingBatches(data.train, chosen, size.batch_size, SEED))
    return Sides(partial(next, batches), partial(next, ours))


def _parts(n_images: int, part: int) -> Iterator[torch.Tensor]:
    bounds = pairwise(range(0, n_images + 1, part))
    return cycle([torch.arange(first, end) for first, end in bounds])


def _best_batch(size: Size, runtime: Runtime) -> int:
    """Double the batch size as long as images per second increase and memory suffices."""
    best, most = size.batch_size, 0.0
    while best < _LARGEST_BATCH:
        batch_size = 2 * best if most else best
        try:
            rate = _images_a_second(dataclasses.replace(size, batch_size=batch_size), runtime)
        except torch.OutOfMemoryError:
            break
        if rate < most:
            break
        best, most = batch_size, rate
    torch.cuda.empty_cache()
    return best


def _images_a_second(size: Size, runtime: Runtime) -> float:
    step = EngineStep(MaxEntropyL2Objective(), size.params(), size.random_data(), runtime)
    timed(step, 3, runtime.device)
    return 5 * size.batch_size / timed(step, 5, runtime.device)
