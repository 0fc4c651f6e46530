"""Recipe files: every problem is named with its line, and a sound file says what was meant."""

import copy

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from profiles import at_most
from recipe_files import (
    FLUX_SHORT,
    FLUX_TWO_STEPS,
    TEN_FAULTS,
    WARM_UP,
    problems_of,
    recipe_file,
    recipe_from_mapping,
    steps_file,
)
from ruamel.yaml import YAML

from jemtrack.errors import InputError
from jemtrack.jem.training.forms import CrossEntropyForm, MaxEntropyL1Form, OwnObjective
from jemtrack.recipe.check import checked_recipe, load_recipe
from jemtrack.train.optimizers import SGD, Adam, AdamW, CosineAnnealingLR, ReduceLROnPlateau


def test_ten_faults_are_ten_problems_in_the_order_of_lines(tmp_path):
    assert problems_of(tmp_path, TEN_FAULTS) == [
        "2: data.n_valid: must be >= 0, got -3",
        "3: modle: is not known here; did you mean model?",
        "6: training.batch_size: stands twice, first in line 5",
        "11: training.pipeline.defaults.optimization.optimizers.vae.type: must be an optimizer, "
        "got 'AdmaW'; did you mean AdamW?",
        "14: training.pipeline.steps[0].n_epochs: must be a whole number, got 'many'",
        "16: training.pipeline.steps[1]: trains nothing: at least one of train_vae, gan_training, "
        "train_diff, train_diff_full must be true",
        "16: training.pipeline.steps[1].name: must be a name of its own, but step 1 has 'first'",
        "19: training.pipeline.steps[2].name: is missing",
        "21: training.pipeline.steps[2].freeze[0]: must be a model, got 'compresser'; "
        "did you mean compressor?",
        "24: training.pipeline.steps[2].transition_on.metric: must be a metric of the step, "
        "got 'kl_los'; did you mean kl_loss?",
    ]


def test_reading_a_file_with_problems_tells_them_all(tmp_path):
    told = problems_of(tmp_path, TEN_FAULTS)

    with pytest.raises(InputError) as caught:
        load_recipe(tmp_path / "recipe.yaml")

    path = tmp_path / "recipe.yaml"
    assert str(caught.value).splitlines() == [f"{path}:{problem}" for problem in told]


def test_a_list_where_steps_is_missing_is_named_as_that_and_its_steps_are_checked(tmp_path):
    text = """\
        training:
          pipeline:
            - name: step1
              n_epochs: 0
              train_vae: true
        """

    assert problems_of(tmp_path, text) == [
        "2: training.pipeline: holds a list where `steps:` is missing: put `steps:` above the "
        "list, and indent it",
        "4: training.pipeline[0].n_epochs: must be >= 1, got 0",
    ]


def test_a_sound_file_is_what_it_says(tmp_path):
    file = recipe_file(tmp_path, WARM_UP)
    first, second, third = file.recipe.steps

    assert (file.family.name, file.data.n_valid, file.model.width) == ("jem", 100, 1)
    assert (file.training.batch_size, file.training.workers, file.training.seed) == (64, 2, None)
    assert file.trackers == ({"type": "history", "path": "history.csv"},)
    assert file.recipe.divergence.action == "retry"
    assert file.recipe.n_epochs == 6
    assert first.objective == CrossEntropyForm()
    assert first.optimizers == {"network": AdamW(lr=1e-3, betas=(0.9, 0.95))}
    assert first.schedulers == {"network": CosineAnnealingLR(eta_min_factor=0.1)}
    assert first.frozen == ("network.energy_head",)
    assert second.objective == MaxEntropyL1Form(entropy_weight=0.5, entropy_reduction="mean")
    assert second.optimizers == {"network": SGD(lr=0.1, momentum=0.9, clip_norm=2.0)}
    assert second.schedulers == {"network": ReduceLROnPlateau(metric="valid_nll", patience=1)}
    assert (second.transition.threshold, second.most_epochs, second.max_steps) == (0.05, 9, 5)
    assert third.frozen == ("network.trunk", "network.energy_head")


