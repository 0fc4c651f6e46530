"""Time the engine's steps of the family flux beside loops written by hand in PyTorch.

    python -m benchmarks.flux_engine

Both sides train the same networks on the same batches; after each mode the weights are compared
bit for bit. Times are processor time, medians of turns that alternate between the sides, on one
thread. A ratio is the engine's time divided by the loop's.

`--published` compares the steps against a discriminator with loops in the order of the published
code (https://github.com/danny-mio/fluxflow-training): the discriminator's step decodes once more
without a gradient and judges real and decoded images one after the other, and the autoencoder's
step computes the gradients of the discriminator's weights, too.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
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
_LAZILY = 16  # batches from one R1 to the next, as is the default
ADVERSARIAL: dict[str, dict[str, Any]] = {
    "VAE and GAN": {"train_vae": True, "gan_training": True, "r1_interval": _LAZILY},
    "GAN alone": {"gan_training": True, "r1_interval": _LAZILY},
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
            loss = loss + penalty(judge, images, _INTERVAL)
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


def penalty(judge: nn.Module, images: Tensor, interval: int) -> Tensor:
    """Compute R1 of a batch, times the batches from one to the next."""
    leaf = images.detach().requires_grad_()
    score = judge(leaf).flatten(1).mean(dim=1).sum()
    (slope,) = torch.autograd.grad(score, leaf, create_graph=True)
    squares = slope.flatten(1).square().sum(dim=1, keepdim=True)
    return mean(squares) * (interval * _GAMMA / 2)


def published(models: Modules, reconstructs: bool) -> Callable[[CaptionedBatch], None]:
    """Write the steps against a discriminator in the order of the published code."""
    compressor, expander, judge = (models[n] for n in ("compressor", "expander", "discriminator"))
    of_vae, of_judge = adam(compressor, expander), adam(judge)

    def step(batch: CaptionedBatch) -> None:
        images, noise = batch.images_BCHW, batch.noise("latent", (4, 7, 7))
        with torch.no_grad():
            fake = expander(compressor(images).sample(noise), False)
        loss = mean(relu(1 - judge(images))) + mean(relu(1 + judge(fake)))
        if batch.step % _LAZILY == 0:
            loss = loss + penalty(judge, images, _LAZILY)
        of_judge.zero_grad()
        loss.backward()
        of_judge.step()
        posterior = compressor(images)
        z = posterior.sample(noise)
        decoded = judged = expander(z, False)
        loss = _BETA * divergence(*posterior)
        if reconstructs:
            loss, judged = loss + mean((decoded - images).abs()), expander(z.detach(), False)
        loss = loss + _WEIGHT * -mean(judge(judged))
        of_vae.zero_grad()
        loss.backward()
        of_vae.step()

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


Side = Callable[[CaptionedBatch], None]


def compare(name: str, modes: dict[str, Any], by_hand: Callable[[Modules], Side],
            n_turns: int, n_steps: int) -> str:  # fmt: skip
    """Train both sides in turns; return the row of the table."""
    ours, other = (made(modes, 64 * n_steps) for _ in range(2))
    batches, by_hand_step = numbered(other), by_hand(cast(Modules, other.state.models))
    for model in other.state.models.values():
        model.train()
    sides = (lambda: by_hand_step(next(batches))), engine(ours)
    turns = take_turns(sides, n_turns, n_steps, CPU, clock=time.process_time)
    weights = [nn.ModuleDict({**each.state.models}).state_dict() for each in (ours, other)]
    same = all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    of_loop, of_engine = 1000 * turns.reference, 1000 * turns.ours
    times = f"{of_loop:.1f} ms | {of_engine:.1f} ms | {1 / turns.ratio:.3f}"
    wanted = name in MODES  # another order of operations rounds otherwise
    return f"| {name} | {times} | {('yes' if same else 'NO') if wanted else ''} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--steps", type=int, default=4, help="in a turn")
    parser.add_argument("--published", action="store_true", help="the published code's order")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| step | loop by hand | engine | ratio | equal bit for bit |\n|---|---|---|---|---|")
    for name, modes in (ADVERSARIAL if options.published else MODES).items():
        reconstructs = "train_vae" in modes
        by_hand = (
            partial(published, reconstructs=reconstructs) if options.published else BY_HAND[name]
        )
        print(compare(name, modes, by_hand, options.turns, options.steps), flush=True)


if __name__ == "__main__":
    main()
