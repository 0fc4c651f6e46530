"""Time the engine's steps of the family flux beside loops written by hand in PyTorch.

    python benchmarks/flux_engine.py

Both sides train the same networks on the same batches; after each mode the weights are compared
bit for bit. Times are processor time, medians of turns that alternate between the sides, on one
thread. A ratio is the engine's time divided by the loop's.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from benchmarks.engine_steps import endless
from benchmarks.turns import take_turns
from jemtrack.data.images import DataSplits, LabelledImages
from jemtrack.flux.batches import CaptionedBatch
from jemtrack.flux.family import FAMILY
from jemtrack.flux.forms import FluxSettings, FluxStep
from jemtrack.flux.networks.shape import FluxShape
from jemtrack.recipe.read import RawRecipe
from jemtrack.train.launch import Runtime
from jemtrack.train.loop import set_modes, update
from jemtrack.train.run import Training

CPU = torch.device("cpu")
_RATE, _BETA, _INTERVAL, _GAMMA, _WEIGHT = 1e-3, 0.1, 4, 5.0, 0.5
_SHARED = {"kl_beta": _BETA, "kl_warmup_steps": 0, "r1_interval": _INTERVAL, "r1_gamma": _GAMMA,
           "lambda_adv": _WEIGHT, "adv_weight": "fixed"}  # fmt: skip
MODES: dict[str, dict[str, Any]] = {
    "VAE": {"train_vae": True},
    "VAE, GAN and R1": {"train_vae": True, "gan_training": True},
    "flow": {"train_diff_full": True},
}
Modules = dict[str, nn.Module]


def made(modes: dict[str, Any], n: int) -> Training:
    """Make a training of one step on `n` random images of 28x28 pixels."""
    stream = torch.Generator().manual_seed(0)

    def part(count: int) -> LabelledImages:
        images = torch.randint(256, (count, 1, 28, 28), generator=stream).to(torch.uint8)
        return LabelledImages(images, torch.arange(count) % 10)

    data = DataSplits("fashion-mnist", 10, False, 1, part(n), part(0), part(0))
    trained = FluxStep.trained(modes) or ()
    adam = {"type": "AdamW", "lr": _RATE}
    step = {"name": "a", "n_epochs": 1, **_SHARED, **modes}
    step["optimization"] = {"optimizers": dict.fromkeys(trained, adam)}
    return Training(
        name="benchmark",
        family=FAMILY,
        recipe=RawRecipe({"steps": [step]}, FluxStep).build(),
        model=FluxShape(),
        settings=FluxSettings(n_samples=0, use_ema=False),
        data=data,
        runtime=Runtime(CPU),
    )


def engine(training: Training) -> Callable[[], object]:
    """Return what takes a step with the engine."""
    (phase,) = training.phases
    training.state.enter(phase)
    set_modes(training.state, phase)
    batches = numbered(training)
    return lambda: update(training.state, phase, next(batches))


def numbered(training: Training) -> Iterator[CaptionedBatch]:
    """Yield batches that know their step, which is what the engine's loop adds."""
    from dataclasses import replace

    for step, batch in enumerate(endless(training.phases[0].batches)):
        yield replace(cast(CaptionedBatch, batch), step=step)


def adam(*models: nn.Module) -> torch.optim.AdamW:
    """Make the optimizer of models, as the engine does."""
    weights = [weight for model in models for weight in model.parameters()]
    return torch.optim.AdamW(weights, lr=_RATE, fused=True)


def mean(values: Tensor) -> Tensor:
    """Average over each image and then over the images, as the engine does for its shards."""
    return values.flatten(1).mean(dim=1).sum() * (1 / len(values))


def vae_by_hand(models: Modules) -> Callable[[CaptionedBatch], None]:
    """Write the VAE's step in PyTorch alone."""
    compressor, expander = models["compressor"], models["expander"]
    optimizer = adam(compressor, expander)

    def step(batch: CaptionedBatch) -> None:
        posterior = compressor(batch.images_BCHW)
        z = posterior.sample(batch.noise("latent", (4, 7, 7)))
        decoded = expander(z, False)
        loss = _BETA * divergence(*posterior) + mean((decoded - batch.images_BCHW).abs())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def divergence(mean_BCHW: Tensor, log_variance_BCHW: Tensor) -> Tensor:
    """Compute the mean divergence from the prior."""
    kl = 0.5 * (mean_BCHW.square() + log_variance_BCHW.exp() - 1 - log_variance_BCHW)
    return kl.mean(dim=(2, 3)).mean(dim=0).mean()


