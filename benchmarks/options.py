"""The options of `jemtrack bench`; this module does not import torch."""

from collections.abc import Mapping
from typing import Any, Literal

from jemtrack.errors import InputError
from jemtrack.parameters import AtLeastOne, parameter_names, parameters, value_problems


@parameters
class BenchOptions:
    """The options of `jemtrack bench`.

    Attributes:
        rows: names of the rows to measure; empty: all.
        precision: of jemtrack's side; None: fp32, and bf16-mixed if the device supports it.
        threads: CPU threads of both sides.
        turns: timed turns of each side; None: the default of the row.
        images: training images of the row `stage`; None: all if the row is named, else some.
        epochs: epochs of the row `stage`; None: its default.
        profile: print the top costs of a step instead of timing.
        tiny: use small networks and images, to test the command itself.
    """

    rows: tuple[str, ...] = ()
    precision: Literal["fp32", "bf16-mixed", "both"] | None = None
    threads: AtLeastOne = 2
    turns: AtLeastOne | None = None
    images: AtLeastOne | None = None
    epochs: AtLeastOne | None = None
    profile: bool = False
    tiny: bool = False


def bench_options(given: Mapping[str, Any]) -> BenchOptions:
    """Build the options from the arguments of the command line; None means the default.

    Raises:
        InputError: with a line for each value that does not fit.
    """
    names = parameter_names(BenchOptions)
    values = {name: given[name] for name in names if given.get(name) is not None}
    values["rows"] = tuple(values.get("rows", ()))
    if found := value_problems(BenchOptions, values):
        raise InputError("\n".join(f"--{path[0]} {message}" for path, message in found))
    return BenchOptions(**values)
