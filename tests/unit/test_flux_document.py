"""The document that published the form of flux's recipes, table by table, in its own words.

Its two complete files train in tests/integration/test_flux_recipes.py and, at full length,
tests/soak/test_flux_quick_start.py. Sample names and their suffixes are in test_flux_samples.py,
gradient flow in its GAN-only mode in test_flux_objectives.py.
"""

import json
import logging
import re
from pathlib import Path

import pytest
import yaml
from flux_models import noise, sizes_of
from flux_runs import STEPS, AtPhaseEnds, every_step, train, training, weights
from recipe_files import FLUX_COMPLETE, FLUX_SHORT

from jemtrack.commands.main import main
from jemtrack.flux.family import FAMILY
from jemtrack.flux.forms import FluxStep
from jemtrack.flux.networks.model_file import make_network
from jemtrack.recipe.check import checked_recipe
from jemtrack.record.jsonl import JsonLines, read_lines
from jemtrack.trackers.console import Lines

MODES = (
    "train_vae", "train_spade", "gan_training", "use_lpips", "train_diff", "train_diff_full",
)  # fmt: skip
MODELS = ("compressor", "expander", "flow_processor", "text_encoder", "discriminator")
OPTIMIZERS = """
vae:
  type: "AdamW"
  lr: 0.0001
  betas: [0.9, 0.999]
  weight_decay: 0.01
discriminator:
  type: "AdamW"
  lr: 0.0001
flow:
  type: "AdamW"
  lr: 0.00005
text_encoder:
  type: "SGD"
  lr: 0.00001
  momentum: 0.9
"""
SCHEDULERS = """
vae:
  type: "CosineAnnealingLR"
  eta_min_factor: 0.1
discriminator:
  type: "StepLR"
  step_size: 10
  gamma: 0.5
"""


def step_of(**values) -> dict:
    return {"name": "a", "n_epochs": 1, "train_vae": True, **values}


def problems(folder, *steps, **defaults) -> list[str]:
    path = folder / "pipeline.yaml"
    pipeline = {"steps": [*steps], **({"defaults": defaults} if defaults else {})}
    path.write_text(yaml.safe_dump({"training": {"batch_size": 4, "pipeline": pipeline}}))
    return [str(problem) for problem in checked_recipe(path)[1]]


def built(folder, *steps, **defaults):
    assert problems(folder, *steps, **defaults) == []
    return checked_recipe(folder / "pipeline.yaml")[0].recipe


# Required fields.


@pytest.mark.parametrize("field", ["name", "n_epochs"])
def test_a_required_field_that_is_missing_is_named(tmp_path, field):
    step = step_of()
    del step[field]

    (problem,) = problems(tmp_path, step)

    assert f"steps[0].{field}: is missing" in problem


# Training modes, loss weights.


def test_modes_are_off_and_weights_have_the_published_defaults():
    values = FluxStep(name="a", n_epochs=1).as_mapping()

    assert [values[mode] for mode in MODES] == [False] * 6
    weights = ("kl_beta", "kl_warmup_steps", "kl_free_bits", "lambda_adv", "lambda_lpips")
    assert [values[name] for name in weights] == [0.0001, 5000, 0.0, 0.5, 0.1]


# Model freezing.


@pytest.mark.parametrize("model", MODELS)
def test_a_frozen_model_keeps_its_weights_to_the_bit_and_others_learn(model):
    everything = {"train_vae": True, "gan_training": True, "train_diff_full": True}
    mode = {"discriminator": "gan_training", "flow_processor": "train_diff_full"}.get(model)
    modes = {name: True for name in everything if name != mode}
    if mode == "gan_training":  # its mode would have nothing to train
        modes = {"train_vae": True, "train_diff_full": True}
    made = training([{"name": "a", **modes, "freeze": [model]}])
    before = {name: each.clone() for name, each in weights(made).items()}

    after = weights(train(made))

    changed = {name.partition(".")[0] for name in after if not after[name].equal(before[name])}
    trained = {"compressor", "expander"}
    trained |= {"discriminator"} if "gan_training" in modes else set()
    trained |= {"flow_processor", "text_encoder"} if "train_diff_full" in modes else set()
    assert changed == trained - {model}


