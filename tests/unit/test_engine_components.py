import re

import pytest

from jemtrack.errors import InputError
from jemtrack.shared import components
from jemtrack.shared.components import (
    Component,
    Option,
    build,
    component,
    option_problems,
    registered,
)


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    monkeypatch.setattr(components, "_REGISTRY", {})


@pytest.fixture
def stopper():
    @component("stopper")
    class Stopper(Component):
        metric: str = Option(str, "what to watch")
        patience: int = Option(int, "epochs to wait", default=3, minimum=0)
        least: float = Option(float, "least change that counts", default=0.0, minimum=0)

    return Stopper


def test_a_component_is_built_by_name_with_its_defaults(stopper):
    made = build("stopper", {"metric": "valid_nll", "least": 1})

    assert isinstance(made, stopper)
    assert (made.metric, made.patience, made.least) == ("valid_nll", 3, 1.0)
    assert isinstance(made.least, float)


def test_options_are_listed_with_type_default_and_meaning(stopper):
    listed = {option.name: (option.kind, option.meaning) for option in stopper.options()}

    assert listed["patience"] == (int, "epochs to wait")
    assert registered() == {"stopper": stopper}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "stopper.metric is missing: what to watch"),
        ({"metric": 3}, "stopper.metric must be of type str, got 3"),
        ({"metric": "x", "patience": -1}, "stopper.patience must be >= 0, got -1"),
        ({"metric": "x", "patience": True}, "stopper.patience must be of type int, got True"),
        ({"metric": "x", "patience": 2.5}, "stopper.patience must be of type int, got 2.5"),
        ({"metric": "x", "patient": 2}, "stopper.patient is not an option of it"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(stopper, options, message):
    with pytest.raises(InputError, match=message):
        build("stopper", options)


def test_options_are_checked_on_assignment_too(stopper):
    made = build("stopper", {"metric": "x"})

    with pytest.raises(InputError, match="patience must be >= 0"):
        made.patience = -5

    assert made.patience == 3


def test_an_unknown_name_lists_the_known_ones(stopper):
    with pytest.raises(InputError, match="no component is called 'stop'; there are stopper"):
        build("stop", {})


def test_a_name_belongs_to_one_class(stopper):
    with pytest.raises(InputError, match="the component 'stopper' is already"):

        @component("stopper")
        class Other(Component):
            pass


class Tuned(Component):
    span: int | None = Option(int | None, "batches, or all", minimum=1)
    share: float | None = Option(float, "share of them", default=None, maximum=1)
    mode: str = Option(str, "which way", default="min", choices=("min", "max"))


def test_an_option_can_be_none_where_that_is_declared():
    made = Tuned(span=None, share=1)

    assert (made.span, made.share, made.mode) == (None, 1.0, "min")
    assert {option.name: (option.kind_name, option.required) for option in Tuned.options()} == {
        "span": ("int | None", True),
        "share": ("float | None", False),
        "mode": ("str", False),
    }


@pytest.mark.parametrize(
    ("options", "name", "message"),
    [
        ({"span": 2.0}, "span", "must be of type int | None, got 2.0"),
        ({"span": 0}, "span", "must be >= 1, got 0"),
        ({"span": 1, "share": 1.5}, "share", "must be <= 1, got 1.5"),
        ({"span": 1, "share": float("nan")}, "share", "must be a finite number, got nan"),
        ({"span": 1, "mode": "mim"}, "mode", "must be one of 'min', 'max', got 'mim'"),
        ({"span": 1, "mode": None}, "mode", "must be of type str, got None"),
    ],
)
def test_bounds_and_choices_are_told_before_anything_is_built(options, name, message):
    assert [*option_problems(Tuned, options)] == [(name, message)]
    with pytest.raises(InputError, match=re.escape(f"Tuned.{name} {message}")):
        Tuned(**options)


def test_every_fault_of_the_options_is_told(stopper):
    found = [*option_problems(stopper, {"patients": 2, "least": -1, "patience": True})]

    assert found == [
        ("patients", "is not an option of it; did you mean patience?"),
        ("least", "must be >= 0, got -1"),
        ("patience", "must be of type int, got True"),
        ("metric", "is missing: what to watch"),
    ]
