"""Recipes as objects: what can be chosen, how steps are filled up, what stays frozen."""

import copy
import dataclasses
import inspect
import string

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recipe_files import recipe_from_mapping

from jemtrack.errors import InputError
from jemtrack.jem.training.forms import JemStep, MaxEntropyL2Form
from jemtrack.parameters import build, problem_lines
from jemtrack.recipe.read import RawStep, layered
from jemtrack.train.optimizers import OPTIMIZERS, SCHEDULERS, Adam, AdamW, StepLR
from jemtrack.train.recipe import Divergence, Recipe, Step, Transition

NAMES = st.sampled_from(["a", "b", "c", "type"])
LEAVES = st.none() | st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2)
MAPPINGS = st.dictionaries(
    NAMES,
    st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=6),
    max_size=4,
)


def leaves(value, place=()):
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from leaves(inner, (*place, name))
    else:
        yield place, value


def at(value, place):
    for part in place:
        value = value[part]
    return value


def merged(defaults, step):
    """Give the values of a step that was filled up."""
    return layered(defaults, step, ("defaults",), ("steps", 0))[0]


def same_type(default, own):
    """Say whether what `own` leaves out may come from `default`."""
    return "type" not in own or own["type"] == default.get("type", own["type"])


@pytest.mark.parametrize("name", sorted({*OPTIMIZERS} - {"Lion"}))
def test_an_optimizer_s_options_and_defaults_are_torch_s(name):
    published = inspect.signature(getattr(torch.optim, name)).parameters
    chosen = OPTIMIZERS[name](lr=0.25)

    ours = {"clip_norm", "warm_up_steps", "type"}
    own = {field: value for field, value in vars(chosen).items() if field not in ours}
    for field, value in own.items():
        assert value == (0.25 if field == "lr" else published[field].default), field
    getattr(torch.optim, name)([torch.zeros(1, requires_grad=True)], **own)


def test_the_schedulers_are_torch_s_by_name():
    names = {*SCHEDULERS} - {"none"}
    assert all(hasattr(torch.optim.lr_scheduler, name) for name in names)
    ours = {"type", "interval", "metric", "t_max", "eta_min_factor"}
    for name in names:
        published = inspect.signature(getattr(torch.optim.lr_scheduler, name)).parameters
        for field, declared in SCHEDULERS[name].__dataclass_fields__.items():
            if field not in ours and declared.default is not dataclasses.MISSING:
                assert declared.default == published[field].default, (name, field)


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (OPTIMIZERS["Adam"], {}, "x.lr is missing"),
        (OPTIMIZERS["Adam"], {"lr": 0}, "x.lr must be > 0, got 0"),
        (OPTIMIZERS["Adam"], {"lr": float("inf")}, "x.lr must be a finite number, got Infinity"),
        (OPTIMIZERS["Adam"], {"lr": 1, "betas": [0.9, 1]}, "x.betas.1 must be < 1, got 1"),
        (OPTIMIZERS["Adam"], {"lr": 1, "betas": 0.9}, "x.betas must be a list, got 0.9"),
        (OPTIMIZERS["Adam"], {"lr": 1, "clip_norm": 0}, "x.clip_norm must be > 0, got 0"),
        (OPTIMIZERS["SGD"], {"lr": 1, "nesterov": True}, "must be false without momentum"),
        (SCHEDULERS["StepLR"], {}, "x.step_size is missing"),
        (SCHEDULERS["CosineAnnealingLR"], {"eta_min_factor": 2}, "must be <= 1, got 2"),
        (SCHEDULERS["ReduceLROnPlateau"], {"factor": 1.0}, "must be < 1, got 1.0"),
        (
            Divergence,
            {"action": "ignore"},
            "x.action must be one of 'fail' or 'retry', got 'ignore'",
        ),
        (Divergence, {"lr_factor": 0}, "x.lr_factor must be > 0, got 0"),
        (Transition, {"threshold": float("nan")}, "x.threshold must be a finite number"),
        (Step, {"name": "a/b", "n_epochs": 1}, "x.name must be at most 100 letters"),
        (Step, {"name": "Epochs", "n_epochs": 1}, "x.name must be another name"),
        (Recipe, {"steps": []}, "x.steps must not be empty, got []"),
    ],
)
def test_a_value_that_does_not_fit_is_named(cls, values, message):
    found = problem_lines(cls, values, "x")

    assert len(found) == 1
    assert message in found[0]


def test_two_steps_of_one_name_are_refused_even_if_their_case_differs():
    steps = (Step(name="warm_up", n_epochs=1), Step(name="Warm_Up", n_epochs=2))

    with pytest.raises(InputError, match="must have a name of its own for each step"):
        build(Recipe, {"steps": steps}, "x")


