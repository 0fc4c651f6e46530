"""What a family says of its recipes is what its code does."""

import dataclasses

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from jemtrack.data.images import LabelledImages
from jemtrack.flux.forms import FluxStep
from jemtrack.jem.networks.energy_model import JointEnergyModel
from jemtrack.jem.networks.inference import Predictions, validation_metrics
from jemtrack.jem.networks.shape import NetworkShape, WideResNetShape
from jemtrack.jem.objectives.max_entropy_l1 import MaxEntropyL1Objective
from jemtrack.jem.training.batches import Batch
from jemtrack.jem.training.forms import (
    OBJECTIVES,
    BatchArgs,
    JemSettings,
    JemStep,
    choose_objective,
)
from jemtrack.parameters import parameter_names
from jemtrack.recipe import read as recipes
from jemtrack.recipe.read import RawStep
from jemtrack.stages.prepare_data import DataArgs
from jemtrack.stages.train_args import TrainArgs
from jemtrack.train.recipe import smallest_parts


def form(cls, name):
    """The type, bounds and default of a field, as pydantic describes them."""
    described = TypeAdapter(cls).json_schema()["properties"][name]
    return {key: value for key, value in described.items() if key != "title"}


def bounds(cls, name):
    """The type and bounds of a field; its default is the maker's own concern."""
    return {key: value for key, value in form(cls, name).items() if key != "default"}


def test_the_families_are_listed_by_the_names_that_they_have():
    assert {name: family.name for name, family in recipes.families().items()} == {
        "jem": "jem",
        "flux": "flux",
        "invae": "invae",
    }


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_an_objective_takes_the_options_and_emits_the_metrics_that_are_promised(kind):
    listed = OBJECTIVES[kind]
    objective = listed().build()
    network = JointEnergyModel(nn.Flatten(), n_features=4, n_classes=3)
    batch = Batch(torch.randn(6, 4, 1, 1), torch.tensor([0, 1, 2, 0, 1, 2]))

    trained = objective
    if hasattr(objective, "begin"):
        images = LabelledImages(torch.zeros(3, 4, 1, 1, dtype=torch.uint8), torch.arange(3))
        trained = objective.begin(images, n_classes=3, batch_size=6, n_steps=1, seed=1)
    assert (*trained({"network": network}, batch),) == listed.metrics
    assert {"type": kind, **dataclasses.asdict(objective)} == dataclasses.asdict(listed())


def test_an_objective_is_built_with_its_options():
    chosen = {"type": "max_entropy_l1", "entropy_weight": 3.0, "entropy_reduction": "sum"}

    made = choose_objective(chosen).build()
    path = f"{MaxEntropyL1Objective.__module__}.MaxEntropyL1Objective"
    own = choose_objective({**chosen, "type": path}).build()

    assert made == own == MaxEntropyL1Objective(entropy_weight=3.0, entropy_reduction="sum")


def test_an_epoch_s_metrics_and_the_models_are_those_of_the_code():
    measured = validation_metrics(
        Predictions(torch.zeros(2, 3), torch.zeros(2)), torch.zeros(2).long()
    )
    network = JointEnergyModel(nn.Flatten(), n_features=4, n_classes=3)

    assert (*measured,) == JemStep.validation_metrics({})
    for name in JemStep.models:
        assert {"network": network}[name.partition(".")[0]].get_submodule(name.partition(".")[2])
    parts = {part.partition(".")[2] for part in smallest_parts(JemStep.models, "network")}
    assert parts == {name for name, _ in network.named_children()}


OF_GRAPHS = {"n_folds", "fold"}  # a cross-validation is several stages


@pytest.mark.parametrize("name", sorted({*parameter_names(DataArgs)} - OF_GRAPHS))
def test_a_file_s_data_settings_are_those_of_the_stage(name):
    assert form(recipes.DataSettings, name) == form(DataArgs, name)


@pytest.mark.parametrize("name", parameter_names(NetworkShape))
def test_a_file_s_network_is_that_of_the_trainers(name):
    assert form(NetworkShape, name) == form(TrainArgs, name)
    assert bounds(WideResNetShape, name) == bounds(NetworkShape, name)


