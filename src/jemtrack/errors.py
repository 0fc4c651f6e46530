"""The errors that are meant for a user to read."""


class InputError(ValueError):
    """Something that the user gave is wrong; the message says what, where and what is right."""


class ParameterError(InputError):
    """A parameter does not fit the data; the message begins with the parameter's name."""


class TrainingDivergedError(RuntimeError):
    """The loss is not finite any more."""
