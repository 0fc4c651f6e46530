"""The training of inVAE: its batches, warm-up, validation, files, and a run that was broken off."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from cells import SMALL, network, some_cells, some_splits, training
from safetensors.torch import load_file, save_file

from jemtrack.data.cells.cells import Vocabulary
from jemtrack.errors import InputError, ParameterError
from jemtrack.events.events import BatchEnd, EpochEnd
from jemtrack.events.handlers import Callback
from jemtrack.invae import model_file
from jemtrack.invae.batches import CellBatches
from jemtrack.invae.family import FAMILY
from jemtrack.invae.model_file import load_model, load_weights_into
from jemtrack.invae.objective import NegativeElbo
from jemtrack.invae.options import KLOptions
from jemtrack.recipe.read import families
from jemtrack.shared.serialization import to_bytes
from jemtrack.stages.train_invae import InVAEArgs
from jemtrack.stages.training_args import trainer_recipe
from jemtrack.train.checkpoint import Checkpoints

CPU = torch.device("cpu")


class BreakOff(Callback):
    """Ends the process of a training, as a kill would, in a step."""

    def _post_init_(self):
        self.step = 0

    def __call__(self, event, state):
        if isinstance(event, BatchEnd) and state.step == self.step:
            raise SystemExit


def test_a_batch_is_a_function_of_seed_epoch_and_number():
    batches = CellBatches(some_cells(67), 32, 5, CPU)
    whole = list(batches.epoch(3))

    assert [len(batch.condition.labels_B) for batch in whole] == [23, 22, 22]
    # No cell is left out, and none is seen twice.
    values = torch.cat([batch.counts.totals_B for batch in whole]).sort().values
    expected = torch.from_numpy(some_cells(67).counts_NG.sum(axis=1).A1).float()
    assert values.equal(expected.clamp_min(1).sort().values)
    again = list(CellBatches(some_cells(67), 32, 5, CPU).epoch(3, start=1))
    assert to_bytes([dataclasses.astuple(b.counts) for b in whole[1:]]) == to_bytes(
        [dataclasses.astuple(b.counts) for b in again]
    )
    assert [batch.seed for batch in whole[1:]] == [batch.seed for batch in again]
    (retried, *_) = batches.epoch(3, retry=1)
    assert retried.seed != whole[0].seed
    assert retried.counts.values_M.equal(whole[0].counts.values_M)


def test_no_batch_has_a_single_cell():
    batches = CellBatches(some_cells(65), 32, 5, CPU)

    assert [len(batch.condition.labels_B) for batch in batches.epoch(0)] == [22, 22, 21]


def test_the_divergence_warms_up_by_the_steps_before_a_batch():
    objective = NegativeElbo(KLOptions(kl_start=0.2, kl_weight=1.2), warmup_steps=10)
    models = {"network": network(dropout=0.0)}
    (batch, *_) = CellBatches(some_cells(), 32, 1, CPU).epoch(0)

    assert [objective.weight(step) for step in (0, 5, 10, 99)] == [0.2, 0.7, 1.2, 1.2]
    assert NegativeElbo(KLOptions(kl_weight=3.0, kl_warmup_epochs=0)).weight(0) == 3.0
    losses = objective(models, dataclasses.replace(batch, step=5))
    kl = losses["kl_i"] + losses["kl_s"]
    torch.testing.assert_close(losses["loss"], 0.7 * kl - losses["reconstruction"])


def test_divergence_below_the_free_bits_costs_nothing_and_has_no_gradient():
    of = network(dropout=0.0)
    (batch, *_) = CellBatches(some_cells(), 32, 1, CPU).epoch(0)
    objective = NegativeElbo(KLOptions(free_bits=1e4, kl_weight=1.0))

    losses = objective({"network": of}, batch)
    losses["loss"].backward()

    torch.testing.assert_close(losses["loss"], 1e4 - losses["reconstruction"])
    assert all(weight.grad is None or not weight.grad.any() for weight in of.prior.parameters())


def test_a_training_is_validated_by_the_bound_at_full_weight():
    """Else early epochs, of a small weight, would be the best ones (S11)."""
    light, full = (
        training(some_splits(), kl_weight=weight, kl_warmup_epochs=0) for weight in (1e-3, 1.0)
    )
    measured = [
        made.phases[0].validation.measure(made.state.models)["valid_loss"] for made in (light, full)
    ]

    assert measured[0] == measured[1]
    assert light.phases[0].objective.weight(9) == 1e-3


class Losses(Callback):
    """Notes the loss of the validation cells in each epoch."""

    def _post_init_(self):
        self.found = []

    def __call__(self, event, state):
        if isinstance(event, EpochEnd):
            self.found.append(event.metrics["valid_loss"])


def test_a_recipe_keeps_the_weights_of_the_best_bound(tmp_path: Path):
    """The best epoch is judged at full weight, though that of training rises (S11)."""
    callbacks = [{"type": "best_weights", "metric": "valid_loss", "restore": True}]
    # Twelve cells are soon learned by heart: a later epoch is worse than an earlier one.
    params = InVAEArgs(**{**SMALL, "n_epochs": 60, "kl_warmup_epochs": 6, "lr": 0.02})
    recipe = trainer_recipe({"callbacks": callbacks}, params, None, "recipe")
    made = dataclasses.replace(training(some_splits(12)), recipe=recipe, folder=tmp_path)
    made.callbacks = [losses := Losses()]

    metrics = made.train((), None)

    assert metrics["valid_loss"] == min(losses.found) < losses.found[-1]
    measured = made.phases[0].validation.measure(made.state.models)
    assert measured["valid_loss"] == min(losses.found)


@pytest.mark.parametrize("step", [1, 4])
def test_a_training_that_was_broken_off_ends_with_the_same_bytes(tmp_path: Path, step):
    def made(name, killed_in=0):
        of = training(some_splits(unlabelled=9), n_epochs=3, dropout=0.3)
        of.callbacks = [killer := BreakOff()]
        killer.step = killed_in
        of.train((), Checkpoints(tmp_path / name, every_steps=2))
        return of

    whole = made("whole")
    with pytest.raises(SystemExit):
        made("broken", killed_in=step)
    resumed = made("broken")

    for each in (whole, resumed):
        each.save(tmp_path / f"{id(each)}.safetensors")
    saved = [(tmp_path / f"{id(each)}.safetensors").read_bytes() for each in (whole, resumed)]
    assert saved[0] == saved[1]


def test_a_model_file_brings_back_the_network_and_its_names(tmp_path: Path):
    made = training(some_splits(), likelihood="zinb", dispersion="gene_batch")
    made.save(path := tmp_path / "model.safetensors")

    network, vocabulary, notes = load_model(path)

    assert vocabulary == some_splits().vocabulary
    assert notes == {"dataset": "made-up"}
    own = made.state.models["network"]
    assert to_bytes(network.state_dict()) == to_bytes(own.state_dict())
    assert not network.training
    assert [*FAMILY.load(path)] == ["network"]


def damage(path: Path, text: str) -> None:
    """Replace the shape in a model file's header by one that its weights do not have."""
    weights = load_file(path)
    names, shape = some_splits().vocabulary._asdict(), dataclasses.asdict(network().shape)
    if text == "shape":
        shape["hidden"] = 9
    if text == "large":
        shape["hidden"] = 10**7
    if text == "nameless":
        names.pop("genes")
    if text == "type":
        weights["decoder.logits.bias"] = weights["decoder.logits.bias"].double()
    if text == "nan":
        weights["decoder.logits.bias"][0] = torch.nan
    header = {"shape": {**shape, **names}, "metadata": {}}
    save_file(weights, path, {"jemtrack": json.dumps(header)} if text else None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shape", "do not fit its own shape"),
        ("type", r"do not fit its own shape \(decoder.logits.bias\)"),
        ("large", "shape.hidden must be smaller, got 10000000: it takes at least"),
        ("nameless", "shape.genes"),
        ("nan", "must be finite, and decoder.logits.bias is not"),
        ("", "is a safetensors file, but not a jemtrack model"),
    ],
)
def test_a_model_file_that_is_none_is_refused(tmp_path: Path, text, message):
    training(some_splits()).save(path := tmp_path / "model.safetensors")
    damage(path, text)

    with pytest.raises(InputError, match=message):
        load_model(path)


