"""How dense a model finds what its own chains climb to, to hold against its images."""

import torch

from jemtrack.engine.seeds import generator
from jemtrack.jem.energy_model import JointEnergyModel
from jemtrack.jem.evaluation_mode import evaluation_mode
from jemtrack.jem.langevin import LangevinSampler

N_CHAINS = 64


def chain_log_density(
    model: JointEnergyModel, sampler: LangevinSampler, image_shape: torch.Size, seed: int
) -> float:
    """Give the mean log p~ at the ends of 64 chains that begin uniform in [-1, 1].

    `image_shape` is (C, H, W). A model whose p~ describes its images gives about the mean log
    p~ of the images; one trained as a classifier alone gives far more: it finds noise that it
    climbed to denser than any image. Afterwards the model is in the mode it was in.
    """
    device = next(model.parameters()).device
    stream = generator(seed, "chains", device=device)
    start_BCHW = torch.rand(N_CHAINS, *image_shape, generator=stream, device=device) * 2 - 1
    with evaluation_mode(model):
        samples_BCHW = sampler(model.log_density, start_BCHW, stream)
        with torch.inference_mode():
            mean: float = model.log_density(samples_BCHW).double().mean().item()
    return mean