def test_the_published_form_is_read(tmp_path):
    short, long = (recipe_file(tmp_path, text) for text in (FLUX_SHORT, FLUX_TWO_STEPS))

    assert short.family.name == long.family.name == "flux"
    assert [step.name for step in short.recipe.steps] == ["vae_warmup", "vae_gan"]
    # What trains and is given no optimizer has the family's usual one.
    assert [{*step.optimizers} for step in short.recipe.steps] == [
        {"vae"},
        {"vae", "discriminator"},
    ]
    assert long.recipe.steps[1].optimizers["discriminator"] == AdamW(lr=0.00005)
    assert long.recipe.steps[1].gan_training is True
    assert long.recipe.steps[0].frozen == ("flow_processor", "text_encoder")


def test_a_file_s_recipe_is_the_one_of_its_mapping(tmp_path):
    recipe = recipe_file(tmp_path, WARM_UP).recipe
    content = YAML(typ="safe", pure=True).load(WARM_UP)["training"]
    mapping = {**content["pipeline"], "divergence": content["divergence"]}

    assert recipe_from_mapping(mapping, "params.yaml: A.recipe") == recipe
    assert recipe_from_mapping(recipe.as_mapping(), "params.yaml: A.recipe") == recipe


def test_a_mapping_s_problems_are_told_by_their_path():
    mapping = {"steps": [{"name": "a", "n_epochs": 0}], "divergence": {"action": "x"}, "stepz": []}

    with pytest.raises(InputError) as caught:
        recipe_from_mapping(mapping, "params.yaml: A.recipe")

    assert str(caught.value).splitlines() == [
        "params.yaml: A.recipe.stepz is not known here; did you mean steps?",
        "params.yaml: A.recipe.steps[0].n_epochs must be >= 1, got 0",
        "params.yaml: A.recipe.steps[0].objective is missing; there are cross_entropy, "
        "max_entropy_l1, max_entropy_l2, sampled_jem",
        "params.yaml: A.recipe.divergence.action must be one of 'fail' or 'retry', got 'x'",
    ]


PLAIN = "{name: a, n_epochs: 1, objective: {type: cross_entropy}}"