def test_unfreeze_overrides_what_is_frozen(tmp_path):
    step = {"name": "a", "n_epochs": 1, "train_vae": True, "unfreeze": ["compressor"]}

    (made,) = built(tmp_path, step, freeze=["compressor", "text_encoder"]).steps

    assert made.frozen == ("text_encoder",)


# Optimization.


def test_the_published_optimizers_and_schedulers_are_those_of_the_step(tmp_path):
    chosen = {"optimizers": yaml.safe_load(OPTIMIZERS), "schedulers": yaml.safe_load(SCHEDULERS)}
    everything = {"gan_training": True, "train_diff_full": True, "optimization": chosen}

    (made,) = built(tmp_path, step_of(**everything)).steps

    found = made.as_mapping()["optimization"]
    for kind, entries in chosen.items():
        for name, options in entries.items():
            expected = {n: tuple(v) if isinstance(v, list) else v for n, v in options.items()}
            assert expected.items() <= found[kind][name].items()


@pytest.mark.parametrize("kind", ["AdamW", "Adam", "SGD", "RMSprop"])
def test_every_supported_optimizer_trains(kind):
    before = weights(training(STEPS[:1]))

    after = weights(train(training(STEPS[:1], optimizer={"type": kind, "lr": 1e-3})))

    assert any(not after[name].equal(before[name]) for name in after)


@pytest.mark.parametrize(
    "chosen",
    [
        {"type": "CosineAnnealingLR"},
        {"type": "StepLR", "step_size": 1},
        {"type": "ExponentialLR", "gamma": 0.9},
        {"type": "ReduceLROnPlateau", "metric": "train_vae_loss"},
    ],
    ids=lambda chosen: chosen["type"],
)
def test_every_supported_scheduler_is_taken(tmp_path, chosen):
    optimization = {
        "optimizers": {"vae": {"type": "AdamW", "lr": 1e-4}},
        "schedulers": {"vae": chosen},
    }

    (made,) = built(tmp_path, step_of(optimization=optimization)).steps

    assert made.schedulers["vae"].type == chosen["type"]


# Transition criteria.


@pytest.mark.parametrize("metric", ["vae_loss", "kl_loss", "flow_loss", "g_loss", "d_loss"])
def test_every_supported_metric_can_end_a_step(tmp_path, metric):
    ends = {"mode": "loss_threshold", "metric": metric, "threshold": 0.05, "max_epochs": 50}
    every_mode = {"gan_training": True, "train_diff": True}

    (made,) = built(tmp_path, step_of(**every_mode, transition_on=ends)).steps

    assert (made.transition.metric, made.most_epochs) == (metric, 50)


def test_a_threshold_that_is_never_reached_ends_after_max_epochs_with_a_word(caplog):
    caplog.set_level(logging.INFO, "jemtrack")
    ends = {"mode": "loss_threshold", "metric": "vae_loss", "threshold": 0.0, "max_epochs": 2}

    made = train(training([{**STEPS[0], "n_epochs": 9, "transition_on": ends}]), [Lines()])

    assert made.state.position.epoch == 2
    assert "ended: vae_loss never fell below 0: moving on" in caplog.text


def test_max_steps_limits_the_batches_of_an_epoch():
    made = train(training([{**STEPS[0], "max_steps": 1, "n_epochs": 3}]))

    assert made.state.step == 3


