"""What was written by the graph and what was changed by hand, brought together."""

from collections.abc import Callable, Iterable
from typing import Any

MISSING: Any = object()


def merge(
    written: Any, edited: Any, new: Any, path: str = "", kept: Callable[[str], None] = print
) -> Any:
    """Bring `new` into `edited`, which a person may have changed since `written` was put there.

    What the person added or changed stays; the rest follows `new`. Mappings are merged key by
    key, and lists of paths (a path may carry options: `{path: {cache: false}}`) path by path.
    A mapping `edited` is changed in place, so that its comments and its order stay. `kept` is
    told of each place where both sides changed and the person's value was kept.
    """
    if edited is MISSING:
        return new
    if new is MISSING:
        return edited if written is MISSING else MISSING
    if isinstance(edited, dict) and isinstance(new, dict):
        _merge_mapping(written if isinstance(written, dict) else {}, edited, new, path, kept)
        return edited
    if _is_path_list(edited) and _is_path_list(new):
        written = written if _is_path_list(written) else []
        merged = merge(_by_path(written), _by_path(edited), _by_path(new), path, kept)
        return edited if _by_path(edited) == merged else _as_list(merged)
    if edited in (written, new):
        return new
    if new != written and written is not MISSING:
        kept(f"kept {path}: {edited!r}, changed by hand; the graph now says {new!r}")
    return edited


def _merge_mapping(written: Any, edited: Any, new: Any, path: str, kept: Any) -> None:
    for key in [*edited, *(key for key in new if key not in edited)]:
        below = f"{path}.{key}" if path else str(key)
        sides = (side.get(key, MISSING) for side in (written, edited, new))
        value = merge(next(sides), next(sides), next(sides), below, kept)
        if value is MISSING:
            del edited[key]
        elif key not in edited or edited[key] is not value:
            edited[key] = value


def _is_path_list(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(entry, str) or (isinstance(entry, dict) and len(entry) == 1) for entry in value
    )


def _by_path(entries: Iterable[Any]) -> dict[str, Any]:
    return {
        path: options
        for entry in entries
        for path, options in ({entry: None} if isinstance(entry, str) else entry).items()
    }


def _as_list(by_path: dict[str, Any]) -> list[Any]:
    return [path if options is None else {path: options} for path, options in by_path.items()]