def with_(fields: str, name: str = "a") -> str:
    return PLAIN.replace("name: a", f"name: {name}")[:-1] + f", {fields}}}"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("freez: [network]", "freez: is not known here; did you mean freeze?"),
        ("train_vae: true", "train_vae: is not known here"),
        ("models: [network]", "models: is not known here"),
        ("optimizers: {network: {type: SGD, lr: 1}}", "optimizers: is not known here"),
        ("freeze: network", "freeze: must be a list, got 'network'"),
        ("freeze: [network], unfreeze: [network]", "unfreeze[0]: 'network' stands in `freeze` too"),
        ("freeze: [network]", "[1]: trains nothing: all that it would train is frozen"),
        ("max_steps: 0", "max_steps: must be >= 1, got 0"),
        ("optimization: 3", "optimization: must hold optimizers and schedulers, got 3"),
        (
            "optimization: {optimisers: {}}",
            "optimisers: is not known here; did you mean optimizers",
        ),
        ("optimization: {optimizers: [1]}", "optimizers: must hold names and values, got [1]"),
        (
            "optimization: {optimizers: {netwrk: {type: SGD, lr: 1}}}",
            "netwrk: is no model with an optimizer; did you mean network?",
        ),
        ("optimization: {optimizers: {network: SGD}}", "network: must hold `type` and its options"),
        ("optimization: {optimizers: {network: {lr: 1}}}", "network.type: is missing"),
        ("optimization: {optimizers: {network: {type: SGD}}}", "network.lr: is missing"),
        (
            "optimization: {optimizers: {network: {type: SGD, lr: 1, beta: 2}}}",
            "beta: is not a parameter of SGD",
        ),
        (
            "optimization: {schedulers: {network: {type: StepLR, step_size: 2}}}",
            "schedulers.network: has a scheduler, but no optimizer",
        ),
        (
            "freeze: [network.trunk], "
            "optimization: {optimizers: {network.trunk: {type: SGD, lr: 1}}}",
            "network.trunk: has an optimizer, but all of it is frozen",
        ),
        (
            "freeze: [network.trunk, network.class_head, network.energy_head], "
            "optimization: {optimizers: {network: {type: SGD, lr: 1}}}",
            "network: has an optimizer, but all of it is frozen",
        ),
        (
            "optimization: {optimizers: "
            "{network: {type: SGD, lr: 1}, network.trunk: {type: SGD, lr: 1}}}",
            "network.trunk: trains weights that the optimizer of 'network' trains too",
        ),
        (
            "optimization: {optimizers: {network: {type: SGD, lr: 1}}, "
            "schedulers: {network: {type: ReduceLROnPlateau, metric: loss}}}",
            "metric: must be a metric of the step a, got 'loss'",
        ),
        (
            "optimization: {optimizers: {network: {type: SGD, lr: 1}}, "
            "schedulers: {network: {type: none, gamma: 2}}}",
            "gamma: is not a parameter",
        ),
        ("transition_on: epoch", "transition_on: must hold names and values, got 'epoch'"),
        ("transition_on: {mode: epochs}", "mode: must be one of 'epoch', 'loss_threshold' or"),
        ("transition_on: {mode: wall_clock}", "hours: is missing: the mode wall_clock needs it"),
        ("transition_on: {mode: wall_clock, hours: 0}", "hours: must be > 0, got 0"),
        (
            "optimization: {optimizers: {network: {type: torch.optim.Adamm, lr: 1}}}",
            "network.type: must be the dotted path of a class, got 'torch.optim.Adamm': "
            "__init__.py defines no 'Adamm'",
        ),
        (
            "optimization: {optimizers: {network: {type: torch.optim.Adagrad, clip_norm: 0}}}",
            "network.clip_norm: must be > 0, got 0",
        ),
        (
            "optimization: {optimizers: {network: {type: SGD, lr: 1}}, "
            "schedulers: {network: {type: StepLR, step_size: 1, interval: step}}}",
            "interval: must be one of 'epoch' or 'batch', got 'step'",
        ),
        (
            "optimization: {optimizers: {network: {type: SGD, lr: 1}}, "
            "schedulers: {network: {type: ReduceLROnPlateau, interval: batch}}}",
            "interval: must be one of 'epoch', got 'batch'",
        ),
        (
            "transition_on: {mode: loss_threshold, threshold: 1}",
            "metric: is missing: the mode loss_threshold needs it",
        ),
        (
            "transition_on: {mode: loss_threshold, metric: loss}",
            "threshold: is missing: the mode loss_threshold needs it",
        ),
        (
            "transition_on: {mode: loss_threshold, metric: entropy_penalty, threshold: 1}",
            "metric: must be a metric of the step a, got 'entropy_penalty'",
        ),
    ],
)
def test_a_fault_in_a_step_is_one_problem_in_its_line(tmp_path, fields, problem):
    (found,) = problems_of(tmp_path, steps_file(PLAIN.replace("name: a", "name: b"), with_(fields)))

    assert found.startswith("7: training.pipeline.steps[1]")
    assert problem in found


@pytest.mark.parametrize(
    ("objective", "problem"),
    [
        ("cross_entropy", "objective: must hold `type` and its options, got 'cross_entropy'"),
        ("{}", "objective.type: is missing"),
        ("{type: cros_entropy}", "type: must be an objective, got 'cros_entropy'; did you mean"),
        ("{type: [1]}", "type: must be an objective, got [1]; there are"),
        ("{type: cross_entropy, entropy_weight: 1}", "entropy_weight: is not a parameter of"),
        ("{type: max_entropy_l1, entropy_weight: -1}", "entropy_weight: must be >= 0, got -1"),
        ("{type: jemtrack.none.Mine}", "there is no module 'jemtrack.none'"),
        ("{type: jemtrack.parameters.Mine}", "parameters.py defines no 'Mine'"),
    ],
)
def test_a_fault_in_an_objective_is_named(tmp_path, objective, problem):
    step = f"{{name: a, n_epochs: 1, objective: {objective}}}"
    (found,) = problems_of(tmp_path, steps_file(step))

    assert problem in found