@pytest.mark.parametrize("name", parameter_names(BatchArgs))
def test_a_file_s_training_settings_are_those_of_the_trainers(name):
    assert form(JemSettings, name) == form(TrainArgs, name)


@pytest.mark.parametrize(
    ("freeze", "unfreeze", "optimizer", "wholly"),
    [
        (("network",), (), "network.trunk", True),
        (("network.trunk",), (), "network", False),
        (("network.trunk", "network.class_head", "network.energy_head"), (), "network", True),
        (("network",), ("network.class_head",), "network", False),
        (("network",), ("network.class_head",), "network.energy_head", True),
    ],
)
def test_what_is_left_to_train_is_counted_by_parts(freeze, unfreeze, optimizer, wholly):
    step = RawStep(JemStep, {"freeze": [*freeze], "unfreeze": [*unfreeze]}, {(): ()})

    assert step.is_frozen(optimizer) is wholly


def test_an_optimizer_for_several_models_is_idle_only_when_all_are_frozen():
    for freeze, wholly in ((["compressor"], False), (["compressor", "expander"], True)):
        assert RawStep(FluxStep, {"freeze": freeze}, {(): ()}).is_frozen("vae") is wholly


@pytest.mark.parametrize(
    ("modes", "metrics", "trained"),
    [
        ({"train_vae": True}, ("loss", "vae_loss", "kl_loss"), ("vae",)),
        (
            {"train_vae": True, "gan_training": True, "use_lpips": True},
            ("loss", "vae_loss", "kl_loss", "g_loss", "d_loss", "lpips_loss"),
            ("vae", "discriminator"),
        ),
        (
            {"gan_training": True},
            ("loss", "kl_loss", "g_loss", "d_loss"),
            ("vae", "discriminator"),
        ),
        ({"train_diff": True}, ("loss", "flow_loss"), ("flow",)),
        ({"train_diff_full": True}, ("loss", "flow_loss"), ("flow", "text_encoder")),
    ],
)
def test_a_mode_has_its_metrics_and_optimizers(modes, metrics, trained):
    assert FluxStep.metrics(modes) == metrics
    assert FluxStep.trained(modes) == trained
    assert [*FluxStep.own_problems(modes)] == []


@pytest.mark.parametrize("modes", [{}, {"train_spade": True}, {"use_lpips": True}])
def test_a_step_without_a_mode_trains_nothing(modes):
    (problem,) = FluxStep.own_problems(modes)

    assert "at least one of train_vae" in problem.message


@pytest.mark.parametrize(
    ("modes", "freeze", "mode"),
    [
        ({"train_vae": True}, ["compressor", "expander"], "train_vae"),
        ({"train_vae": True, "gan_training": True}, ["discriminator"], "gan_training"),
        ({"train_diff": True, "train_vae": True}, ["flow_processor"], "train_diff"),
    ],
)
def test_a_mode_of_which_all_is_frozen_has_nothing_to_train(modes, freeze, mode):
    (problem,) = FluxStep.own_problems({**modes, "freeze": freeze})

    assert problem.place == (mode,)
    assert problem.message.endswith(f"{freeze[-1]}, but all of it is frozen")
    assert [*FluxStep.own_problems({**modes, "freeze": freeze, "unfreeze": freeze})] == []
    assert [*FluxStep.own_problems({**modes, "freeze": ["compressor", "text_encoder"]})] == []


def test_an_optimizer_of_what_a_step_does_not_train_is_a_default_that_it_leaves_out():
    optimizers = {name: {"type": "Adam", "lr": 1.0} for name in ("vae", "flow", "text_encoder")}
    values = {"name": "a", "n_epochs": 1, "optimization": {"optimizers": optimizers}}
    used = {
        mode: {*RawStep(FluxStep, {**values, mode: True}, {(): ()}).build().optimizers}
        for mode in ("train_vae", "train_diff", "train_diff_full")
    }

    assert used == {
        "train_vae": {"vae"},
        "train_diff": {"flow"},
        "train_diff_full": {"flow", "text_encoder"},
    }


def test_of_a_mode_that_is_no_switch_nothing_is_concluded():
    assert FluxStep.metrics({"train_vae": 3}) is FluxStep.trained({"train_vae": 3}) is None
    assert [*FluxStep.own_problems({"train_vae": 3})] == []
