"""The family flux trains by its recipes: who learns in which mode, averages, kills, processes."""

import dataclasses
import logging
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from flux_runs import (
    BATCH_SIZE,
    N_BATCHES,
    STEPS,
    AtPhaseEnds,
    every_step,
    saved,
    splits,
    train,
    training,
    weights,
)
from small_run import Seen
from torch import nn
from torch.nn.functional import relu

from jemtrack.callbacks.ema import Ema
from jemtrack.data.images import to_unit_range
from jemtrack.errors import InputError, ParameterError
from jemtrack.flux.family import FAMILY
from jemtrack.flux.forms import FluxStep
from jemtrack.flux.networks.model_file import load_models
from jemtrack.flux.networks.shape import FluxShape
from jemtrack.flux.training import model_makers, psnr
from jemtrack.shared.components import CALLBACK, load_components
from jemtrack.shared.hardware import Hardware
from jemtrack.shared.metrics import check_metrics
from jemtrack.shared.random_streams import generator, stream_seed
from jemtrack.train.distributed import is_rank_zero
from jemtrack.train.launch import Runtime, launch

N_STEPS = len(STEPS) * N_BATCHES
SGD = {"type": "SGD", "lr": 0.05}


def changed(before, after):
    """Name the models of which a weight changed."""
    return {n.partition(".")[0] for n in before if not torch.equal(before[n], after[n])}


def test_each_mode_trains_its_models_and_leaves_the_others_to_the_bit():
    ends = AtPhaseEnds()
    made = training(callbacks=[ends])
    states = [{name: each.clone() for name, each in weights(made).items()}]

    train(made)

    states += ends.weights.values()
    vae, gan = {"compressor", "expander"}, {"compressor", "expander", "discriminator"}
    expected = [vae, gan, gan, {"flow_processor"}, {"flow_processor", "text_encoder"}]
    assert [changed(*pair) for pair in pairwise(states)] == expected


@pytest.mark.parametrize("mode", STEPS, ids=lambda step: step["name"])
def test_a_mode_emits_the_metrics_that_it_promises(mode):
    seen = Seen()

    made = train(training([mode]), [seen])

    names = {name for name in seen.metrics[0] if not name.startswith("gradient_norm.")}
    assert names == {*FluxStep.metrics(mode)}
    check_metrics(names)
    validated = {name for name in made.state.latest if name.startswith("valid_")}
    assert validated == {*FluxStep.validation_metrics(mode)}


@pytest.mark.parametrize("mode", STEPS, ids=lambda step: step["name"])
def test_there_are_averages_in_every_mode_and_the_next_step_trains_on_them(mode):
    made = train(training([mode], optimizer=SGD))

    averages = nn.ModuleDict({**made.state.averages}).state_dict()
    assert averages.keys() == weights(made).keys()
    assert all(torch.equal(averages[name], each) for name, each in weights(made).items())
    plain = weights(train(training([mode], optimizer=SGD, use_ema=False)))
    assert changed(plain, averages) == changed(weights(training([mode])), plain)


def test_without_averages_there_are_none():
    assert train(training(STEPS[:1], use_ema=False)).state.averages == {}


@pytest.mark.parametrize("kind", ["ema", "jemtrack.callbacks.ema.Ema"])
def test_averages_of_the_recipe_take_the_place_of_the_usual_ones(kind):
    load_components(CALLBACK)
    made = training(STEPS[:1])
    assert sum(isinstance(each, Ema) for each in FAMILY.callbacks(made)) == 1

    made.recipe = dataclasses.replace(made.recipe, callbacks=({"type": kind, "decay": 0.5},))
    assert not any(isinstance(each, Ema) for each in FAMILY.callbacks(made))


def test_a_model_s_first_weights_do_not_depend_on_the_other_steps():
    alone, all_ = weights(training(STEPS[:1])), weights(training(STEPS[:2] + STEPS[3:]))

    assert {name.partition(".")[0] for name in alone} == {"compressor", "expander"}
    assert all(torch.equal(each, all_[name]) for name, each in alone.items())


def test_created_models_are_logged_with_the_step_that_needs_them(caplog, tmp_path):
    caplog.set_level(logging.INFO, "jemtrack")
    train(training(STEPS[:4]), checkpoints=every_step(tmp_path), cut=2)

    created = [record.message for record in caplog.records if "created" in record.message]
    assert [line.partition(",")[0] for line in created] == [
        f"created {name}"
        for name in ("compressor", "expander", "discriminator", "flow_processor", "text_encoder")
    ]
    assert created[3].endswith("weights: step flow needs it")
    caplog.clear()
    train(training(STEPS[:4]), checkpoints=every_step(tmp_path))
    assert not [record for record in caplog.records if "created" in record.message]