@pytest.mark.parametrize(
    ("defaults", "problem"),
    [
        ("3", "defaults: must hold fields of steps, got 3"),
        ("{name: x}", "defaults.name: belongs into each step"),
        ("{max_step: 3}", "defaults.max_step: is not known here; did you mean max_steps?"),
        ("{freeze: [netwrk]}", "defaults.freeze[0]: must be a model, got 'netwrk'"),
        (
            "{freeze: [network.trunk], unfreeze: [network.trunk]}",
            "defaults.unfreeze[0]: 'network.trunk' stands in `freeze` too",
        ),
        (
            "{optimization: {optimizers: {network: {type: Adam}}}}",
            "defaults.optimization.optimizers.network.lr: is missing",
        ),
        (
            "{optimization: {optimizers: {network: {type: Adam, lr: 0}}}}",
            "defaults.optimization.optimizers.network.lr: must be > 0, got 0",
        ),
        (
            "{transition_on: {mode: loss_threshold, metric: los, threshold: 1}}",
            "defaults.transition_on.metric: must be a metric of the step a, got 'los'",
        ),
        (
            "{freeze: [network.trunk], "
            "optimization: {optimizers: {network.trunk: {type: Adam, lr: 1}, "
            "network.class_head: {type: Adam, lr: 1}}}}",
            "defaults.optimization.optimizers.network.trunk: serves no step: none trains what it "
            "is for",
        ),
        (
            "{optimization: {schedulers: {network: {type: ExponentialLR, gamma: 1}}}}",
            "defaults.optimization.schedulers.network: serves no step: none has an optimizer",
        ),
    ],
)
def test_a_fault_in_the_defaults_is_told_once_at_its_own_line(tmp_path, defaults, problem):
    steps = (PLAIN, PLAIN.replace("name: a", "name: b"))
    (found,) = problems_of(tmp_path, steps_file(*steps, defaults=defaults))

    assert found.startswith("4: training.pipeline.")
    assert problem in found


def test_a_default_that_a_step_has_no_use_for_is_left_out(tmp_path):
    defaults = (
        "{freeze: [network.energy_head], optimization: {"
        "optimizers: {network.class_head: {type: SGD, lr: 1}, network.trunk: {type: SGD, lr: 1}}, "
        "schedulers: {network.trunk: {type: StepLR, step_size: 1}}}}"
    )
    file = recipe_file(
        tmp_path,
        steps_file(
            with_("freeze: [network.trunk]"),
            with_("unfreeze: [network.energy_head]", name="b"),
            with_("optimization: {optimizers: {network.class_head: null}}", name="c"),
            defaults=defaults,
        ),
    )

    head, both, trunk = file.recipe.steps
    assert ({*head.optimizers}, {*head.schedulers}) == ({"network.class_head"}, set())
    assert {*both.optimizers} == {"network.class_head", "network.trunk"}
    assert (both.frozen, {*both.schedulers}) == ((), {"network.trunk"})
    assert {*trunk.optimizers} == {"network.trunk"}


def test_a_step_that_freezes_what_the_defaults_unfreeze_is_told(tmp_path):
    text = steps_file(with_("freeze: [network.trunk]"), defaults="{unfreeze: [network.trunk]}")
    (found,) = problems_of(tmp_path, text)

    assert found.startswith("6: training.pipeline.steps[0].freeze[0]: 'network.trunk' stands in")


def test_a_step_without_an_optimizer_has_the_usual_one(tmp_path):
    (step,) = recipe_file(tmp_path, steps_file(PLAIN)).recipe.steps

    assert step.optimizers == {"network": Adam(lr=1e-3)}


