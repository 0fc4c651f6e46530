import logging

import pandas as pd
import pytest

from jemtrack.engine.events import (
    BatchEnd,
    EpochEnd,
    EpochStart,
    PhaseStart,
    Position,
    RunEnd,
    Status,
)
from jemtrack.engine.events import RunStart as Start
from jemtrack.trackers.console import Lines, ProgressBar
from jemtrack.trackers.history import HistoryCsv
from jemtrack.trackers.run_log import run_log
from jemtrack.trackers.weights import PeriodicWeights

RUN = [
    Start("test/Trainer", {}),
    PhaseStart(Position(), "train", n_phases=1, n_epochs=2, n_batches=2),
    EpochStart(Position()),
    BatchEnd(Position(0, 0, 1), {"loss": 4.0}, step=1),
    BatchEnd(Position(0, 0, 2), {"loss": 2.0}, step=2),
    EpochEnd(Position(0, 1, 0), {"train_loss": 3.0}, epoch=1, step=2),
    EpochStart(Position(0, 1, 0)),
    BatchEnd(Position(0, 1, 1), {"loss": 1.0}, step=3),
    BatchEnd(Position(0, 1, 2), {"loss": 0.5}, step=4),
    EpochEnd(Position(0, 2, 0), {"train_loss": 0.75, "valid_nll": 0.6}, epoch=2, step=4),
    RunEnd(Status.SUCCESS, {"train_loss": 0.75, "valid_nll": 0.6}),
]


def tell(listener, events=RUN) -> None:
    for event in events:
        listener(event)
    listener.close()


def test_history_has_a_row_an_epoch_and_a_final_row(tmp_path):
    path = tmp_path / "new" / "history.csv"

    tell(HistoryCsv(path=str(path)))

    table = pd.read_csv(path)
    assert table["row"].tolist() == ["epoch", "epoch", "final"]
    assert table["epoch"].tolist() == [1, 2, 2]
    assert table["train_loss"].tolist() == [3.0, 0.75, 0.75]
    assert table["valid_nll"].isna().tolist() == [True, False, False]


def test_history_of_a_failed_run_has_no_final_row(tmp_path):
    path = tmp_path / "history.csv"

    tell(HistoryCsv(path=str(path)), [*RUN[:6], RunEnd(Status.FAILED, {"train_loss": 3.0})])

    assert pd.read_csv(path)["row"].tolist() == ["epoch"]


@pytest.mark.parametrize(("every", "n_lines"), [(1, 6), (2, 4), (100, 2)])
def test_lines_come_every_so_many_batches_and_each_epoch(caplog, every, n_lines):
    with caplog.at_level(logging.INFO, logger="jemtrack"):
        tell(Lines(print_every=every))

    assert len(caplog.messages) == n_lines
    assert caplog.messages[-1].startswith(
        "test/Trainer | Step train (1/1) | Epoch 2/2 | Batch 2/2 | "
        "train_loss 0.7500 | valid_nll 0.6000 | "
    )


def test_the_progress_bar_ends_full(capsys):
    tell(ProgressBar())

    shown = capsys.readouterr().err
    assert "test/Trainer" in shown
    assert "4/4" in shown
    assert "valid_nll 0.6000" in shown


@pytest.mark.parametrize(("every", "saved"), [(1, [1, 2]), (2, [2]), (3, [])])
def test_weights_are_saved_every_so_many_epochs(tmp_path, every, saved):
    paths = []

    tell(PeriodicWeights(paths.append, tmp_path, every))

    assert paths == [tmp_path / f"epoch_{epoch:03d}.safetensors" for epoch in saved]


def test_the_log_goes_to_the_file_and_to_the_screen(tmp_path, capsys):
    path = tmp_path / "new" / "train.log"

    with run_log(path, on_screen=True):
        logging.getLogger("jemtrack").info("a line")
    logging.getLogger("jemtrack").info("after the run")

    assert path.read_text().endswith("] a line\n")
    assert capsys.readouterr().err == path.read_text()