def test_a_recipe_s_epochs_are_those_of_its_steps():
    long = Transition(mode="loss_threshold", metric="loss", threshold=0.1, max_epochs=9)
    steps = (Step(name="a", n_epochs=2), Step(name="b", n_epochs=3, transition=long))

    assert Recipe(steps=steps).n_epochs == 5
    assert [step.most_epochs for step in steps] == [2, 9]


def test_what_is_unfrozen_is_so_with_all_of_its_parts():
    step = Step(
        name="a", n_epochs=1, freeze=("network.trunk", "networks", "other"), unfreeze=("network",)
    )

    assert step.frozen == ("networks", "other")
    divided = JemStep(name="a", n_epochs=1, freeze=("network",), unfreeze=("network.trunk",))
    assert divided.frozen == ("network.class_head", "network.energy_head")


def test_two_recipes_that_differ_in_a_type_alone_are_written_differently():
    """What a training goes by must tell Adam from AdamW, whose fields are the same."""
    first, second = (
        Recipe(steps=(Step(name="a", n_epochs=1, optimizers={"network": choice}),)).as_mapping()
        for choice in (Adam(lr=1.0, weight_decay=0.01), AdamW(lr=1.0))
    )

    assert first != second


@given(
    n_epochs=st.integers(1, 9),
    lr=st.floats(1e-6, 10),
    beta=st.floats(0, 0.999),
    freeze=st.lists(st.sampled_from(JemStep.models[1:]), unique=True, max_size=2),
    max_steps=st.none() | st.integers(1, 9),
    name=st.text(string.ascii_letters, min_size=9, max_size=20),
)
def test_a_recipe_comes_back_from_the_mapping_that_it_writes(
    n_epochs, lr, beta, freeze, max_steps, name
):
    step = JemStep(
        name=name,
        n_epochs=n_epochs,
        objective=MaxEntropyL2Form(entropy_weight=2.0, entropy_reduction="sum"),
        freeze=tuple(freeze),
        optimizers={"network": Adam(lr=lr, betas=(beta, 0.9))},
        schedulers={"network": StepLR(step_size=3)},
        transition=Transition(mode="loss_threshold", metric="loss", threshold=lr),
        max_steps=max_steps,
    )
    recipe = Recipe(steps=(step,), divergence=Divergence(action="retry"))

    assert recipe_from_mapping(recipe.as_mapping(), "here") == recipe


def test_a_step_is_filled_up_mapping_by_mapping():
    defaults = {
        "freeze": ["a", "b"],
        "max_steps": 3,
        "optimization": {"optimizers": {"vae": {"type": "AdamW", "lr": 1, "eps": 2}}},
    }
    step = {
        "freeze": ["c"],
        "max_steps": None,
        "optimization": {"optimizers": {"vae": {"lr": 5}, "flow": {"type": "SGD", "lr": 7}}},
    }

    assert merged(defaults, step) == {
        "freeze": ["c"],
        "optimization": {
            "optimizers": {
                "vae": {"type": "AdamW", "lr": 5, "eps": 2},
                "flow": {"type": "SGD", "lr": 7},
            }
        },
    }


def test_another_type_does_not_inherit_the_options_of_the_default_s():
    default = {"vae": {"type": "AdamW", "lr": 1, "betas": [0.9, 0.9]}}

    assert merged(default, {"vae": {"type": "SGD", "lr": 2}}) == {"vae": {"type": "SGD", "lr": 2}}
    assert merged(default, {"vae": {"type": "AdamW", "lr": 2}})["vae"]["betas"] == [0.9, 0.9]


@given(defaults=MAPPINGS, step=MAPPINGS)
def test_the_step_wins_and_what_it_does_not_name_is_the_default_s(defaults, step):
    before = copy.deepcopy((defaults, step))
    result = merged(defaults, step)

    assert (defaults, step) == before
    assert None not in [value for _, value in leaves(result)]
    for name in {*defaults, *step}:
        own, default = step.get(name), defaults.get(name)
        if isinstance(own, dict):
            base = default if isinstance(default, dict) and same_type(default, own) else {}
            assert result[name] == merged(base, own)
        elif name in step:
            assert result.get(name) == own
        else:
            assert result.get(name) == (
                merged({}, default) if isinstance(default, dict) else default
            )


@given(step=MAPPINGS)
def test_filling_up_with_what_is_there_changes_nothing(step):
    alone = merged({}, step)

    assert merged(alone, {}) == alone
    assert merged(alone, alone) == alone


@given(defaults=MAPPINGS, step=MAPPINGS)
def test_every_value_of_a_filled_step_knows_where_it_was_written(defaults, step):
    document = {"defaults": defaults, "steps": [step]}
    filled = RawStep(Step, *layered(defaults, step, ("defaults",), ("steps", 0)))

    for place, value in leaves(filled.values):
        if place and not isinstance(value, dict):
            assert at(document, filled.origin(place)) == value
            assert filled.is_own(place) == (filled.origin(place)[0] == "steps")
