"""The names that metrics go by."""

from collections.abc import Iterable, Iterator, MutableMapping
from enum import StrEnum
from typing import Any

from jemtrack.errors import InputError
from jemtrack.parameters import suggestion


class Metric(StrEnum):
    """The metrics that every model family may have; `declare_metric` adds others.

    A batch's metric is recorded under its own name, its mean over an epoch with `train_`
    before it. A part of a name after a dot says what it belongs to: `learning_rate.network`.
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


def declare_metric(name: str) -> str:
    """Make `name` a metric that can be recorded; give it back.

    Raises:
        InputError: when it is no plain name.
    """
    if not name.isidentifier():
        raise InputError(f"a metric's name must be letters, digits and '_', got {name!r}")
    _declared.add(name)
    return name


def is_metric(name: str) -> bool:
    """Say whether `name` is in the enum or declared, itself or what it is the epoch's value of."""
    base = name.partition(".")[0]
    plain = next((base.removeprefix(stage) for stage in _STAGES if base.startswith(stage)), base)
    return base in _declared or plain in _declared


def check_metrics(names: Iterable[str]) -> None:
    """Hold the names against those that are known.

    Raises:
        InputError: naming the first that is neither in `Metric` nor declared.
    """
    for name in names:
        if not is_metric(name):
            raise InputError(
                f"no metric is called {name!r}; {suggestion(name, _declared)}; a new one is "
                "made known by jemtrack.train.metrics.declare_metric"
            )


class MetricValues(MutableMapping[str, float]):
    """Metrics by name, each checked when it is set: a known name, and one number.

    While there is a `refusal`, it says why nothing can be set.
    """

    def __init__(self, refusal: str = "") -> None:
        self.refusal = refusal
        self._values: dict[str, float] = {}

    def __setitem__(self, name: str, value: Any) -> None:
        if self.refusal:
            raise InputError(f"the metric {str(name)!r} cannot be set: {self.refusal}")
        check_metrics([str(name)])
        self._values[str(name)] = _number(name, value)

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
    """Give a number, or a tensor or array of one, as a float."""
    try:
        if not isinstance(value, str):
            return float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, RuntimeError):  # of several numbers, or of none
        pass
    raise InputError(f"the metric {str(name)!r} must be one number, got {value!r}")
