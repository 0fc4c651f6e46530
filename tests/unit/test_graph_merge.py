import copy
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from jemtrack.project.merge import MISSING, merge, merge_paths, merge_stage

WORDS = st.text("abcdef", min_size=1, max_size=3)
SCALARS = st.one_of(st.none(), st.integers(0, 3), WORDS)
VALUES = st.recursive(
    SCALARS | st.lists(SCALARS, max_size=3),
    lambda inner: st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=12,
)
TREES = st.dictionaries(WORDS, VALUES, max_size=4)
OPTIONS = st.dictionaries(st.sampled_from(["cache", "persist"]), st.booleans(), max_size=2)
LISTS = ["deps", "outs", "metrics"]


def entries(paths):
    return [{path: paths[path]} if paths[path] else path for path in sorted(paths)]


PATHS = st.dictionaries(WORDS, OPTIONS, min_size=1, max_size=5)
STAGES = st.fixed_dictionaries({"cmd": WORDS}, optional={key: PATHS.map(entries) for key in LISTS})


def in_file(content):
    """Give a copy of the content in the types that a YAML file is read into."""
    if isinstance(content, dict):
        return CommentedMap({key: in_file(value) for key, value in content.items()})
    if isinstance(content, list):
        return CommentedSeq(in_file(entry) for entry in content)
    return content


def overlaid(content, patch):
    """Change values and add keys, as a person would who deletes nothing."""
    result = copy.deepcopy(content)
    for key, value in patch.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = overlaid(result[key], value) if both else value
    return result


def merged(written, edited, new, by=merge):
    told = []
    return by(written, in_file(edited), copy.deepcopy(new), "file", told.append), told


@given(TREES, TREES)
def test_a_file_that_nobody_touched_becomes_what_the_graph_says(written, new):
    assert merged(written, written, new) == (new, [])


@given(STAGES, STAGES)
def test_a_stage_that_nobody_touched_becomes_what_the_graph_says(written, new):
    result, told = merged(written, written, new, merge_stage)

    assert result == new
    assert told == []


@given(TREES, TREES)
def test_while_the_graph_stays_all_edits_stay(graph, patch):
    edited = overlaid(graph, patch)

    assert merged(graph, edited, graph) == (edited, [])


@given(STAGES, st.dictionaries(st.sampled_from(["frozen", "desc", "wdir"]), WORDS), PATHS)
def test_while_the_graph_stays_all_edits_of_a_stage_stay(graph, keys, paths):
    own = entries({f"own/{path}": paths[path] for path in paths})
    edited = {**graph, **keys, "deps": [*own, *graph.get("deps", [])], "plots": own}

    assert merged(graph, edited, graph, merge_stage) == (edited, [])


@given(TREES, TREES, TREES)
def test_what_was_added_stays_whatever_the_graph_does(written, new, patch):
    result, _ = merged(written, overlaid(written, patch), new)

    def check(patch, written, new, result):
        for key, value in patch.items():
            sides = [side.get(key, MISSING) for side in (written, new, result)]
            if sides[:2] == [MISSING, MISSING]:
                assert result[key] == value
            elif all(isinstance(side, dict) for side in (value, *sides)):
                check(value, *sides)

    check(patch, written, new, result)


@given(STAGES, STAGES, PATHS)
def test_paths_that_were_added_stay_whatever_the_graph_does(written, new, paths):
    own = {f"own/{path}": paths[path] for path in paths}
    edited = {**written, "outs": [*entries(own), *written.get("outs", [])]}

    result, told = merged(written, edited, new, merge_stage)

    assert [entry for entry in entries(own) if entry not in result["outs"]] == []
    assert told == []


@given(TREES, TREES, TREES)
def test_a_second_merge_changes_and_says_nothing(written, new, patch):
    once, _ = merged(written, overlaid(written, patch), new)

    assert merged(new, once, new) == (once, [])


@given(STAGES, STAGES, STAGES)
def test_a_second_merge_of_a_stage_changes_and_says_nothing(written, edited, new):
    once, _ = merged(written, edited, new, merge_stage)

    assert merged(new, once, new, merge_stage) == (once, [])


@given(SCALARS, SCALARS, SCALARS)
def test_of_two_changes_the_hand_s_stays_and_is_told(written, edited, new):
    result, told = merged({"lr": written}, {"lr": edited}, {"lr": new})

    assert result["lr"] == (new if edited == written else edited)
    assert bool(told) == (len({written, edited, new}) == 3)
    assert all("file.lr" in line for line in told)


def test_what_was_deleted_comes_back():
    assert merged({"a": 1, "b": 2}, {"b": 2}, {"a": 1, "b": 2}) == ({"a": 1, "b": 2}, [])
    assert merged(["a", "b"], ["b"], ["a", "b"], merge_paths) == (["a", "b"], [])


def test_what_left_the_graph_goes_and_an_edit_that_went_with_it_is_told():
    result, told = merged({"a": 1, "b": 2}, {"a": 1, "b": 5}, {})

    assert result == {}
    assert told == ["file.b left the graph, and with it what was changed by hand: 5"]


def test_a_list_of_values_is_one_value():
    """What was left out of a list by hand stays out, where the list is no list of paths."""
    assert merged({"y": ["a", "b"]}, {"y": ["b"]}, {"y": ["a", "b"]}) == ({"y": ["b"]}, [])


def test_options_merge_beside_each_other():
    written, edited = ["model", "log"], [{"model": {"persist": True}}, "log"]
    new = [{"model": {"cache": False}}, "log"]

    result, told = merged(written, edited, new, merge_paths)

    assert result == [{"model": {"cache": False, "persist": True}}, "log"]
    assert told == []


def test_several_paths_in_one_entry_are_merged_like_others():
    edited = [{"a": {"cache": False}, "own": {"persist": True}}, {"b": None}]

    result, _ = merged([{"a": {"cache": False}}, "b"], edited, ["b", "c"], merge_paths)

    assert result == [{"own": {"persist": True}}, {"b": None}, "c"]


def test_new_lines_come_where_the_graph_has_them_and_comments_stay():
    file = YAML().load("# top\na: 1.0e-3  # tuned\n# own\nmine: 2\nd: 4\n# end\n")
    merge({"a": 1e-3, "d": 4}, file, {"a": 1e-3, "b": 2, "c": 3, "d": 5}, "file", pytest.fail)
    text = io.StringIO()
    YAML().dump(file, text)

    assert text.getvalue() == (
        "# top\na: 1.0e-3  # tuned\n# own\nmine: 2\nb: 2\nc: 3\nd: 5\n# end\n"
    )


def test_anchors_stay():
    text = "common: &common\n  lr: 0.1\nL1:\n  <<: *common\n  width: 2\n"
    file = YAML().load(text)
    graph = {"L1": {"lr": 0.1, "width": 2}}
    merge(graph, file, graph, "file", pytest.fail)
    written = io.StringIO()
    YAML().dump(file, written)

    assert written.getvalue() == text
