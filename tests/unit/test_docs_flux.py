"""docs/flux.md: its examples are sound, and it names all that a recipe can say."""

import re
from pathlib import Path

import pytest

from jemtrack.flux.forms import FluxSettings, FluxStep
from jemtrack.flux.networks.model_file import make_network
from jemtrack.flux.networks.shape import MODELS, FluxShape, chosen_sizes
from jemtrack.parameters import parameter_names
from jemtrack.recipe.check import checked_recipe
from jemtrack.train.recipe import Step, TrainingSettings

ROOT = Path(__file__).parents[2]
ALL_MODES = dict.fromkeys(("train_vae", "gan_training", "use_lpips", "train_diff"), True)
TEXT = (ROOT / "docs" / "flux.md").read_text()


def test_the_file_that_is_shown_has_no_problem(tmp_path):
    path = tmp_path / "shown.yaml"
    (block,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.S)
    path.write_text(block)

    assert checked_recipe(path)[1] == []


def test_the_example_among_the_recipes_has_no_problem():
    assert checked_recipe(ROOT / "recipes" / "flux_fashion.yaml")[1] == []


@pytest.mark.parametrize(
    "name",
    [
        *sorted({*parameter_names(FluxStep)} - {*parameter_names(Step)}),
        *sorted({*parameter_names(FluxSettings)} - {*parameter_names(TrainingSettings)}),
        *parameter_names(FluxShape),
        *MODELS,
        *FluxStep.optimized,
        *(FluxStep.metrics(ALL_MODES) or ()),
    ],
)
def test_every_field_model_and_metric_is_named(name):
    assert f"`{name}`" in TEXT


def rows():
    """The cells of the tables' rows, by the names in the first cell."""
    return {
        name: cells[1].strip(" `")
        for line in TEXT.splitlines()
        if (cells := line.strip("|").split("|")) and len(cells) == 3
        for name in re.findall(r"`(\w+)`", cells[0])
    }


@pytest.mark.parametrize("name", ["kl_beta", "kl_warmup_steps", "lambda_adv", "lambda_lpips",
                                  "adv_weight", "flow_time", "cfg_dropout_prob"])  # fmt: skip
def test_defaults_are_those_of_the_form(name):
    assert rows()[name] == str(FluxStep(name="a", n_epochs=1).as_mapping()[name])


@pytest.mark.parametrize("name", MODELS)
def test_the_weights_of_the_networks_are_those_that_are_told(name):
    (line,) = (
        each for each in TEXT.splitlines() if each.startswith(f"| {name.replace('_', ' ')} |")
    )
    words = tuple(f"w{number}" for number in range(40))
    told = [float(found) * {"k": 1e3, "M": 1e6}[unit]
            for found, unit in re.findall(r"([\d.]+) (k|M)\b", line.split("|")[-2])]  # fmt: skip

    for spade, count in zip((False, True), told, strict=False):
        sizes = chosen_sizes(FluxShape(), (1, 28, 28), words, MODELS, spade)
        weights = sum(each.numel() for each in make_network(name, sizes).parameters())
        assert weights == pytest.approx(count, rel=0.05 if count == 1e5 else 0.005)
