"""Factories: a model, its loader, trainer, evaluator and deployment from one configuration."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import jemtrack
from jemtrack.commands.main import main
from jemtrack.data.sources.fetch import fetch
from jemtrack.errors import InputError
from jemtrack.events.events import EpochEnd
from jemtrack.events.handlers import Callback
from jemtrack.factories.configuration import Configuration
from jemtrack.factories.trainer import Trainer

MODEL = Path("runs/mine/model.safetensors")


def config(n_epochs: int = 2, **step: Any) -> dict[str, Any]:
    step = {"name": "train", "n_epochs": n_epochs, "max_steps": 3, **step}
    step.setdefault("objective", {"type": "max_entropy_l2"})
    return {
        "data": {"n_valid": 100},
        "model": {"width": 1},
        "training": {"threads": 1, "n_steps": 0, "pipeline": {"steps": [step]}},
    }


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    fetch("digits", Path("data"))
    return tmp_path


class Interrupting(Callback):
    """Sends this process the signal of Ctrl-C after its first epoch, in the first run alone."""

    done = False

    def __call__(self, event: Any, state: Any) -> None:
        if isinstance(event, EpochEnd) and not type(self).done:
            type(self).done = True
            os.kill(os.getpid(), signal.SIGINT)


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return trainer.model.state_dict()


def test_it_trains_what_the_command_trains_to_the_byte():
    Path("mine.yaml").write_text(yaml.safe_dump(config()))
    assert main(["train", "--config", "mine.yaml", "--out", "runs/command"]) == 0

    trainer = jemtrack.create_trainer(jemtrack.create_model("mine.yaml"))
    metrics = trainer.fit()

    assert MODEL.read_bytes() == Path("runs/command/model.safetensors").read_bytes()
    assert metrics["valid_nll"] > 0
    loaded = jemtrack.create_model("mine.yaml", weights=MODEL)
    torch.testing.assert_close(loaded.state_dict(), weights(trainer), rtol=0, atol=0)


@pytest.mark.parametrize("same_process", [True, False])
def test_an_interrupted_training_leaves_a_checkpoint_that_is_resumed(monkeypatch, same_process):
    monkeypatch.setattr(Interrupting, "done", True)
    whole = jemtrack.create_trainer(jemtrack.create_model(config(4)), callbacks=[Interrupting()])
    whole.fit()
    start = jemtrack.create_model(config(4))
    assert any(not start.state_dict()[name].equal(each) for name, each in weights(whole).items())

    monkeypatch.setattr(Interrupting, "done", False)
    trainer = jemtrack.create_trainer(start, callbacks=[Interrupting()])
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert len([*Path(".jemtrack").rglob("*.checkpoint")]) == 1
    if not same_process:
        model = jemtrack.create_model(config(4))
        trainer = jemtrack.create_trainer(model, callbacks=[Interrupting()])
    trainer.fit()

    torch.testing.assert_close(weights(trainer), weights(whole), rtol=0, atol=0)
    epochs = Path("runs/configuration/history.csv").read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in epochs] == ["1", "2", "3", "4"]


def test_fit_continues_from_the_weights_that_the_model_has():
    trainer = jemtrack.create_trainer(jemtrack.create_model(config()))
    first, second = trainer.fit(epochs=6), trainer.fit(epochs=6)

    assert second["train_loss"] < first["train_loss"]


def test_the_seeds_training_setup_runs():
    model = jemtrack.create_model(config())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    train_loader = jemtrack.create_dataloader("train", config())
    val_loader = jemtrack.create_dataloader("valid", config())

    trainer = jemtrack.create_trainer(
        model=model,
        optimizer=optimizer,
        callbacks=[
            jemtrack.EarlyStopping(patience=10),
            jemtrack.ModelCheckpoint(save_best=True),
            jemtrack.LearningRateScheduler(),
        ],
    )
    trainer.fit(train_data=train_loader, val_data=val_loader, epochs=3)

    (step,) = trainer.configuration.file.recipe.steps
    assert step.optimizers["network"].options["momentum"] == 0.9
    assert step.schedulers["network"].type == "CosineAnnealingLR"
    best = jemtrack.create_model(
        config(), weights="runs/configuration/checkpoints/best.safetensors"
    )
    best_nll = jemtrack.create_evaluator(best).evaluate("valid")["nll"]
    lines = Path("runs/configuration/history.csv").read_text().splitlines()
    column = lines[0].split(",").index("valid_nll")
    # They are measured with the training's noise.
    assert best_nll == pytest.approx(
        min(float(row.split(",")[column]) for row in lines[1:]), rel=0.01
    )


def test_the_callbacks_act():
    stopping = jemtrack.EarlyStopping(patience=1, least_change=1e9)
    every = jemtrack.ModelCheckpoint(save_dir="weights", save_best=False)
    trainer = jemtrack.create_trainer(
        jemtrack.create_model(config()), callbacks=[stopping, every], folder="out"
    )
    trainer.fit(epochs=9)

    found = sorted(path.name for path in Path("out/weights").iterdir())
    assert found == ["epoch_001.safetensors", "epoch_002.safetensors"]


def test_images_of_ones_own_are_trained_on():
    model = jemtrack.create_model(config())
    pixels = np.zeros((40, 1, 8, 8), np.uint8)
    pixels[20:] = 255
    labels = np.repeat([3, 7], 20)
    trainer = jemtrack.create_trainer(
        model, optimizer=torch.optim.Adam(model.parameters(), lr=3e-3)
    )
    trainer.fit((pixels, labels), val_data=(pixels, labels), epochs=20)

    assert jemtrack.create_evaluator(model).evaluate((pixels, labels))["accuracy"] == 1


def test_a_loader_yields_what_a_network_takes():
    loader = jemtrack.create_dataloader("test", config())
    batches = [*loader]

    assert len(batches) == len(loader)
    images = torch.cat([images for images, _ in batches])
    assert (images.min(), images.max()) == (-1, 1)
    data = Configuration(config()).data
    assert torch.cat([labels for _, labels in batches]).equal(data.test.labels_N)


def test_an_evaluator_measures_compares_and_draws():
    model = jemtrack.create_model(config(20))
    baseline = jemtrack.create_model(config())
    jemtrack.create_trainer(model).fit()
    evaluator = jemtrack.create_evaluator(model, config())

    metrics = evaluator.evaluate(jemtrack.create_dataloader("test", config()))
    data = Configuration(config()).data
    images = data.test.images_NCHW / 127.5 - 1
    correct = model(images).argmax(1) == data.test.labels_N
    assert metrics["accuracy"] == pytest.approx(correct.double().mean().item())
    compared = evaluator.compare(baseline).pairs.set_index("measure")
    assert compared.loc["nll", "difference"] < 0
    assert compared.loc["nll", "p_corrected"] < 0.05
    drawn = evaluator.plot("plots")
    assert {path.name for path in drawn} >= {"reliability_0.svg", "confusion_0.svg"}
    assert all(path.read_text().startswith("<svg") for path in drawn)


def test_cross_validation_trains_and_tests_on_each_fold():
    evaluator = jemtrack.create_evaluator(jemtrack.create_model(config()))
    found = evaluator.cross_validate(n_folds=3)

    accuracies = []
    for number in range(3):
        configuration = Configuration(config()).of_fold(number, 3)
        path = f"runs/configuration/fold_{number}_of_3/model.safetensors"
        model = jemtrack.create_model(configuration, weights=path)
        accuracies.append(jemtrack.create_evaluator(model).evaluate()["accuracy"])
    assert found.loc["accuracy", "mean"] == pytest.approx(np.mean(accuracies))
    assert found.loc["accuracy", "n_folds"] == 3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": {"widht": 1}}, r"^configuration: model.widht"),
        ({"model": {"family": "flux"}}, r"^configuration: "),
        ({"data": {"dataset": "absent"}}, r"absent"),
        ({"deploy": {"alpha": 2}}, r"^configuration: deploy.alpha: must be"),
        ({"training": {"pipeline": {"steps": []}}}, r"training.pipeline.steps: must hold at least"),
        ({"other": 1}, r"^configuration: other"),
    ],
)
def test_a_configuration_with_a_problem_is_refused(changed, message):
    with pytest.raises(InputError, match=message):
        jemtrack.create_model({**config(), **changed})


def test_what_does_not_fit_is_refused():
    model = jemtrack.create_model(config())
    half = torch.optim.Adam([next(model.parameters())])
    with pytest.raises(InputError, match="optimizer must be of all weights of the model"):
        jemtrack.create_trainer(model, optimizer=half)
    schedule = jemtrack.LearningRateScheduler("Nothing")
    with pytest.raises(InputError, match=r"schedulers.network.type: must be a scheduler"):
        jemtrack.create_trainer(model, callbacks=[schedule])
    with pytest.raises(InputError, match="model must be one of create_model, got Linear"):
        jemtrack.create_trainer(torch.nn.Linear(1, 1), config())
    trainer = jemtrack.create_trainer(model)
    with pytest.raises(InputError, match="epochs must be >= 1"):
        trainer.fit(epochs=0)
    with pytest.raises(InputError, match=r"images must be of \(1, 8, 8\), as those of digits"):
        trainer.fit((np.zeros((2, 3, 8, 8), np.uint8), [0, 1]))
    with pytest.raises(InputError, match="labels must be 0 to 9"):
        trainer.fit((np.zeros((2, 1, 8, 8), np.uint8), [0, 10]))
    with pytest.raises(InputError, match="images must be train, valid, test, LabelledImages"):
        jemtrack.create_dataloader("training", config())
    with pytest.raises(InputError, match="call evaluate first"):
        jemtrack.create_evaluator(model).plot("plots")
    several = {**config(), "training": {**config()["training"], "processes": 2}}
    with pytest.raises(InputError, match="processes must be 1 here"):
        jemtrack.create_trainer(jemtrack.create_model(several)).fit()
