"""A line of what was measured, beside what is asked for."""

from typing import NamedTuple


class Bar(NamedTuple):
    """What was measured, and at least or at most what is asked for."""

    name: str
    value: float
    bound: float
    at_least: bool = True

    @property
    def met(self) -> bool:
        """Whether it is as asked for; NaN is not."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        """Write it with a mark."""
        asked = f"{'>=' if self.at_least else '<='} {self.bound:g}"
        return f"{'ok ' if self.met else 'NO '} {self.name:55} {self.value:10.3g}   {asked}"
