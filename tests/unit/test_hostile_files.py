"""Files that are broken, or made to harm: a line for each problem; nothing hangs or crashes."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml import YAML

import jemtrack
from jemtrack.documents import LARGEST_FILE, parse_document, parse_json, read_document
from jemtrack.errors import InputError

QUICK_S = 5  # on a busy machine; each takes less than 2 on an idle one

BOMB = "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
MERGE_BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], k{n}: 1}}\n" for n in range(1, 40)
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: " + "[" * 100_000, "1: must not be nested deeper than 50 levels"),
        ("{a: " * 3_000, "1: must not be nested deeper than 50 levels"),
        ("- " * 100_000, "1: must not be nested deeper than 50 levels"),
        ("? " * 100_000, "1: must not be nested deeper than 50 levels"),
        (BOMB, r"\d\d: must hold at most 200000 values"),
        (MERGE_BOMB, r"\d\d: must hold at most 200000 values"),
        ("a:\n" + "- 1\n" * 200_001, "200001: must hold at most 200000 values"),
        ("a: &a [*a]", "1: a\\[0\\]: must not contain itself"),
        ("a: " + "9" * 23, "1: a: must be a number of at most 64 bits"),
        ("a: " + "9" * 5_000, "1: a: cannot be read: "),
        ("a: 1e308", "1: a: must be within"),
        ("a: 1e999", "1: a: must be within"),
        ("a: 010", "1: a: is not the same to all readers of YAML, got 010"),
        ("a: 1\nb: 1:30", "2: b: is not the same to all readers of YAML, got 1:30"),
        ("a: [yes, 1]", "1: a\\[0\\]: is not the same to all readers of YAML, got yes"),
        ("a: 1\nb: 2\na: 3", "3: a: stands twice, first in line 1"),
        ("k" * 2_000 + ": 1\n", "1: (is not valid YAML|must have names)"),
        ("? [a]\n: 1", "1: must have names"),
        ("%YAML 1.1\n---\na: yes", "1: must be YAML 1.2"),
        ("a: !!python/object/apply:os.system [x]", "1: a: must not have the tag"),
        ("a: !!set {x, y}", "1: a: must not have the tag"),
        ("a: \0", "1: is not valid YAML: control characters"),
        ("a: =", "1: is not valid YAML"),
    ],
)  # fmt: skip
def test_what_no_file_of_a_project_needs_is_a_problem_with_its_line(text, problem):
    began = time.monotonic()

    (found,) = parse_document(text).form

    assert re.match(problem, str(found))
    assert len(str(found)) < 400
    assert time.monotonic() - began < QUICK_S


def test_a_file_that_is_too_long_or_no_text_is_not_read(tmp_path):
    (tmp_path / "long.yaml").write_text("#" * (LARGEST_FILE + 1))
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))

    for path, problem in {
        tmp_path / "long.yaml": "must be at most",
        tmp_path / "binary.yaml": "cannot be read: it must be text in UTF-8",
        tmp_path: "cannot be read: Is a directory",
        tmp_path / ("n" * 300): "cannot be read: File name too long",
        tmp_path / "a\0b": "cannot be read: embedded null byte",
    }.items():
        (found,) = read_document(path).form
        assert str(found).startswith(problem)


PLAIN = st.text("0123456789_+-.eExXobBnyYsofF:aAiITtruN~", min_size=1, max_size=8)


@given(text=PLAIN)
@example("010")
@example("1_000")
@example("1:30")
@example("0o17")
@example("-.5e+3")
@example("off")
@example("1e-05")
@example("0b1_1")
def test_a_value_is_what_dvc_and_zntrack_read_or_it_is_refused(text):
    """DVC writes ruamel.yaml's value into dvc.lock; the stage is given PyYAML's by ZnTrack."""
    read = parse_document(f"[{text}]")
    if read.form:
        return

    by_dvc = YAML(typ="safe", pure=True).load(f"[{text}]")

    assert repr(read.content) == repr(by_dvc) == repr(yaml.safe_load(f"[{text}]"))


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "9" * 5_000, "\0", b"\xff\xfe", ""])
def test_broken_json_is_a_problem(text):
    with pytest.raises(InputError, match=r"any\.json is not valid JSON"):
        parse_json(text, "any.json")


WHERE_FROM = "import jemtrack; print(jemtrack.__file__)"


@pytest.mark.parametrize(
    ("folder", "is_taken"),
    [(".", False), ("sub/folder", False), (".dvc/tmp/exps/temp", True)],
)
def test_only_a_copy_that_dvc_made_takes_the_place_of_the_installed_package(
    tmp_path, folder, is_taken
):
    here = tmp_path / folder
    here.mkdir(parents=True, exist_ok=True)
    source = (here if is_taken else tmp_path) / "src/jemtrack/__init__.py"
    source.parent.mkdir(parents=True)
    source.write_text("")

    done = subprocess.run(
        [sys.executable, "-P", "-c", WHERE_FROM],
        cwd=here,
        capture_output=True,
        text=True,
        check=True,
    )

    assert Path(done.stdout.strip()).samefile(source if is_taken else jemtrack.__file__)