# Validation: each of the checks.


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ([step_of(), step_of()], r"steps\[1\].name: must be a name of its own, but step 1 has 'a'"),
        ([step_of(train_vae=False)], r"steps\[0\]: trains nothing: at least one of"),
        ([step_of(freeze=["expander"], unfreeze=["expander"])], r"stands in `freeze` too"),
        ([step_of(freeze=["encoder"])], r"freeze\[0\]: must be a model, got 'encoder'"),
        ([step_of(optimization={"optimizers": {"vae": {"type": "Adagrad", "lr": 1}}})], "Adagrad"),
        (
            [step_of(optimization={
                "optimizers": {"vae": {"type": "AdamW", "lr": 1}},
                "schedulers": {"vae": {"type": "Linear"}}})],
            "Linear",
        ),
        ([step_of(transition_on={"mode": "loss"})], r"transition_on.mode"),
        ([step_of(transition_on={"mode": "loss_threshold"})], r"transition_on.metric: is missing"),
        (
            [step_of(transition_on={
                "mode": "loss_threshold", "metric": "flow_loss", "threshold": 0.1})],
            r"transition_on.metric: must be a metric of the step a, got 'flow_loss'",
        ),
        (
            [step_of(transition_on={
                "mode": "loss_threshold", "metric": "valid_flow_loss", "threshold": 0.1})],
            r"transition_on.metric: must be a metric of the step a, got 'valid_flow_loss'",
        ),
    ],
)  # fmt: skip
def test_each_of_the_checks_names_its_problem(tmp_path, steps, problem):
    found = problems(tmp_path, *steps)

    assert any(re.search(problem, each) for each in found), found


@pytest.mark.parametrize("text", ["training: [\n", "training:\n  pipeline:\n    - name: a\n"])
def test_a_broken_file_and_a_list_without_steps_are_told_with_their_line(tmp_path, capsys, text):
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)

    assert main(["validate", str(path)]) == 1

    assert re.match(r".*pipeline.yaml:\d+: ", capsys.readouterr().out)