def test_a_file_decodes_with_spade_as_the_last_step_trained_it(tmp_path):
    on, off = (
        {"name": str(flag), "train_vae": True, "train_spade": flag} for flag in (True, False)
    )
    flow = {"name": "flow", "train_diff": True}

    for number, (steps, spade) in enumerate([((off, on, flow), True), ((on, off, flow), False)]):
        path = tmp_path / f"{number}.safetensors"
        made = train(training(steps))
        saved(made, path)
        file = load_models(path)
        assert file.sizes.spade is spade
        # What was validated is what the file decodes.
        images = to_unit_range(splits().valid.images_NCHW)
        with torch.no_grad():
            decoded = file.models["expander"](file.models["compressor"](images).mean_BCHW)
        errors = (decoded - images).square().mean(dim=(1, 2, 3))
        assert made.state.latest["valid_psnr"] == pytest.approx(psnr(errors), rel=1e-6)


def test_a_kill_after_any_batch_changes_no_byte(tmp_path):
    """The training is killed after each of its batches in turn, and resumed each time."""
    seen, whole_seen = Seen(), Seen()
    for step in range(1, N_STEPS):
        torch.rand(step)
        train(training(), [Seen()], every_step(tmp_path / "kept"), cut=step)

    resumed = train(training(), [seen], every_step(tmp_path / "kept"))
    whole = train(training(), [whole_seen])

    assert saved(resumed, tmp_path / "resumed") == saved(whole, tmp_path / "whole")
    assert seen.metrics == whole_seen.metrics
    assert len(seen.metrics) == N_STEPS


TURNS = (STEPS[1], STEPS[2], STEPS[4])


def train_in_processes(runtime: Runtime, folder: Path) -> None:
    def of(name, cut=0):
        made = training(TURNS, runtime=runtime, optimizer=SGD)
        seen = [Seen()] if is_rank_zero() else []
        train(made, seen, every_step(folder / name), cut)
        return made, seen

    whole, seen = of("whole")
    for cut in (1, 4):
        of("broken", cut)
    broken, _ = of("broken")
    if is_rank_zero():
        same = saved(broken, folder / "a") == saved(whole, folder / "b")
        found = same, weights(whole), seen[0].metrics, whole.state.latest
        torch.save(found, folder / "found")


def test_two_processes_train_as_one_does_and_resume_to_the_same_bytes(tmp_path):
    assert BATCH_SIZE % 2  # their shards differ in length

    launch(Hardware(device="cpu", processes=2, threads=1), train_in_processes, tmp_path)

    same, together, metrics, latest = torch.load(tmp_path / "found")
    seen = Seen()
    alone = train(training(TURNS, optimizer=SGD), [seen])
    assert same
    assert latest == pytest.approx(alone.state.latest, rel=1e-4)
    for found, expected in zip(metrics, seen.metrics, strict=True):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)
    for name, weight in weights(alone).items():
        torch.testing.assert_close(together[name], weight, rtol=1e-4, atol=1e-5)


def test_every_mode_trains_in_bfloat16():
    runtime = Runtime(torch.device("cpu"), lambda: torch.autocast("cpu", torch.bfloat16))
    seen = Seen()

    made = train(training(runtime=runtime), [seen])

    assert len(seen.metrics) == N_STEPS
    assert all(each.dtype == torch.float32 for each in weights(made).values())


def test_a_turn_gives_no_gradient_to_what_it_does_not_train():
    """The autoencoder's turn, which the discriminator judges, leaves it the gradient of its own."""
    step = {"name": "a", "train_vae": True, "gan_training": True}
    found = []
    for weight in (0.0, 100.0):
        modes = {**step, "adv_weight": "fixed", "lambda_adv": weight, "max_steps": 1}
        made = train(training([modes], use_ema=False))
        discriminator = made.state.models["discriminator"]
        found.append(torch.cat([each.grad.flatten() for each in discriminator.parameters()]))

    assert found[0].any()
    assert torch.equal(*found)


def by_hand(made):
    """Train VAE and GAN by a loop of PyTorch alone, on the same batches."""
    compressor, expander = (made.state.models[name] for name in ("compressor", "expander"))
    discriminator = made.state.models["discriminator"]
    vae = torch.optim.AdamW([*compressor.parameters(), *expander.parameters()], 1e-3, fused=True)
    judge = torch.optim.AdamW(discriminator.parameters(), 1e-3, fused=True)
    for step, batch in enumerate(made.phases[0].batches.epoch(0)):
        images = batch.images_BCHW
        posterior = compressor(images)
        z = posterior.sample(batch.noise("latent", (2, 4, 4)))
        decoded = expander(z)
        real, fake = discriminator(torch.cat([images, decoded.detach()])).chunk(2)
        loss = relu(1 - real).mean() + relu(1 + fake).mean()
        if step % 2 == 0:
            leaf = images.clone().requires_grad_()
            score = discriminator(leaf).mean(dim=(1, 2, 3)).sum()
            (slope,) = torch.autograd.grad(score, leaf, create_graph=True)
            loss = loss + 2 * 5 / 2 * slope.square().sum(dim=(1, 2, 3)).mean()
        judge.zero_grad()
        loss.backward()
        judge.step()
        mean, log_variance = posterior
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        adversarial = -discriminator(expander(z.detach())).mean()
        vae.zero_grad()
        (0.1 * kl + (decoded - images).abs().mean() + 0.5 * adversarial).backward()
        vae.step()
    return weights(made)