def gan_by_hand(models: Modules) -> Callable[[CaptionedBatch], None]:
    """Write the step of VAE and GAN in PyTorch alone."""
    compressor, expander, judge = (models[n] for n in ("compressor", "expander", "discriminator"))
    of_vae, of_judge = adam(compressor, expander), adam(judge)

    def step(batch: CaptionedBatch) -> None:
        images = batch.images_BCHW
        posterior = compressor(images)
        z = posterior.sample(batch.noise("latent", (4, 7, 7)))
        decoded = expander(z, False)
        real, fake = judge(torch.cat([images, decoded.detach()])).chunk(2)
        loss = mean(relu(1 - real)) + mean(relu(1 + fake))
        if batch.step % _INTERVAL == 0:
            leaf = images.detach().requires_grad_()
            score = judge(leaf).flatten(1).mean(dim=1).sum()
            (slope,) = torch.autograd.grad(score, leaf, create_graph=True)
            squares = slope.flatten(1).square().sum(dim=1, keepdim=True)
            loss = loss + mean(squares) * (_INTERVAL * _GAMMA / 2)
        of_judge.zero_grad()
        loss.backward()
        of_judge.step()
        judge.requires_grad_(False)
        loss = _BETA * divergence(*posterior) + mean((decoded - images).abs())
        loss = loss + _WEIGHT * -mean(judge(expander(z.detach(), False)))
        of_vae.zero_grad()
        loss.backward()
        of_vae.step()
        judge.requires_grad_(True)

    return step


def flow_by_hand(models: Modules) -> Callable[[CaptionedBatch], None]:
    """Write the flow's step in PyTorch alone."""
    processor, encoder = models["flow_processor"], models["text_encoder"]
    optimizers = adam(processor), adam(encoder)
    scale: Any = processor.scale

    def step(batch: CaptionedBatch) -> None:
        with torch.no_grad():
            posterior = models["compressor"](batch.images_BCHW)
            end = posterior.sample(batch.noise("flow latent", (4, 7, 7)))
        if batch.step == 0:
            scale.measure(end)
        end = scale.standardise(end)
        start, time_B = batch.noise("noise", (4, 7, 7)), batch.noise("time", ()).sigmoid()
        dropped = torch.special.ndtr(batch.noise("caption", ())) < 0.1
        text = encoder(batch.tokens_BT.masked_fill(dropped[:, None], 0))
        t = time_B[:, None, None, None]
        found = processor((1 - t) * start + t * end, time_B, text)
        loss = mean((found - (end - start)).square())
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()

    return step


BY_HAND = {"VAE": vae_by_hand, "VAE, GAN and R1": gan_by_hand, "flow": flow_by_hand}


def compare(name: str, n_turns: int, n_steps: int) -> str:
    """Train both sides in turns; return the row of the table."""
    ours, other = (made(MODES[name], 64 * n_steps) for _ in range(2))
    batches, by_hand = numbered(other), BY_HAND[name](cast(Modules, other.state.models))
    for model in other.state.models.values():
        model.train()
    sides = (lambda: by_hand(next(batches))), engine(ours)
    turns = take_turns(sides, n_turns, n_steps, CPU, clock=time.process_time)
    weights = [nn.ModuleDict({**each.state.models}).state_dict() for each in (ours, other)]
    same = all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    of_loop, of_engine = 1000 * turns.reference, 1000 * turns.ours
    times = f"{of_loop:.1f} ms | {of_engine:.1f} ms | {1 / turns.ratio:.3f}"
    return f"| {name} | {times} | {'yes' if same else 'NO'} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--steps", type=int, default=4, help="in a turn")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| step | loop by hand | engine | ratio | equal bit for bit |\n|---|---|---|---|---|")
    for name in MODES:
        print(compare(name, options.turns, options.steps), flush=True)


if __name__ == "__main__":
    main()