@pytest.mark.parametrize(("text", "epochs"), [(FLUX_SHORT, 30), (FLUX_COMPLETE, 4)])
def test_the_summary_of_a_sound_file_has_the_published_facts(tmp_path, capsys, text, epochs):
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)

    assert main(["validate", str(path)]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert {"Total steps: 2", f"Total epochs: {epochs}", "  Training: VAE, GAN"} <= {*lines}


# Samples, console, JSONL.


@pytest.mark.parametrize(
    ("mode", "shown"),
    [
        (STEPS[0], {"vae_loss", "kl_loss"}),
        (STEPS[1], {"vae_loss", "kl_loss", "g_loss", "d_loss"}),
        ({**STEPS[0], "use_lpips": True}, {"vae_loss", "kl_loss", "lpips_loss"}),
        (STEPS[2], {"kl_loss", "g_loss", "d_loss"}),
        (STEPS[3], {"flow_loss"}),
    ],
)
def test_a_line_of_the_console_says_where_training_is_and_the_mode_s_metrics(caplog, mode, shown):
    caplog.set_level(logging.INFO, "jemtrack")

    train(training([mode, {**STEPS[0], "name": "other"}]), [Lines(print_every=1)])

    line = next(each for each in caplog.messages if "Batch 1/2" in each)
    name = mode["name"]
    assert re.match(rf"flux \| Phase {name} \(1/2\) \| Epoch 1/1 \| Batch 1/2 \| loss ", line)
    assert re.search(r"\d+\.\d+ s/batch$", line)
    assert {*re.findall(r"(\w+_loss) -?\d", line)} == shown


def test_each_step_has_a_file_of_json_lines_with_the_published_fields(tmp_path):
    train(training(STEPS[:2]), [JsonLines(folder=str(tmp_path))])

    vae, gan = ([*read_lines(tmp_path / f"{name}.jsonl")] for name in ("vae", "vae_gan"))
    assert [line["global_step"] for line in vae + gan] == [1, 2, 3, 4]
    assert {*gan[0]} == {"timestamp", "session_id", "epoch", "batch", "global_step", "metrics"}
    assert {"vae_loss", "kl_loss", "g_loss", "d_loss"} <= {*gan[0]["metrics"]}
    json.dumps(gan)


# Resuming.


def test_a_resumed_run_skips_the_steps_that_are_done(tmp_path, caplog):
    caplog.set_level(logging.INFO, "jemtrack")
    train(training(STEPS), checkpoints=every_step(tmp_path), cut=4)
    caplog.clear()

    train(training(STEPS), [Lines(print_every=1)], every_step(tmp_path))

    resumes = "flux resumes at phase vae_gan (2/5), epoch 1, batch 2; done before: vae"
    assert resumes in caplog.messages
    assert "Phase vae (" not in caplog.text
    assert "Phase vae_gan (2/5) | Epoch 1/1 | Batch 2/2" in caplog.text


# Models that are created.


@pytest.mark.parametrize(
    ("modes", "created"),
    [
        (("train_vae",), {"compressor", "expander"}),
        (("gan_training",), {"compressor", "expander", "discriminator"}),
        (("train_diff",), {"compressor", "expander", "flow_processor", "text_encoder"}),
        (("train_diff_full",), {"compressor", "expander", "flow_processor", "text_encoder"}),
    ],
)
def test_a_mode_creates_the_models_that_it_needs(modes, created):
    made = training([{"name": "a", **dict.fromkeys(modes, True)}])

    assert {*made.state.models} == created


def test_the_sizes_of_created_models_can_be_given():
    sizes = sizes_of(vae_dim=6, feature_maps_dim=256, text_embedding_dim=32)

    processor = make_network("flow_processor", sizes)

    assert processor.latent_shape[0] == 6
    assert max(each.shape[0] for each in processor.parameters()) >= 256
    assert make_network("expander", sizes)(noise(1, *sizes.latent_shape)).shape == (1, 1, 8, 8)


# Fields and names that published files have beside the document's.


def test_other_names_of_models_are_understood(tmp_path):
    step = step_of(
        gan_training=True,
        freeze=["flow"],
        optimization={"optimizers": {"D_img": {"type": "AdamW", "lr": 0.0005}}},
    )

    (made,) = built(tmp_path, step, freeze=["D_img"]).steps

    assert made.frozen == ("flow_processor",)
    assert made.optimizers["discriminator"].lr == 0.0005
    both = {name: {"type": "AdamW", "lr": 0.1} for name in ("D_img", "discriminator")}
    (problem,) = problems(tmp_path, step_of(gan_training=True, optimization={"optimizers": both}))
    assert "optimizers.D_img: is no model with an optimizer" in problem


def test_a_step_has_a_batch_size_of_its_own():
    first, second = (
        {**STEPS[0], "name": name, "batch_size": n} for name, n in (("a", 7), ("b", 2))
    )

    made = training([first, second, {**STEPS[0], "name": "c"}], batch_size=5)

    assert [len(phase.batches) for phase in made.phases] == [2, 7, 3]


def test_a_step_without_averages_trains_as_without_any_and_later_ones_have_them():
    sgd = {"type": "SGD", "lr": 0.05}
    steps = [{**STEPS[0], "name": "a", "use_ema": False}, {**STEPS[0], "name": "b"}]
    ends, plain = AtPhaseEnds(), AtPhaseEnds()

    train(training(steps, optimizer=sgd, callbacks=[ends]))
    train(training(steps, optimizer=sgd, callbacks=[plain], use_ema=False))

    same = {
        step: all(ends.weights[step][n].equal(each) for n, each in plain.weights[step].items())
        for step in ("a", "b")
    }
    assert same == {"a": True, "b": False}


def test_the_squared_error_is_added_with_its_weight():
    plain, both = (
        train(training([{**STEPS[0], "mse_weight": weight, "max_steps": 1}])).state.latest
        for weight in (0.0, 3.0)
    )

    # Of the first batch, before any step: |e| alone, and |e| + 3 e^2.
    assert plain["train_vae_loss"] < both["train_vae_loss"] < 10 * plain["train_vae_loss"]


def test_a_description_is_for_readers(tmp_path):
    (made,) = built(tmp_path, step_of(description="a first look")).steps

    assert made.description == "a first look"
    assert FAMILY.step is FluxStep
    assert Path(tmp_path / "pipeline.yaml").exists()
