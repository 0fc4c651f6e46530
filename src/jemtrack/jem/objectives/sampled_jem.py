"""JEM's own loss: the likelihood of images by Langevin chains, beside the cross entropy.

Letters: B batch, C channels in `BCHW` and classes in `logits_BC`, H height, W width.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from jemtrack.data.images import LabelledImages
from jemtrack.errors import ParameterError
from jemtrack.jem.networks.energy_model import JointEnergyModel, evaluation_mode
from jemtrack.jem.networks.norms import ActNorm
from jemtrack.jem.objectives.options import SampledJEMOptions
from jemtrack.jem.sampling.chain_starts import GaussianStarts, UniformStarts
from jemtrack.jem.sampling.langevin import LangevinSampler
from jemtrack.jem.sampling.replay_buffer import Chains, ReplayBuffer
from jemtrack.jem.training.batches import Batch
from jemtrack.parameters import parameters
from jemtrack.train.distributed import all_gather, global_batch_size, local_shard
from jemtrack.train.metrics import declare_metric
from jemtrack.train.random_streams import generator

CROSS_ENTROPY = declare_metric("cross_entropy")
DATA_LOG_DENSITY = declare_metric("data_log_density")
SAMPLE_LOG_DENSITY = declare_metric("sample_log_density")

# What a layer of these does to an image depends on the others of its batch.
_NORMS_OF_BATCHES = (_BatchNorm, ActNorm)


@parameters
class SampledJEMObjective(SampledJEMOptions):
    """Minimises -log p(x), -log p(y|x) and -log p(x, y), each with its weight.

    The gradient of log p(x) is that of log p~(x) at the images less that of log p~ at samples
    of the model, which Langevin chains from a replay buffer give.
    """

    def check_training(self, *, n_classes: int, batch_size: int, n_steps: int) -> None:
        """Hold the options against a training's classes, batches and steps of a chain.

        Raises:
            ParameterError: when there are no steps, or too few places in the buffer.
        """
        if n_steps < 1:
            raise ParameterError(f"n_steps must be >= 1 where chains are trained on, got {n_steps}")
        # A batch may be of one class, and no chain goes on twice in it.
        least = batch_size * (n_classes if self.class_conditional or self.p_x_y_weight else 1)
        if self.buffer_size < (least := max(least, n_classes)):
            raise ParameterError(
                f"buffer_size must be >= {least} for {n_classes} classes and batches of "
                f"{batch_size}, got {self.buffer_size}"
            )

    def begin(
        self,
        images: LabelledImages,
        *,
        n_classes: int,
        batch_size: int,
        n_steps: int,
        seed: int,
    ) -> "SampledJEMLoss":
        """Give the loss of a training that knows the labels of `images`, on their device.

        `n_steps` are those of a chain.

        Raises:
            ParameterError: as `check_training` does.
        """
        self.check_training(n_classes=n_classes, batch_size=batch_size, n_steps=n_steps)
        device, shape = images.images_NCHW.device, images.images_NCHW.shape[1:]
        by_class = self.start == "class_gaussians"
        buffer = ReplayBuffer(
            self.buffer_size,
            n_classes,
            self.reinit_probability,
            GaussianStarts(images, n_classes) if by_class else UniformStarts(shape),
            generator(seed, "replay buffer", device=device),
        )
        sampler = LangevinSampler(
            n_steps=n_steps,
            step_size=self.step_size,
            noise_std=self.noise_std,
            score_clamp=self.score_clamp,
            pixel_clamp=self.pixel_clamp,
        )
        return SampledJEMLoss(self, sampler, buffer)


class SampledJEMLoss:
    """The loss of JEM, with the replay buffer that it goes on from.

    All that is drawn for a batch follows from the batch's seed.

    Source: Grathwohl et al. 2020 (https://arxiv.org/abs/1912.03263), section 3 and algorithm 1.
    """

    def __init__(
        self, options: SampledJEMOptions, sampler: LangevinSampler, buffer: ReplayBuffer
    ) -> None:
        self.options, self.sampler, self.buffer = options, sampler, buffer

    def __call__(self, models: Mapping[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, and for the record `cross_entropy` and the mean log p~ of both sides.

        `models["network"]` is a `JointEnergyModel`. Only `loss` carries a gradient.
        """
        network, options = cast(JointEnergyModel, models["network"]), self.options
        stream = generator(batch.seed, "chains", device=batch.images_BCHW.device)
        parts = {"labelled": batch.images_BCHW}
        if batch.density_images_BCHW is not None and options.p_x_weight:
            parts["data"] = batch.density_images_BCHW
        if options.p_x_weight:
            parts["samples"] = self._samples(network, parts.get("data", batch.images_BCHW), stream)
        if options.p_x_y_weight:
            parts["own class"] = self._samples_of(network, batch.labels_B, stream)
        return self._losses(_outputs(network, parts), batch.labels_B)

    def state_dict(self) -> dict[str, Any]:
        """Give what is in the buffer."""
        return self.buffer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the chains of a checkpoint."""
        self.buffer.load_state_dict(state)

    def _samples(
        self, network: JointEnergyModel, images_BCHW: Tensor, stream: torch.Generator
    ) -> Tensor:
        """Draw as many samples of p(x) as there are images."""
        n = global_batch_size(images_BCHW)
        if not self.options.class_conditional:
            return self._run(network, network.log_density, self.buffer.draw(n, stream), stream)
        labels_B = torch.randint(
            self.buffer.n_classes, (n,), generator=stream, device=stream.device
        )
        return self._samples_of(network, local_shard(labels_B), stream)

    def _samples_of(
        self, network: JointEnergyModel, labels_B: Tensor, stream: torch.Generator
    ) -> Tensor:
        """Draw a sample of p(x|y) for each label."""
        chains = self.buffer.draw_of_classes(all_gather(labels_B), stream)

        def joint(images_BCHW: Tensor) -> Tensor:
            return _log_joint(network.logits(images_BCHW), labels_B)

        return self._run(network, joint, chains, stream)

    def _run(
        self,
        network: JointEnergyModel,
        log_density: Callable[[Tensor], Tensor],
        chains: Chains,
        stream: torch.Generator,
    ) -> Tensor:
        """Let the chains run and keep where they end; give this process's."""
        with evaluation_mode(network):
            samples_BCHW = self.sampler(log_density, chains.images_BCHW, stream, local_shard)
        self.buffer.put(chains.places_B, all_gather(samples_BCHW))
        return samples_BCHW

    def _losses(
        self, outputs: dict[str, tuple[Tensor, Tensor]], labels_B: Tensor
    ) -> dict[str, Tensor]:
        options = self.options
        whole = {name: all_gather(density_B) for name, (_, density_B) in outputs.items()}
        labels_B, logits_BC = all_gather(labels_B), all_gather(outputs["labelled"][0])
        cross_entropy = functional.cross_entropy(logits_BC, labels_B)
        data_B = whole.get("data", whole["labelled"])
        samples_B = whole.get("samples", whole.get("own class"))
        assert samples_B is not None  # the options see to it
        loss = options.p_y_given_x_weight * cross_entropy
        if options.p_x_weight:
            loss = loss - options.p_x_weight * (data_B.mean() - samples_B.mean())
        if options.p_x_y_weight:
            sampled_BC = all_gather(outputs["own class"][0])
            gap_B = _log_joint(logits_BC, labels_B) - _log_joint(sampled_BC, labels_B)
            loss = loss - options.p_x_y_weight * gap_B.mean()
        if options.energy_weight:
            squares = data_B.square().mean() + samples_B.square().mean()
            loss = loss + options.energy_weight * squares
        return {
            "loss": loss,
            CROSS_ENTROPY: cross_entropy.detach(),
            DATA_LOG_DENSITY: data_B.detach().mean(),
            SAMPLE_LOG_DENSITY: samples_B.detach().mean(),
        }


def _log_joint(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Give log p~(x, y), (B,): the logit of the class."""
    return logits_BC.gather(1, labels_B[:, None]).squeeze(1)


def _outputs(
    network: JointEnergyModel, parts: dict[str, Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Give logits and log densities of each part."""
    if any(isinstance(module, _NORMS_OF_BATCHES) for module in network.modules()):
        return {
            name: network.logits_and_log_density(images_BCHW) for name, images_BCHW in parts.items()
        }
    # All at once: one pass is faster than several.
    logits_BC, log_density_B = network.logits_and_log_density(torch.cat([*parts.values()]))
    sizes = [len(images_BCHW) for images_BCHW in parts.values()]
    split = zip(torch.split(logits_BC, sizes), torch.split(log_density_B, sizes), strict=True)
    return dict(zip(parts, split, strict=True))
