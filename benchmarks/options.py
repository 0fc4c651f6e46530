"""What `jemtrack bench` can be asked for; free of torch."""

from collections.abc import Mapping
from typing import Any, Literal

from jemtrack.errors import InputError
from jemtrack.parameters import AtLeastOne, parameter_names, parameters, value_problems


@parameters
class BenchOptions:
    """The options of `jemtrack bench`.

    Attributes:
        rows: names of what is measured; none: all.
        precision: of this project's side; none: fp32, and bf16-mixed where the device has it.
        threads: of the processor, for both sides.
        turns: of each side; none: as many as the row usually has.
        images: of the whole training; none: all where the row is named, else some.
        epochs: of the whole training; none: the row's usual number.
        profile: name the top costs of a step, in place of timing.
        tiny: small networks and images, to try the command itself.
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
    """Make the options of what a command line gave; what is None was not given.

    Raises:
        InputError: with a line for each value that does not fit.
    """
    names = parameter_names(BenchOptions)
    values = {name: given[name] for name in names if given.get(name) is not None}
    values["rows"] = tuple(values.get("rows", ()))
    if found := value_problems(BenchOptions, values):
        raise InputError("\n".join(f"--{path[0]} {message}" for path, message in found))
    return BenchOptions(**values)
