"""What a family does: models from streams of their own, and a file that brings them back."""

import torch
from torch import nn

from jemtrack.data.images import DataSplits, LabelledImages
from jemtrack.jem.training.family import FAMILY
from jemtrack.shared.hardware import chosen_device
from jemtrack.stages.train_args import TrainArgs
from jemtrack.train.launch import Runtime
from jemtrack.train.recipe import Recipe
from jemtrack.train.run import Training, initial_models


def made(*names):
    """Make linear maps of these names; give their weights, and what is drawn next."""
    models = initial_models({name: lambda: nn.Linear(2, 2) for name in names}, seed=3)
    return {name: model.weight for name, model in models.items()}, torch.rand(2)


def test_a_model_more_changes_no_other_and_not_what_is_drawn_later():
    alone, next_alone = made("first")
    both, next_both = made("first", "second")
    three, next_three = made("first", "third", "second")

    assert [*three] == ["first", "third", "second"]
    assert alone["first"].equal(both["first"])
    assert both["second"].equal(three["second"])
    assert not three["second"].equal(three["third"])
    assert next_alone.equal(next_both)
    assert next_alone.equal(next_three)
    # The ordinary training's network is drawn from the seed itself.
    torch.manual_seed(3)
    assert nn.Linear(2, 2).weight.equal(alone["first"])


def test_what_a_training_saves_its_family_loads(tmp_path):
    images = torch.zeros(20, 1, 8, 8, dtype=torch.uint8)
    sets = [LabelledImages(images, torch.arange(20) % 10)] * 3
    params = TrainArgs(width=1)
    training = Training(
        name="x",
        family=FAMILY,
        recipe=Recipe(steps=(params.ordinary_step(),)),
        model=params,
        settings=params,
        data=DataSplits("made-up", 10, False, 1, *sets),
        runtime=Runtime(chosen_device("auto")),
        objective=lambda models, batch: {},
    )

    training.save(tmp_path / "model.safetensors")

    saved, loaded = training.state.models, FAMILY.load(tmp_path / "model.safetensors")
    assert [*saved] == [*loaded]
    for name, weight in saved["network"].state_dict().items():
        assert loaded["network"].state_dict()[name].equal(weight)
