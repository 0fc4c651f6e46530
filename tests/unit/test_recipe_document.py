"""YAML with its lines, and all that can be wrong with its form."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jemtrack.documents import read_document

# YAML takes some line breaks for spaces.
TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=20)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | TEXT
    | st.floats(allow_nan=False, allow_infinity=False, width=32)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def document(folder, text):
    path = folder / "any.yaml"
    path.write_text(text, encoding="utf-8")
    return read_document(path)


def places(value, place=()):
    yield place
    entries = enumerate(value) if isinstance(value, list) else getattr(value, "items", list)()
    for part, inner in entries:
        yield from places(inner, (*place, part))


@given(content=st.dictionaries(TEXT, VALUES, max_size=3))
def test_what_was_written_is_read_and_each_place_has_a_line(content, tmp_path_factory):
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"  # JSON is YAML

    read = document(tmp_path_factory.mktemp("document"), text)

    assert read.form == []
    assert read.content == content
    assert {*places(content)} == {*read.lines}
    assert 1 <= min(read.lines.values()) <= max(read.lines.values())
    assert max(read.lines.values()) <= text.count("\n")


def test_a_place_has_the_line_of_its_name_and_a_missing_one_that_of_what_is_around_it(tmp_path):
    read = document(tmp_path, "a:\n  - 1\n  - b: 2\n    c:\n      3\n")

    assert [read.line(("a",)), read.line(("a", 0)), read.line(("a", 1, "c"))] == [1, 2, 4]
    assert read.line(("a", 1, "missing", "deep")) == 3
    assert read.line(("nowhere",)) == 1


def test_numbers_and_words_are_those_of_yaml_1_2(tmp_path):
    read = document(tmp_path, "[1e-4, 0o10, y, 'true', 1_000, 09, -0x1F, 'no', '1:30', .inf]")

    numbers = [1e-4, 8, "y", "true", 1000, 9, -31, "no", "1:30", float("inf")]
    assert read.content == numbers


def test_each_name_that_stands_twice_is_told_and_the_first_counts(tmp_path):
    read = document(tmp_path, "a: 1\nb: {c: 1, c: 2}\na: 3\na: 4\n")

    assert [str(problem) for problem in read.form] == [
        "2: b.c: stands twice, first in line 2",
        "3: a: stands twice, first in line 1",
        "4: a: stands twice, first in line 1",
    ]
    assert read.content == {"a": 1, "b": {"c": 1}}


def test_an_anchor_is_merged_with_the_lines_of_where_it_was_written(tmp_path):
    read = document(tmp_path, "x: &base\n  c: 1\n  d: 2\ny:\n  <<: *base\n  c: 3\n")

    assert read.content["y"] == {"c": 3, "d": 2}
    assert (read.line(("y", "c")), read.line(("y", "d"))) == (6, 3)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [1\nb: 2\n", "2: is not valid YAML: while parsing a flow sequence"),
        ("a: 1\n\tb: 2\n", "2: is not valid YAML: "),
        ("a: *b\n", "1: is not valid YAML: found undefined alias"),
        ("a: !thing 3\n", "1: is not valid YAML: could not determine a constructor"),
        ("a: 1\n---\nb: 2\n", "2: is not valid YAML: expected a single document"),
        ("a: 1\nb: \x01\n", "2: is not valid YAML: control characters are not allowed"),
        ("a: &loop\n  - *loop\n", "1: a[0]: must not contain itself"),
        ("a: &loop\n  <<: *loop\n", "2: a: '<<' must bring in another mapping"),
        ("a:\n  b: 2026-02-31\n", "2: a.b: cannot be read: day "),
    ],
)
def test_a_fault_of_the_form_has_its_line(tmp_path, text, problem):
    (found,) = document(tmp_path, text).form

    assert str(found).startswith(problem)


def test_a_file_that_cannot_be_read_is_a_problem_without_a_line(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")

    for name, reason in {
        "none.yaml": "No such file or directory",
        ".": "Is a directory",
        "latin.yaml": "it must be text in UTF-8",
    }.items():
        (problem,) = read_document(tmp_path / name).form
        assert str(problem) == f"cannot be read: {reason}"
