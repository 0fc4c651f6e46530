"""The errors that are meant for a user to read."""

import signal
from collections.abc import Mapping


class InputError(ValueError):
    """Something that the user gave is wrong; the message says what, where and what is right."""


class ParameterError(InputError):
    """A parameter does not fit the data; the message begins with the parameter's name."""


class TrainingDivergedError(RuntimeError):
    """A loss or gradient is not finite or too large; `losses` are those of the batch."""

    def __init__(self, message: str, losses: Mapping[str, float] | None = None) -> None:
        super().__init__(message)
        self.losses = {**(losses or {})}


class Interrupted(KeyboardInterrupt):
    """Training was asked to end by the signal `number`; the last batch was finished first."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number


def exit_status(interrupt: KeyboardInterrupt) -> int:
    """Give the status with which a process ends that a signal interrupted, as a shell has it."""
    return 128 + (interrupt.number if isinstance(interrupt, Interrupted) else signal.SIGINT)
