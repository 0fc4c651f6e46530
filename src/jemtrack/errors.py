"""The errors that are meant for a user to read."""

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
