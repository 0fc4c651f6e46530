"""The names of metrics, and mappings that accept known metrics only."""

from collections.abc import Iterable, Iterator, MutableMapping
from enum import StrEnum
from typing import Any

from jemtrack.errors import InputError
from jemtrack.parameters import suggestion


class Metric(StrEnum):
    """The metrics that all model families share; `declare_metric` adds others.

    A batch's metric is recorded under its own name, its mean over an epoch with the prefix
    `train_`. What follows a dot tells what the metric belongs to: `learning_rate.network`.
    """

    LOSS = "loss"
    ACCURACY = "accuracy"
    NLL = "nll"
    TRAIN_LOSS = "train_loss"
    TRAIN_ACCURACY = "train_accuracy"
    VALID_LOSS = "valid_loss"
    VALID_ACCURACY = "valid_accuracy"
    VALID_NLL = "valid_nll"
    TEST_LOSS = "test_loss"
    TEST_ACCURACY = "test_accuracy"
    TEST_NLL = "test_nll"
    LEARNING_RATE = "learning_rate"
    GRADIENT_NORM = "gradient_norm"
    CPU_PERCENT = "cpu_percent"
    MEMORY_MIB = "memory_mib"
    GPU_PERCENT = "gpu_percent"
    GPU_MEMORY_MIB = "gpu_memory_mib"
    READ_MIB = "read_mib"
    WRITTEN_MIB = "written_mib"


_STAGES = ("train_", "valid_", "test_")
_declared: set[str] = {str(metric) for metric in Metric}
_found: set[str] = set()  # that they are known was found out before: a step asks for each again


def declare_metric(name: str) -> str:
    """Register `name` as a metric that can be recorded, and return it.

    Raises:
        InputError: if it is not a Python identifier.
    """
    if not name.isidentifier():
        raise InputError(f"a metric's name must be letters, digits and '_', got {name!r}")
    _declared.add(name)
    return name


def is_metric(name: str) -> bool:
    """Tell whether `name` is known, with or without `train_`, `valid_` or `test_` before it."""
    if name in _found:
        return True
    base = name.partition(".")[0]
    plain = next((base.removeprefix(stage) for stage in _STAGES if base.startswith(stage)), base)
    if known := base in _declared or plain in _declared:
        _found.add(name)
    return known


def check_metrics(names: Iterable[str]) -> None:
    """Check that all `names` are known metrics.

    Raises:
        InputError: for the first that is neither in `Metric` nor declared.
    """
    for name in names:
        if not is_metric(name):
            raise InputError(
                f"no metric is called {name!r}; {suggestion(name, _declared)}; declare a new one "
                "with jemtrack.shared.metrics.declare_metric"
            )


class MetricValues(MutableMapping[str, float]):
    """Metrics by name; setting one checks that its name is known and its value is one number.

    While `refusal` is not empty, nothing can be set, and the error gives it as the reason.
    """

    def __init__(self, refusal: str = "") -> None:
        self.refusal = refusal
        self._values: dict[str, float] = {}

    def __setitem__(self, name: str, value: Any) -> None:
        if self.refusal:
            raise InputError(f"the metric {str(name)!r} cannot be set: {self.refusal}")
        check_metrics([str(name)])
        self._values[str(name)] = value if type(value) is float else _number(name, value)

    def __getitem__(self, name: str) -> float:
        return self._values[name]

    def __delitem__(self, name: str) -> None:
        del self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)


def _number(name: str, value: Any) -> float:
    """Convert a number, or a tensor or array with one element, to a float."""
    try:
        if not isinstance(value, str):
            return float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, RuntimeError):  # `item` of several elements, or of none
        pass
    raise InputError(f"the metric {str(name)!r} must be one number, got {value!r}")