def test_the_engine_trains_as_a_loop_by_hand_does():
    step = {"name": "a", "train_vae": True, "gan_training": True, "r1_interval": 2}
    step |= {"adv_weight": "fixed", "kl_beta": 0.1, "kl_warmup_steps": 0}

    found = weights(train(training([step], use_ema=False)))

    expected = by_hand(training([step]))
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("objective", ["rectified_flow", "mean_flow"])
def test_the_flow_is_validated_on_other_images_as_its_loss_is_computed(objective):
    made = training([{"name": "a", "train_diff_full": True, "flow_objective": objective}])
    (phase,) = made.phases
    models = made.state.models  # their flow is 0 everywhere at first: v - (z_1 - z_0) is known

    found = phase.validation.measure(models)["valid_flow_loss"]

    seed = stream_seed(1, "validation", 0)
    with torch.no_grad():
        posterior = models["compressor"](to_unit_range(splits().valid.images_NCHW))
    drawn = {
        name: torch.randn((4, 2, 4, 4), generator=generator(seed, name))
        for name in ("flow latent", "noise")
    }
    velocity = posterior.sample(drawn["flow latent"]) - drawn["noise"]
    assert found == pytest.approx(float(velocity.square().mean()), rel=1e-6)
    torch.rand(3)
    assert phase.validation.measure(models)["valid_flow_loss"] == found


def test_a_step_that_trains_both_disturbs_neither():
    vae, flow = {"train_vae": True}, {"train_diff": True}
    alone, both = (
        weights(train(training([{"name": "a", **modes}]))) for modes in (vae, vae | flow)
    )

    assert all(torch.equal(both[name], each) for name, each in alone.items())
    assert changed(weights(training([{"name": "a", **vae, **flow}])), both) == {
        "compressor", "expander", "flow_processor",
    }  # fmt: skip


def test_a_threshold_on_any_metric_ends_a_step():
    for mode in STEPS[:4]:
        for metric in FluxStep.metrics(mode):
            ends = {"mode": "loss_threshold", "metric": metric, "threshold": 1e6}
            made = train(training([{**mode, "transition_on": ends, "n_epochs": 3}]))
            assert made.state.position.epoch == 1, metric


def test_the_features_of_a_perceptual_loss_are_made_once_and_kept_out_of_the_file(tmp_path):
    step = {"name": "a", "train_vae": True, "use_lpips": True}
    seen = Seen()

    made = train(training([step]), [seen])

    saved(made, tmp_path / "model")
    assert {*load_models(tmp_path / "model").models} == {"compressor", "expander"}
    assert seen.metrics[0]["lpips_loss"] > 0
    assert changed(weights(training([step])), weights(made)) == {"compressor", "expander"}


def test_a_training_starts_from_the_models_of_a_file(tmp_path):
    path = tmp_path / "model.safetensors"
    first = train(training(STEPS[:1]))
    first.save(path)
    sizes = {"vae_dim": 2, "feature_maps_dim": 8, "text_embedding_dim": 8}
    steps = training(STEPS[2:4]).recipe.steps  # with SPADE, which the file has not

    makers = model_makers(steps, FluxShape(**sizes), splits(), path)
    made = {name: maker().state_dict() for name, maker in makers.items()}

    for name in ("compressor", "expander"):
        for key, weight in first.state.models[name].state_dict().items():
            assert torch.equal(made[name][key], weight)
    assert {*made} == {"compressor", "expander", "discriminator", "flow_processor", "text_encoder"}
    with pytest.raises(ParameterError, match=r"load_path must be .* but vae_dim"):
        model_makers(steps, FluxShape(**{**sizes, "vae_dim": 3}), splits(), path)


def test_images_and_sizes_that_no_machine_takes_are_refused(monkeypatch):
    with pytest.raises(InputError, match=r"digits: images must have 8 to 256 .* got 7x7"):
        FAMILY.check_data(FluxShape(), None, splits(side=7))
    monkeypatch.setattr("jemtrack.shared.hardware.memory_bytes", lambda: 2**22)
    with pytest.raises(InputError, match=r"feature_maps_dim must be smaller, got 4096"):
        FAMILY.check_data(FluxShape(feature_maps_dim=4096), None, splits())
