"""Merge the graph into files that were edited by hand: a three-way merge of YAML values.

The three sides are what the graph wrote last time, what is in the file now, and what the graph
says now. Additions and changes by hand are kept, all else follows the graph. What was deleted by
hand is written again: in the file it looks the same as what the graph has just added.

ruamel.yaml attaches a comment to the line before it: a comment above a line is lost when the graph
drops the line before the comment.
"""

from collections.abc import Callable
from typing import Any

from ruamel.yaml.comments import CommentedMap

from jemtrack.parameters import format_value

MISSING: Any = object()

# The keys of a stage that list paths. All other lists are values like any other.
PATH_LISTS = frozenset({"deps", "params", "outs", "metrics", "plots"})

Tell = Callable[[str], None]


def merge(written: Any, edited: Any, new: Any, where: str, tell: Tell) -> Any:
    """Merge `new` into `edited`, which a person may have changed since `written` was written.

    Each side may be MISSING. Mappings are merged key by key; `edited` is changed in place, so
    that its comments and its order are kept. `tell` is called with a message for each change by
    hand that conflicts with a change of the graph, or that is dropped with the entry it was in.
    """
    if edited is MISSING:
        return _editable(new)
    if new is MISSING:
        return _without(written, edited, where, tell)
    if isinstance(edited, dict) and isinstance(new, dict):

        def below(key: str, before: Any, edited: Any, new: Any) -> Any:
            return merge(before, edited, new, f"{where}.{key}", tell)

        return _merge_mapping(written, edited, new, below)
    # Equal values keep their spelling: 1.0e-3 does not become 0.001.
    if edited == new:
        return edited
    if edited == written:
        return new
    if new != written and written is not MISSING:
        tell(
            f"{where} stays {format_value(edited)}, as changed by hand; "
            f"the graph says {format_value(new)}"
        )
    return edited


def merge_stage(written: Any, edited: Any, new: Any, where: str, tell: Tell) -> Any:
    """Merge a stage of dvc.yaml as `merge` does, and its lists of paths path by path."""
    if not isinstance(edited, dict):
        return merge(written, edited, new, where, tell)

    def below(key: str, before: Any, edited: Any, new: Any) -> Any:
        merge_value = merge_paths if key in PATH_LISTS else merge
        return merge_value(before, edited, new, f"{where}.{key}", tell)

    return _merge_mapping(written, edited, new, below)


def merge_paths(written: Any, edited: Any, new: Any, where: str, tell: Tell) -> Any:
    """Merge lists of paths as `merge` does mappings; an entry is a path or {path: options}."""
    if not isinstance(edited, list):
        return merge(written, edited, new, where, tell)
    before, wanted = _by_path(written), _by_path(new)

    def below(path: str, options: Any) -> Any:
        was, now = before.get(path, MISSING), wanted.get(path, MISSING)
        if options is None and now is not None:  # `path:` with nothing after it has no options
            options = CommentedMap()
        return merge(was, options, now, f"{where}.{path}", tell)

    for index in reversed(range(len(edited))):  # backwards, because entries are deleted
        entry = _merge_entry(edited[index], below)
        if entry is MISSING:
            del edited[index]
        elif entry is not edited[index]:
            edited[index] = entry
    _insert_paths(edited, wanted)
    return edited or MISSING


def _merge_mapping(written: Any, edited: Any, new: Any, below: Callable[..., Any]) -> Any:
    written = written if isinstance(written, dict) else {}
    for key in [*edited]:
        sides = written.get(key, MISSING), edited[key], new.get(key, MISSING)
        value = below(key, *sides)
        if value is MISSING:
            del edited[key]
        elif value is not edited[key]:
            edited[key] = value
    # Insert each new key before its successor in the graph's order.
    following = None
    for key in reversed(new):
        if key not in edited:
            index = len(edited) if following is None else [*edited].index(following)
            edited.insert(index, key, _editable(new[key]))
        following = key
    return edited


def _editable(value: Any) -> Any:
    """Copy a value for a file: another stage may add to it, and `written` must not change then."""
    if isinstance(value, dict):
        return CommentedMap({key: _editable(each) for key, each in value.items()})
    return [_editable(each) for each in value] if isinstance(value, list) else value


def _without(written: Any, edited: Any, where: str, tell: Tell) -> Any:
    """Return what remains of `edited` after the graph dropped it: only what it never wrote."""
    if written is MISSING:
        return edited
    if edited != written:
        tell(
            f"{where} left the graph, and with it what was changed by hand: {format_value(edited)}"
        )
    return MISSING


def _merge_entry(entry: Any, below: Callable[[str, Any], Any]) -> Any:
    """Merge one entry of a list of paths; a mapping may hold several paths."""
    if isinstance(entry, str):
        options = below(entry, CommentedMap())
        return entry if options == {} else MISSING if options is MISSING else {entry: options}
    if not isinstance(entry, dict):
        return entry
    for path in [*entry]:
        options = below(path, entry[path])
        if options is MISSING:
            del entry[path]
        elif options != {}:
            entry[path] = options
    if [*entry.values()] == [{}]:
        return next(iter(entry))
    return entry or MISSING


def _insert_paths(edited: list[Any], wanted: dict[str, Any]) -> None:
    """Insert each missing path before its successor in the graph's order, or at the end."""
    position = len(edited)
    for path in reversed(wanted):
        at = [index for index, entry in enumerate(edited) if path in _by_path([entry])]
        if not at:
            entry = path if wanted[path] == {} else {path: wanted[path]}
            edited.insert(position, _editable(entry))
        position = at[0] if at else position


def _by_path(entries: Any) -> dict[str, Any]:
    """Map each path of a list to its options, or to {} if it has none.

    The options None, as in `params: [versions.yaml:]`, mean all parameters of that file.
    """
    found: dict[str, Any] = {}
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict):
            found |= entry
        else:
            found[str(entry)] = {}
    return found
