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

from jemtrack.events.events import (
    BatchEnd,
    BatchStart,
    EpochEnd,
    EpochStart,
    PhaseEnd,
    PhaseStart,
    Position,
)
from jemtrack.trackers.console import Lines, ProgressBar


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
        "test/Trainer | Phase warm-up (1/2) | Epoch 1/2 | Batch 2/3"
        " | loss 0.1667 | accuracy 0.1538 | gradient_norm.network 0.5000 | 0.250 s/batch"
    )
    assert found[-2] == (
        "test/Trainer | Phase joint (2/2) | Epoch 2/2 | Batch 3/3"
        " | train_loss 0.0357 | valid_nll 0.7854 | valid_loss nan | 0.250 s/batch"
    )
    assert found[-1] == "test/Trainer | Phase joint (2/2) | ended: 2 epochs are done"


def test_a_phase_that_ends_without_a_reason_needs_no_line(caplog):
    assert logged(caplog, [start(), *steps(1, 1), PhaseEnd(Position(), "warm-up")]) == []


def test_a_divergence_is_a_warning_that_says_where_it_was_and_where_training_goes_on(caplog):
    logged(caplog, diverged_run())

    (warning,) = [each.message for each in caplog.records if each.levelno == logging.WARNING]
    assert warning == (
        "test/Trainer | Phase joint (2/2) | diverged at epoch 1, batch 2 (loss inf): back to "
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

    assert line == f"test/Trainer | {place}"


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


def on_screen(capsys, monkeypatch, columns, events) -> list[str]:
    """The lines that a terminal of so many columns shows in the end."""
    monkeypatch.setenv("COLUMNS", str(columns))
    tell_to_end(ProgressBar(), events)
    return [line.rstrip() for line in capsys.readouterr().err.splitlines()]


def test_the_progress_bar_leaves_lines_and_ends_full(capsys, monkeypatch):
    shown = on_screen(capsys, monkeypatch, 80, whole_run())

    assert shown == [
        "test/Trainer",
        "Phase warm-up (1/2)",
        "epoch 1/2 | train_loss 0.1429",
        "epoch 2/2 | train_loss 0.0714 | valid_nll 1.5708",
        "Phase joint (2/2)",
        "epoch 1/2 | train_loss 0.0476",
        "epoch 2/2 | train_loss 0.0357 | valid_nll 0.7854",
        "━━━━━━━━━━ epoch 2/2 batch 3/3 0:00:00 loss 0.03571 nll 0.7854",
    ]


@pytest.mark.parametrize(
    ("step", "place"), [(4, "epoch 2, batch 2"), (7, "phase 2, epoch 1, batch 2")]
)
def test_the_progress_bar_says_from_where_a_run_is_resumed(capsys, monkeypatch, step, place):
    shown = on_screen(capsys, monkeypatch, 80, [start(step), *steps(step + 1, 12)])

    assert shown[:2] == ["test/Trainer", f"resumed from {place}"]
    assert shown[2].startswith("Phase ")


METRICS = {
    "train_loss": 1.508912,
    "train_cross_entropy": 1.42,
    "train_accuracy": 0.91,
    "valid_nll": 1.42591,
    "valid_accuracy": 0.97491,
}


def long_run(metrics, n_epochs=400, n_batches=800) -> list:
    """A run of one phase, of which each epoch's last batch is told."""
    epochs = [
        (
            BatchEnd(Position(0, epoch, n_batches), {"loss": 1.0}, 1),
            EpochEnd(Position(0, epoch + 1, 0), metrics, epoch + 1, 1),
        )
        for epoch in range(n_epochs)
    ]
    events = [event for both in epochs for event in both]
    return [start(), PhaseStart(Position(), "train", 1, n_epochs, n_batches), *events]


@pytest.mark.parametrize(
    ("columns", "bar", "metrics"),
    [
        (60, 10, "loss 1.509 n…"),
        (80, 10, "loss 1.509 nll 1.426 acc 0.9749"),
        (120, 40, "loss 1.509 nll 1.426 acc 0.9749"),
    ],
)
def test_bar_place_and_time_left_have_their_columns(capsys, monkeypatch, columns, bar, metrics):
    shown = on_screen(capsys, monkeypatch, columns, long_run(METRICS))

    assert shown[-1] == f"{'━' * bar} epoch 400/400 batch 800/800 0:00:00 {metrics}"
    assert all(len(line) <= columns for line in shown)


def test_many_epochs_leave_forty_lines(capsys, monkeypatch):
    shown = on_screen(capsys, monkeypatch, 80, long_run(METRICS, n_epochs=395))

    lines = [line for line in shown if line.startswith("epoch ")]
    assert len(lines) == 40
    assert lines[0] == "epoch 10/395 | train_loss 1.5089 | valid_nll 1.4259 | valid_accuracy 0.9749"
    assert lines[-1].startswith("epoch 395/395 | ")


def test_a_training_of_other_metrics_shows_its_first(capsys, monkeypatch):
    metrics = {"train_reconstruction": 2.0, "train_kl": 0.5, "valid_reconstruction": 3.0}

    shown = on_screen(capsys, monkeypatch, 80, long_run(metrics, n_epochs=1))

    assert shown[1] == "epoch 1/1 | train_reconstruction 2.0000 | train_kl 0.5000"


@pytest.mark.parametrize(
    ("events", "completed", "total"),
    [
        ([start(), *steps(1, 4)], 4, 6),
        ([start(), *steps(1, 7)], 1, 6),
        ([start(), *steps(1, 5), diverged(5, 4)], 4, 6),
        (diverged_run(), 6, 6),
        ([start(8), *steps(9, 10)], 4, 6),
        # A phase that ends early is full.
        ([start(), *steps(1, 3), PhaseEnd(Position(0, 1), "warm-up")], 3, 3),
    ],
)
def test_the_progress_bar_stands_where_training_does(events, completed, total):
    task = bar_after(events)

    assert (task.completed, task.total) == (completed, total)


def test_a_phase_that_ends_early_says_why(capsys, monkeypatch):
    events = [start(), *steps(1, 3), PhaseEnd(Position(0, 1), "warm-up", "valid_nll rises")]

    assert "ended: valid_nll rises" in on_screen(capsys, monkeypatch, 80, events)