def test_an_objective_of_one_s_own_may_emit_any_metric(tmp_path):
    own = "jemtrack.jem.objectives.max_entropy.MaxEntropyObjective"
    text = steps_file(
        f"{{name: a, n_epochs: 1, objective: {{type: {own}, delta: 3}}, "
        "transition_on: {mode: loss_threshold, metric: anything, threshold: 1}}"
    )

    (step,) = recipe_file(tmp_path, text).recipe.steps
    assert step.objective == OwnObjective(type=own, options={"delta": 3})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ["1: must hold data, model, training, trackers, deploy, got null"]),
        ("- 1", ["1: must hold data, model, training, trackers, deploy, got [1]"]),
        ("model: {family: jem}", ["1: training: is missing: it must hold `pipeline:`"]),
        ("training: 3", ["1: training: must hold `pipeline:`, got 3"]),
        ("training: {}", ["1: training.pipeline: is missing: it must hold `steps:`"]),
        (
            "training:\n  pipeline:\n    defaults: {}\n",
            ["2: training.pipeline.steps: is missing: it must hold a list of steps"],
        ),
        (
            "training:\n  pipeline:\n",
            ["2: training.pipeline.steps: is missing: it must hold a list of steps"],
        ),
        (
            "training:\n  pipeline: {steps: []}\n",
            ["2: training.pipeline.steps: must hold at least one step"],
        ),
        (
            "training:\n  pipeline: {steps: {name: a}}\n",
            ['2: training.pipeline.steps: must be a list of steps, got {"name": "a"}'],
        ),
        (
            "training:\n  pipeline: {steps: [3]}\n",
            ["2: training.pipeline.steps[0]: must hold the fields of a step, got 3"],
        ),
    ],
)
def test_a_file_without_steps_says_what_is_missing(tmp_path, text, found):
    assert problems_of(tmp_path, text) == found


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ("model: {family: flax}", "model.family: must be a family of models, got 'flax'"),
        ("model: {depth: 11}", "model.depth: must be 6n + 4 with n >= 1"),
        ("model: {famly: jem}", "model.famly: is not known here; did you mean family?"),
        ("model: {norm: bach}", "model.norm: must be one of 'none', 'batch'"),
        ("data: {dataset: 3}", "data.dataset: must be text, got 3"),
        ("data: []", "data: must hold names and values, got []"),
        ("trackers: {type: jsonl}", "trackers: must be a list, got"),
        ("trackers: [jsonl]", "trackers[0]: must hold `type` and its options, got 'jsonl'"),
        ("trackers: [{type: jsnl}]", "trackers[0].type: must be a tracker, got 'jsnl'; did you"),
        ("trackers: [{path: x}]", "trackers[0].type: is missing"),
        ("trackers: [{type: lines, print_evry: 1}]", "trackers[0].print_evry: is not an option"),
        ("trackers: [{type: lines, print_every: 0}]", "print_every: must be >= 1, got 0"),
        ("trackers: [{type: history, path: 3}]", "trackers[0].path: must be of type str, got 3"),
    ],
)
def test_the_other_sections_are_checked_too(tmp_path, section, problem):
    text = f"{section}\ntraining: {{pipeline: {{steps: [{PLAIN}]}}}}\n"
    (found,) = problems_of(tmp_path, text)

    assert found.startswith("1: ")
    assert problem in found


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("batch_size: 0", "training.batch_size: must be >= 1, got 0"),
        ("batch_sise: 1", "training.batch_sise: is not known here; did you mean batch_size?"),
        ("device: gpu", "training.device: must be one of 'auto', 'cpu' or 'cuda', got 'gpu'"),
        ("precision: bf16", "training.precision: must be one of 'fp32' or 'bf16-mixed'"),
        ("processes: 0", "training.processes: must be >= 1, got 0"),
        ("steps: []", "training.steps: is not known here"),
        ("divergence: {max_retries: 0}", "training.divergence.max_retries: must be >= 1, got 0"),
        ("divergence: retry", "training.divergence: must hold names and values, got 'retry'"),
        ("callbacks: early_stopping", "training.callbacks: must be a list"),
        ("callbacks: [{type: erly}]", "training.callbacks[0].type: must be a callback, got 'erly'"),
    ],
)
def test_the_settings_of_training_are_checked(tmp_path, setting, problem):
    text = f"training:\n  {setting}\n  pipeline: {{steps: [{PLAIN}]}}\n"
    (found,) = problems_of(tmp_path, text)

    assert found.startswith("2: ")
    assert problem in found


JUNK = st.sampled_from(
    [None, True, 0, -1, 3, 1.5, "", "network", "none", [], [3], ["network"], {}, {"type": "SGD"}]
) | st.dictionaries(st.sampled_from(["type", "steps", "name", "lr", "mode"]), st.integers())


def spots(value, place=()):
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for part, inner in entries:
        yield (*place, part)
        if isinstance(inner, dict | list):
            yield from spots(inner, (*place, part))


@pytest.mark.parametrize("text", [WARM_UP, FLUX_TWO_STEPS])
@settings(at_most(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_stands_in_a_file_it_has_problems_or_is_read(tmp_path, text, data):
    content = copy.deepcopy(YAML(typ="safe", pure=True).load(text))
    for _ in range(data.draw(st.integers(1, 2))):
        *above, last = data.draw(st.sampled_from([*spots(content)]))
        holder = content
        for part in above:
            holder = holder[part]
        holder[last] = data.draw(JUNK)
    path = tmp_path / "recipe.yaml"
    with path.open("w") as file:
        YAML(typ="safe", pure=True).dump(content, file)

    file, problems = checked_recipe(path)
    assert (file is None) == bool(problems)
    if file:
        assert all(step.optimizers for step in file.recipe.steps)
