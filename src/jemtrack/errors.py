"""The errors whose messages are meant for users, and the exit status after a signal."""

import shutil
import signal
from collections.abc import Mapping


class InputError(ValueError):
    """An input of the user has a problem; the message tells what, where, and what to change."""


class ParameterError(InputError):
    """A parameter does not fit the data or the hardware; the message begins with its name."""


class TrainingDivergedError(RuntimeError):
    """The loss or a gradient is not finite, or the loss is too large; `losses` are the batch's."""

    def __init__(self, message: str, losses: Mapping[str, float] | None = None) -> None:
        super().__init__(message)
        self.losses = {**(losses or {})}


class Interrupted(KeyboardInterrupt):
    """The signal `number` ended the training."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[int]]:
        """Pickle the number: another process may raise what this one was ended by."""
        return type(self), (self.number,)


def exit_status(interrupt: KeyboardInterrupt) -> int:
    """Return the exit status of an interrupted process: 128 plus the signal, as in shells."""
    return 128 + (interrupt.number if isinstance(interrupt, Interrupted) else signal.SIGINT)


def problem_text(error: Exception) -> str:
    """Describe an error to a user; of one that the system reports, with the path it is about."""
    if isinstance(error, shutil.Error):  # of the files of a folder, each with its error
        path, _, text = error.args[0][0]
        return f"{path}: {text}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)
