"""How many examples a property is tried on: few by `make test`, more by `make soak`."""

from hypothesis import settings


def at_most(n_examples: int) -> settings:
    """Return the settings of the profile in use with at most so many examples."""
    return settings(max_examples=min(n_examples, settings.default.max_examples))
