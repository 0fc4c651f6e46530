"""Parameters are checked by their schemas where their class is not loaded, in the same words."""

import subprocess
import sys
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from jemtrack.parameters import parameters, problem_lines
from jemtrack.project.schemas import parameter_schema, schema_problems


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@parameters
class Args:
    rate: Annotated[float, Field(gt=0)] = 0.1
    share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    count: Annotated[int, Field(ge=1)] = 1
    most: Annotated[int, Field(le=9)] = 9
    on: bool = False
    name: Annotated[str, Field(min_length=1)] = "a"
    kind: Literal["a", "b"] = "a"
    path: str | None = None
    radii: list[Annotated[float, Field(gt=0)]] = Field(default_factory=list)


SOUND: list[dict[str, Any]] = [
    {},
    {"rate": 1, "share": 0.5, "count": 3, "on": True, "name": "x", "kind": "b"},
    {"path": None, "radii": [1, 0.5]},
    {"path": "model"},
]
WRONG: list[tuple[dict[str, Any], int]] = [
    ({"rate": 0}, 1),
    ({"rate": "0.1"}, 1),
    ({"rate": True}, 1),
    ({"share": 1}, 1),
    ({"share": -1}, 1),
    ({"count": 0}, 1),
    ({"count": 2.5}, 1),
    ({"count": None}, 1),
    ({"most": 10}, 1),
    ({"on": 1}, 1),
    ({"on": "yes"}, 1),
    ({"name": ""}, 1),
    ({"name": 7}, 1),
    ({"kind": "c"}, 1),
    ({"path": 7}, 1),
    ({"radii": 0.5}, 1),
    ({"radii": [0.5, -1]}, 1),
    ({"rat": 0.1}, 1),
    ({"rate": -1, "count": "x", "kynd": "a"}, 3),
]


def by_schema(values: dict[str, Any]) -> list[str]:
    schema = parameter_schema(Args)
    assert schema
    return [f"here.{problem}" for problem in schema_problems(schema, "Args", values)]


@pytest.mark.parametrize("values", SOUND)
def test_what_the_class_takes_fits_its_schema(values):
    assert by_schema(values) == problem_lines(Args, values, "here") == []


@pytest.mark.parametrize(("values", "count"), WRONG)
def test_what_the_class_refuses_its_schema_refuses_in_the_same_words(values, count):
    found, expected = by_schema(values), problem_lines(Args, values, "here")

    assert len(found) == count
    assert found == expected


def test_a_class_without_values_in_json_has_no_schema():
    class Plain:
        pass

    assert parameter_schema(Plain) is None


def test_a_stage_imports_neither_trainers_nor_evaluation_code_of_others():
    code = (
        "import sys, jemtrack.stages.prepare_data;"
        "print(*(name for name in sys.modules if name.startswith('jemtrack.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    others = (
        *("jemtrack.stages.trainer", "jemtrack.jem", "jemtrack.evaluation"),
        *("jemtrack.train.", "jemtrack.shared."),
    )
    light = [
        *("jemtrack.shared.hardware", "jemtrack.shared.plain", "jemtrack.shared.progress"),
        *("jemtrack.shared.waiting_threads", "jemtrack.train.checkpoint"),
    ]

    found = [name for name in done.stdout.split() if name.startswith(others)]
    assert sorted(found) == light
