import logging

import pytest
from tracked_run import (
    broken_off,
    diverged,
    diverged_run,
    start,
    steps,
    tell,
    tell_to_end,
    whole_run,
)

from jemtrack.trackers.console import Lines, ProgressBar
from jemtrack.train.events import (
    BatchEnd,
    BatchStart,
    EpochEnd,
    EpochStart,
    PhaseEnd,
    PhaseStart,
    Position,
)


def logged(caplog, events, print_every=100) -> list[str]:
    with caplog.at_level(logging.INFO, logger="jemtrack"):
        tell_to_end(Lines(print_every=print_every), events)
    return caplog.messages


@pytest.mark.parametrize(("every", "n_lines"), [(1, 16), (2, 8), (100, 4)])
def test_lines_come_every_so_many_batches_and_each_epoch(caplog, every, n_lines):
    found = [line for line in logged(caplog, whole_run(), every) if "s/batch" in line]

    assert len(found) == n_lines


def test_a_line_says_where_the_run_stands(caplog):
    found = logged(caplog, whole_run(), print_every=2)

    assert found[0] == (
        "test/Trainer | Step warm-up (1/2) | Epoch 1/2 | Batch 2/3"
        " | loss 0.1667 | accuracy 0.1538 | gradient_norm.network 0.5000 | 0.250 s/batch"
    )
    assert found[-2] == (
        "test/Trainer | Step joint (2/2) | Epoch 2/2 | Batch 3/3"
        " | train_loss 0.0357 | valid_nll 0.7854 | valid_loss nan | 0.250 s/batch"
    )
    assert found[-1] == "test/Trainer | Step joint (2/2) | ended: 2 epochs are done"


def test_a_phase_that_ends_without_a_reason_needs_no_line(caplog):
    assert logged(caplog, [start(), *steps(1, 1), PhaseEnd(Position(), "warm-up")]) == []


def test_a_divergence_is_a_warning_that_says_where_it_was_and_where_training_goes_on(caplog):
    logged(caplog, diverged_run())

    (warning,) = [each.message for each in caplog.records if each.levelno == logging.WARNING]
    assert warning == (
        "test/Trainer | Step joint (2/2) | diverged at epoch 1, batch 2 (loss inf): back to "
        "epoch 2, batch 3 with 0.5 times the learning rates (return 1)"
    )


def test_what_failed_has_no_line_of_metrics(caplog):
    found = logged(caplog, broken_off(4), print_every=1)

    assert len([line for line in found if "s/batch" in line]) == 5
    assert found[-1].endswith("ended: ValueError: no")


def unmeasured(n_epochs, with_batch) -> list:
    """A loop of one epoch that does not say how long it is, nor how many batches it has."""
    batch = [BatchStart(Position()), BatchEnd(Position(0, 0, 1), {"loss": 1.0}, 1, 0.5)]
    return [
        start(),
        PhaseStart(Position(), "train", 1, n_epochs, 0),
        EpochStart(Position()),
        *(batch if with_batch else []),
        EpochEnd(Position(0, 1, 0), {"train_loss": 1.0}, 1, 1),
    ]


@pytest.mark.parametrize(
    ("n_epochs", "with_batch", "place"),
    [
        (0, True, "Epoch 1 | Batch 1 | train_loss 1.0000 | 0.500 s/batch"),
        (4, False, "Epoch 1/4 | train_loss 1.0000"),
    ],
)
def test_a_line_says_what_is_known_of_a_loop(caplog, n_epochs, with_batch, place):
    (line,) = logged(caplog, unmeasured(n_epochs, with_batch))

    assert line == f"test/Trainer | Step train (1/1) | {place}"


@pytest.mark.parametrize("with_batch", [True, False])
def test_the_progress_bar_counts_epochs_where_batches_are_not_known(with_batch):
    known, unknown = (bar_after(unmeasured(n_epochs, with_batch)) for n_epochs in (4, 0))

    assert (known.completed, known.total) == (1, 4)
    assert (unknown.completed, unknown.total) == (1, None)


def bar_after(events):
    bar = ProgressBar()
    tell(bar, events)
    task = bar._bar.tasks[0]
    bar.close()
    return task


def test_the_progress_bar_ends_full(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")

    tell_to_end(ProgressBar(), whole_run())

    shown = capsys.readouterr().err
    assert "test/Trainer step 2/2" in shown
    assert "12/12" in shown
    assert "epoch 4 | train_loss 0.0357" in shown


@pytest.mark.parametrize(
    ("events", "completed", "total"),
    [
        ([start(), *steps(1, 4)], 4, 6),
        ([start(), *steps(1, 7)], 7, 12),
        ([start(), *steps(1, 7), diverged(7, 5)], 5, 12),
        (diverged_run(), 12, 12),
        # Of phases that were done in an earlier session, the bar knows nothing.
        ([start(8), *steps(9, 10)], 4, 6),
        # A phase that ends early counts with what it did.
        ([start(), *steps(1, 3), PhaseEnd(Position(0, 1), "warm-up"), *steps(7, 8)], 5, 9),
    ],
)
def test_the_progress_bar_stands_where_training_does(events, completed, total):
    task = bar_after(events)

    assert (task.completed, task.total) == (completed, total)
