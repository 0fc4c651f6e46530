"""How many examples a property is tried on: few by `make test`, more by `make soak`."""

from hypothesis import settings


def at_most(n_examples: int) -> settings:
    """Return the settings of the profile in use with at most so many examples."""
    return settings(max_examples=min(n_examples, settings.default.max_examples))


def at_length(n_examples: int) -> settings:
    """Return settings with so many examples in `make soak`, and with few in `make test`."""
    is_thorough = settings.default.max_examples >= 100
    return settings(max_examples=n_examples if is_thorough else settings.default.max_examples)
