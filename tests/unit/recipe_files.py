"""Recipe files for tests, and a way to write and check one."""

import textwrap
from pathlib import Path

from jemtrack.errors import InputError
from jemtrack.jem.training.forms import JemStep
from jemtrack.recipe.check import checked_recipe, load_recipe, mapping_problems
from jemtrack.recipe.read import RawRecipe, RecipeFile
from jemtrack.train.recipe import Recipe

WARM_UP = """\
data: {dataset: digits, n_valid: 100}
model: {family: jem, depth: 10, width: 1}
training:
  batch_size: 64
  workers: 2
  divergence: {action: retry, lr_factor: 0.5}
  pipeline:
    defaults:
      objective: {type: cross_entropy}
      freeze: [network.energy_head]
      optimization:
        optimizers:
          network: {type: AdamW, lr: 1e-3, betas: [0.9, 0.95]}
        schedulers:
          network: {type: CosineAnnealingLR, eta_min_factor: 0.1}
    steps:
      - name: warm_up
        n_epochs: 2
      - name: joint
        n_epochs: 3
        max_steps: 5
        objective: {type: max_entropy_l1, entropy_weight: 0.5}
        optimization:
          optimizers:
            network: {type: SGD, lr: 0.1, momentum: 0.9, clip_norm: 2.0}
          schedulers:
            network: {type: ReduceLROnPlateau, metric: valid_nll, patience: 1}
        transition_on: {mode: loss_threshold, metric: cross_entropy, threshold: 0.05, max_epochs: 9}
      - name: head
        n_epochs: 1
        freeze: [network]
        unfreeze: [network.class_head]
trackers:
  - {type: history, path: history.csv}
"""

# The published pipelines, the shortest and the complete one, and one that says all it can.
FLUX_SHORT = """\
training:
  pipeline:
    steps:
      - name: "vae_warmup"
        n_epochs: 10
        train_vae: true
        gan_training: false

      - name: "vae_gan"
        n_epochs: 20
        train_vae: true
        gan_training: true
"""

FLUX_COMPLETE = """\
training:
  batch_size: 2
  workers: 1

  pipeline:
    steps:
      - name: "vae_only"
        n_epochs: 2
        max_steps: 2              # a quick look
        train_vae: true
        gan_training: false
        freeze:
          - flow_processor
          - text_encoder
        optimization:
          optimizers:
            vae:
              type: "AdamW"
              lr: 0.0001
        transition_on:
          mode: "epoch"

      - name: "vae_gan"
        n_epochs: 2
        max_steps: 2
        train_vae: true
        gan_training: true
        freeze:
          - flow_processor
          - text_encoder
        optimization:
          optimizers:
            vae:
              type: "AdamW"
              lr: 0.00005
            discriminator:
              type: "AdamW"
              lr: 0.00005
        transition_on:
          mode: "epoch"
"""

_BY_EPOCH = """\
        transition_on:
          mode: "epoch"
"""

FLUX_TWO_STEPS = (
    FLUX_COMPLETE.removesuffix(_BY_EPOCH)
    + """\
          schedulers:
            vae: {type: "CosineAnnealingLR", eta_min_factor: 0.1}
            discriminator: {type: "StepLR", step_size: 10, gamma: 0.5}
        transition_on:
          mode: "loss_threshold"
          metric: "vae_loss"
          threshold: 0.05
          max_epochs: 50
"""
)

TEN_FAULTS = """\
data:
  n_valid: -3
modle: {}
training:
  batch_size: 64
  batch_size: 32
  pipeline:
    defaults:
      optimization:
        optimizers:
          vae: {type: AdmaW, lr: 0.1}
    steps:
      - name: first
        n_epochs: many
        train_vae: true
      - name: first
        n_epochs: 2
        train_vae: false
      - n_epochs: 2
        gan_training: true
        freeze: [compresser]
        transition_on:
          mode: loss_threshold
          metric: kl_los
          threshold: 0.1
"""


def problems_of(folder: Path, text: str) -> list[str]:
    """Write a file and give its problems as they are printed."""
    path = folder / "recipe.yaml"
    path.write_text(textwrap.dedent(text))
    return [str(problem) for problem in checked_recipe(path)[1]]


def recipe_file(folder: Path, text: str) -> RecipeFile:
    """Write a file that is sound and read it."""
    assert problems_of(folder, text) == []
    return load_recipe(folder / "recipe.yaml")


def recipe_from_mapping(mapping, where: str) -> Recipe:
    """Give the recipe of JEM that a mapping describes, or raise with its problems."""
    raw = RawRecipe(mapping, JemStep)
    if problems := mapping_problems(raw, where):
        raise InputError("\n".join(problems))
    return raw.build()


def steps_file(*steps: str, defaults: str = "{}") -> str:
    """Write a file of the steps and defaults given, each in a line: defaults 4, steps from 6."""
    lines = [f"      - {step}" for step in steps]
    head = ["model: {family: jem}", "training:", "  pipeline:", f"    defaults: {defaults}"]
    return "\n".join([*head, "    steps:", *lines, ""])
