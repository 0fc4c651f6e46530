"""JEM's own loss: cross entropy, and the likelihood of images by samples of Langevin chains.

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
from jemtrack.jem.networks.energy_model import JointEnergyModel
from jemtrack.jem.networks.norms import ActNorm
from jemtrack.jem.sampling.chain_starts import GaussianStarts, UniformStarts
from jemtrack.jem.sampling.langevin import LangevinSampler
from jemtrack.jem.sampling.replay_buffer import Chains, ReplayBuffer
from jemtrack.jem.training.batches import Batch
from jemtrack.jem.training.options import SampledJEMOptions
from jemtrack.parameters import parameters
from jemtrack.shared.evaluation_mode import evaluation_mode
from jemtrack.shared.metrics import declare_metric
from jemtrack.shared.random_streams import generator
from jemtrack.train.distributed import all_gather, global_batch_size, local_shard

CROSS_ENTROPY = declare_metric("cross_entropy")
DATA_LOG_DENSITY = declare_metric("data_log_density")
SAMPLE_LOG_DENSITY = declare_metric("sample_log_density")

# Layers whose output for one image depends on the other images of its batch.
_BATCH_DEPENDENT_NORMS = (_BatchNorm, ActNorm)


@parameters
class SampledJEMObjective(SampledJEMOptions):
    """The weighted sum of -log p(x), -log p(y|x) and -log p(x, y).

    The gradient of log p(x) is the gradient of log p~ at the images minus that at samples of the
    model. The samples are the ends of Langevin chains, which start from a replay buffer.
    """

    def check_training(self, *, n_classes: int, batch_size: int, n_steps: int) -> None:
        """Check the options against a training's classes, batch size and chain length `n_steps`.

        Raises:
            ParameterError: if the chains have no steps, or the buffer is too small.
        """
        if n_steps < 1:
            raise ParameterError(
                f"n_steps must be >= 1 for an objective with chains, got {n_steps}"
            )
        # No chain is drawn twice for a batch, and all images of a batch may be of one class.
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
        """Create the loss of a training, with a full replay buffer on the device of `images`.

        `images` are the labelled training images, and `n_steps` is the length of a chain.

        Raises:
            ParameterError: as `check_training`, or if chains start from class Gaussians and a
                class has no image.
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
    """The loss of JEM, with the replay buffer from which its chains continue.

    All random numbers of a batch are drawn from its seed, so a resumed training repeats them.

    Source: Grathwohl et al. 2020 (https://arxiv.org/abs/1912.03263), section 3 and algorithm 1.
    """

    def __init__(
        self, options: SampledJEMOptions, sampler: LangevinSampler, buffer: ReplayBuffer
    ) -> None:
        self.options, self.sampler, self.buffer = options, sampler, buffer

    def __call__(self, models: Mapping[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """Compute `loss`, and for the record `cross_entropy` and mean log p~ of data and samples.

        `models["network"]` is a `JointEnergyModel`. Only `loss` has a gradient.
        """
        network, options = cast(JointEnergyModel, models["network"]), self.options
        stream = generator(batch.seed, "chains", device=batch.images_BCHW.device)
        parts = {"labelled": batch.images_BCHW}
        if batch.density_images_BCHW is not None and options.p_x_weight:
            parts["data"] = batch.density_images_BCHW
        if options.p_x_weight:
            parts["samples"] = self._samples(network, parts.get("data", batch.images_BCHW), stream)
        if options.p_x_y_weight:
            parts["own class"] = self._class_samples(network, batch.labels_B, stream)
        return self._losses(_outputs(network, parts), batch.labels_B)

    def state_dict(self) -> dict[str, Any]:
        """Return the images of the buffer."""
        return self.buffer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the images of the buffer."""
        self.buffer.load_state_dict(state)

    def _samples(
        self, network: JointEnergyModel, images_BCHW: Tensor, stream: torch.Generator
    ) -> Tensor:
        """Draw samples of p(x), as many as there are images, (B, C, H, W)."""
        n = global_batch_size(images_BCHW)
        if not self.options.class_conditional:
            return self._run(network, network.log_density, self.buffer.draw(n, stream), stream)
        labels_B = torch.randint(
            self.buffer.n_classes, (n,), generator=stream, device=stream.device
        )
        return self._class_samples(network, local_shard(labels_B), stream)

    def _class_samples(
        self, network: JointEnergyModel, labels_B: Tensor, stream: torch.Generator
    ) -> Tensor:
        """Draw a sample of p(x|y) for each label, (B, C, H, W)."""
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
        """Run this process's shard of the chains, store the ends of all, and return the shard."""
        with evaluation_mode(network):
            samples_BCHW = self.sampler(log_density, chains.images_BCHW, stream, local_shard)
        # Every process stores all ends, so that all replay buffers stay equal.
        self.buffer.put(chains.indices_B, all_gather(samples_BCHW))
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
        assert samples_B is not None  # the options require p_x_weight or p_x_y_weight > 0
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
    """Return log p~(x, y), (B,): the logit of the class."""
    return logits_BC.gather(1, labels_B[:, None]).squeeze(1)


def _outputs(
    network: JointEnergyModel, parts: dict[str, Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Compute the logits and log densities of each part."""
    # With batch statistics, samples must not change the outputs for images: one pass per part.
    if any(isinstance(module, _BATCH_DEPENDENT_NORMS) for module in network.modules()):
        return {
            name: network.logits_and_log_density(images_BCHW) for name, images_BCHW in parts.items()
        }
    # One forward pass of all parts is faster than several.
    logits_BC, log_density_B = network.logits_and_log_density(torch.cat([*parts.values()]))
    sizes = [len(images_BCHW) for images_BCHW in parts.values()]
    split = zip(torch.split(logits_BC, sizes), torch.split(log_density_B, sizes), strict=True)
    return dict(zip(parts, split, strict=True))