def test_training_starts_from_a_model_of_these_cells_alone(tmp_path: Path):
    training(some_splits()).save(path := tmp_path / "model.safetensors")
    others = Vocabulary(("other",) * 30, ("b1", "b2"), ("t1", "t2", "t3"))

    with pytest.raises(InputError, match="of other cells: the genes are others"):
        load_weights_into(network(), others, path)
    with pytest.raises(InputError, match="hidden is 8 in the file, 9 here"):
        load_weights_into(network(hidden=9), some_splits().vocabulary, path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"processes": 2}, "processes must be 1"),
        ({"batch_size": 1}, "norm must be layer or none"),
        ({"label_dropout": 0.5}, "label_dropout must be 0 without labels_in_encoder"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    made = training(some_splits())
    settings = dataclasses.replace(made.settings, **options)

    with pytest.raises(ParameterError, match=message):
        FAMILY.check_data(settings, settings, some_splits())


def test_cells_whose_batches_are_of_one_cell_or_that_are_none_are_refused():
    settings = training(some_splits()).settings
    in_twos = dataclasses.replace(settings, batch_size=2)
    # Five cells in batches of two at most: 2, 2 and 1.
    with pytest.raises(ParameterError, match=r"got 'batch'; there are 5 .* at most 2 \(batch_size"):
        FAMILY.check_data(in_twos, in_twos, some_splits(5))
    FAMILY.check_data(in_twos, in_twos, some_splits(6))
    without = dataclasses.replace(in_twos, norm="none")
    FAMILY.check_data(without, without, some_splits(5))
    with pytest.raises(InputError, match="'made-up' has no training cells"):
        FAMILY.check_data(without, without, some_splits(0))


def test_all_weights_count_in_the_memory_that_a_network_takes(monkeypatch):
    sizes = {}
    for likelihood in ("nb", "zinb"):
        of = network(likelihood=likelihood)
        monkeypatch.setattr(model_file, "check_memory", lambda *args: sizes.update(last=args))
        before = torch.get_rng_state()
        model_file._without_weights(of.shape, some_splits().vocabulary)
        n_weights = sum(weight.numel() for weight in of.parameters())
        assert sizes["last"] == ("hidden", 8, 4 * n_weights)
        assert torch.get_rng_state().equal(before)


def test_a_recipe_can_be_one_of_the_family():
    assert families()["invae"] is FAMILY
    assert FAMILY.note
