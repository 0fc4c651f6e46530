"""From a recipe and images to networks and the phases that train them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from jemtrack.callbacks.ema import Ema
from jemtrack.data.images import DataSplits, LabelledImages, to_unit_range
from jemtrack.events.handlers import Callback, build_callback
from jemtrack.flux.batches import CaptionedBatch, CaptionedImages
from jemtrack.flux.captions import captions_of, tokenise_classes, vocabulary_of
from jemtrack.flux.forms import FluxSettings, FluxStep, first_steps, spade_after
from jemtrack.flux.networks.autoencoder import Compressor
from jemtrack.flux.networks.model_file import make_network, save_models, starting_networks
from jemtrack.flux.networks.shape import FluxShape, FluxSizes, chosen_sizes
from jemtrack.flux.objectives.adversarial import AdversarialWeight, GradientPenalty
from jemtrack.flux.objectives.autoencoder import Adversary, AutoencoderObjective
from jemtrack.flux.objectives.divergence import Divergence
from jemtrack.flux.objectives.feature_distance import trained_features
from jemtrack.flux.objectives.mean_flow import MeanFlowPath
from jemtrack.flux.objectives.rectified_flow import FlowObjective, FlowPath
from jemtrack.flux.samples import CreatedModels, SamplePlan, Samples
from jemtrack.shared.metrics import declare_metric
from jemtrack.shared.random_streams import stream_seed
from jemtrack.train.phase import Batches, Models, Objective, Turn, Validation

if TYPE_CHECKING:
    from jemtrack.train.family import ModelMaker
    from jemtrack.train.run import Training

FEATURES = "features"  # the model of the perceptual loss
_AT_ONCE = 256
declare_metric("psnr")


@dataclasses.dataclass(frozen=True)
class FluxObjective:
    """The turns of a step: the autoencoder's, then the flow's."""

    parts: tuple[Objective, ...]

    def __call__(self, models: Models, batch: CaptionedBatch) -> Iterator[Turn]:
        """Yield the turns of all parts."""
        for part in self.parts:
            yield from cast(Iterator[Turn], part(models, batch))


def sizes_for(
    model: FluxShape, data: DataSplits, steps: Sequence[FluxStep], models: Sequence[str]
) -> FluxSizes:
    """Describe the networks of these names that fit the parameters and the images."""
    image_shape = tuple(data.train.images_NCHW.shape[1:])
    spade = any(step.train_spade for step in steps if step.trains_autoencoder)
    vocabulary = _vocabulary(data)
    mean_flow = any(step.flow_objective == "mean_flow" for step in steps if step.trains_flow)
    image = cast(tuple[int, int, int], image_shape)
    return chosen_sizes(model, image, vocabulary, tuple(models), spade, mean_flow)


def _vocabulary(data: DataSplits) -> tuple[str, ...]:
    return vocabulary_of(chain.from_iterable(captions_of(data)))


def model_makers(
    steps: tuple[FluxStep, ...], model: FluxShape, data: DataSplits, start: Path | None = None
) -> dict[str, ModelMaker]:
    """Return makers of the models that the steps need, the compressor first.

    Those that the file `start` has begin with its weights.

    Raises:
        ParameterError: if the networks of the file are of other sizes.
    """
    names = (*first_steps(steps),)
    sizes = sizes_for(model, data, steps, names)
    makers: dict[str, ModelMaker] = {name: partial(make_network, name, sizes) for name in names}
    if start:
        trained = starting_networks(start, sizes)
        makers |= {name: partial(_loaded, makers[name], trained[name]) for name in trained}
    if any(step.has_features for step in steps):
        seed = stream_seed(data.seed, FEATURES)
        makers[FEATURES] = partial(trained_features, data.train, data.n_classes, seed)
    return makers


def _loaded(maker: ModelMaker, trained: nn.Module) -> nn.Module:
    network = maker()
    # Layers of SPADE that a file without it lacks begin as the identity.
    network.load_state_dict(trained.state_dict(), strict=False)
    return network


def phase_parts(
    steps: tuple[FluxStep, ...], settings: FluxSettings, data: DataSplits, device: torch.device
) -> Iterator[tuple[Objective, Batches, Validation | None]]:
    """Yield objective, batches on `device` and validation of each step."""
    images = LabelledImages(data.train.images_NCHW.to(device), data.train.labels_N.to(device))
    tokens_LPT = tokenise_classes(captions_of(data), _vocabulary(data)).to(device)
    before: Counter[str] = Counter()
    for number, step in enumerate(steps):
        # Each step has an order and noise of its own.
        seed = stream_seed(data.seed, "step", step.name) if number else data.seed
        batch_size = step.batch_size or settings.batch_size
        batches = CaptionedImages(images, tokens_LPT, data.flip, batch_size, seed)
        objective = objective_of(step, before)
        spade = spade_after(steps[: number + 1])
        yield objective, batches, _validation(data, tokens_LPT, objective, spade)
        n_batches = min(len(batches), step.max_steps or len(batches))
        before.update(dict.fromkeys(_trains(step), step.most_epochs * n_batches))


def _trains(step: FluxStep) -> Iterator[str]:
    """Name the parts of the objective of a step."""
    yield from ["autoencoder"] * step.trains_autoencoder
    yield from ["adversary"] * step.gan_training
    yield from ["flow"] * step.trains_flow


def objective_of(step: FluxStep, steps_before: Mapping[str, int]) -> FluxObjective:
    """Make the objective of a step.

    `steps_before` are the planned optimization steps of the earlier steps that train the same: a
    warm-up goes on from there. A step that ends early makes the next start as if it had not.
    """
    parts: list[Objective] = []
    if step.trains_autoencoder:
        adversary = Adversary(
            AdversarialWeight(
                scale=step.lambda_adv, kind=step.adv_weight, warmup_steps=step.adv_warmup_steps
            ),
            GradientPenalty(gamma=step.r1_gamma, interval=step.r1_interval),
            steps_before.get("adversary", 0),
        )
        parts.append(
            AutoencoderObjective(
                Divergence(
                    beta=step.kl_beta,
                    warmup_steps=step.kl_warmup_steps,
                    free_bits=step.kl_free_bits,
                ),
                reconstruct=step.train_vae,
                mse_weight=step.mse_weight,
                features=step.lambda_lpips if step.has_features else None,
                adversary=adversary if step.gan_training else None,
                spade=step.train_spade,
                steps_before=steps_before.get("autoencoder", 0),
            )
        )
    if step.trains_flow:
        is_mean = step.flow_objective == "mean_flow"
        kind = partial(MeanFlowPath, guidance=step.flow_guidance) if is_mean else FlowPath
        path = kind(time=step.flow_time, caption_dropout=step.cfg_dropout_prob)
        text = "text_encoder" in step.optimizers
        parts.append(FlowObjective(path, text, steps_before.get("flow", 0)))
    return FluxObjective(tuple(parts))


def _validation(
    data: DataSplits, tokens_LPT: Tensor, objective: FluxObjective, spade: bool
) -> Validation | None:
    """Measure reconstructions, and the flow where it is trained, by the same noise each time."""
    if len(data.valid) == 0:
        return None
    device = tokens_LPT.device
    flows = [part for part in objective.parts if isinstance(part, FlowObjective)]

    @torch.no_grad()
    def measure(models: Models) -> dict[str, float]:
        of_pixels, of_flow = [], []
        for number, index_B in enumerate(torch.split(torch.arange(len(data.valid)), _AT_ONCE)):
            part, seed = data.valid[index_B], stream_seed(data.seed, "validation", number)
            tokens_BT = tokens_LPT[
                part.labels_N.to(device), index_B.to(device) % tokens_LPT.shape[1]
            ]
            images_BCHW = to_unit_range(part.images_NCHW.to(device))
            batch = CaptionedBatch(images_BCHW, tokens_BT, len(part), seed)
            of_pixels.append(_pixel_errors(models, images_BCHW, spade))
            of_flow += [flow.squared_errors(models, batch) for flow in flows]
        found = {"valid_psnr": psnr(torch.cat(of_pixels))}
        return found | ({"valid_flow_loss": float(torch.cat(of_flow).mean())} if flows else {})

    return Validation(measure)


def _pixel_errors(models: Models, images_BCHW: Tensor, spade: bool) -> Tensor:
    compressor, expander = cast(Compressor, models["compressor"]), models["expander"]
    decoded_BCHW = expander(compressor(images_BCHW).mean_BCHW, spade)
    return cast(Tensor, (decoded_BCHW - images_BCHW).square().flatten(1).mean(dim=1))


def psnr(squared_error_N: Tensor) -> float:
    """Return the mean peak signal-to-noise ratio of images in [-1, 1], in dB."""
    return float((10 * torch.log10(4 / squared_error_N.double().clamp_min(1e-12))).mean())


def usual_callbacks(steps: tuple[FluxStep, ...], training: Training) -> list[Callback]:
    """Make the callbacks that every training has, unless its settings or recipe say otherwise."""
    settings: FluxSettings = training.settings
    averages = any(isinstance(build_callback(each), Ema) for each in training.recipe.callbacks)
    callbacks: list[Callback] = [CreatedModels(first_steps(steps))]
    if settings.use_ema and not averages:
        ema = Ema(decay=settings.ema_decay, warm_up=True, adopt=True)
        ema.paused = frozenset(step.name for step in steps if not step.use_ema)
        callbacks.append(ema)
    if settings.n_samples:
        callbacks.append(Samples(_sample_plan(steps, training)))
    return callbacks


def _sample_plan(steps: tuple[FluxStep, ...], training: Training) -> SamplePlan:
    settings, data = training.settings, training.data
    captions = [of_class[0] for of_class in captions_of(data)]
    source = data.valid if len(data.valid) else data.train
    return SamplePlan(
        pixels_NCHW=source.images_NCHW[: settings.n_samples].to(training.runtime.device),
        captions=tuple((settings.sample_captions or captions)[: settings.n_samples]),
        vocabulary=_vocabulary(data),
        spade=tuple(spade_after(steps[: number + 1]) for number in range(len(steps))),
        first_flow=next((number for number, step in enumerate(steps) if step.trains_flow), None),
        seed=data.seed,
        every=settings.checkpoint_save_interval,
    )


def save(path: Path, models: Models, steps: tuple[FluxStep, ...], training: Training) -> None:
    """Write the networks; the expander has SPADE if the current phase decodes with it."""
    sizes = sizes_for(training.model, training.data, steps, (*first_steps(steps),))
    so_far = steps[: training.state.position.phase + 1]
    sizes = dataclasses.replace(cast(Any, sizes), spade=spade_after(so_far))
    save_models(path, models, sizes, training.notes)
