"""Write dvc.yaml, params.yaml, zntrack.json and versions.yaml, and keep what was edited by hand."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError
from ruamel.yaml.representer import RoundTripRepresenter

from jemtrack.documents import is_ambiguous, parse_json, parse_yaml, read_text
from jemtrack.errors import InputError
from jemtrack.files import atomic_write_texts
from jemtrack.parameters import format_value, suggestion
from jemtrack.project.code import source_folder, workflow_module
from jemtrack.project.comments import add_comments
from jemtrack.project.merge import MISSING, merge, merge_paths, merge_stage
from jemtrack.project.params import (
    DVC,
    PARAMS,
    VERSIONS,
    WRITTEN,
    ZNTRACK,
    Section,
    checked_entries,
    checked_stages,
    installed_versions,
    own_problems,
    read_stages,
    stage_outs,
    structure_problems,
)
from jemtrack.project.schemas import SCHEMAS, parameter_schema

if TYPE_CHECKING:
    from jemtrack.stages.stage import Stage

Files = dict[Path, Any]


def write_graph(
    nodes: Iterable[Stage],
    *,
    run: bool = False,
    skip: Collection[str] = (),
    no_exec: bool | None = None,
) -> None:
    """Write the stages of `nodes` into the graph's files; with `run`, reproduce them.

    Other stages are kept, and so is what was added or changed by hand; what was deleted by hand
    is written again. Stages named in `skip` do not run, and those after them take what they made
    earlier. `no_exec` is the older spelling of `not run`.

    Raises:
        InputError: if two stages have the same name or none has one to skip, a node's class
            cannot be imported, a file is broken or is edited meanwhile, or the working directory
            is not in a project: then nothing is written. Also if a stage fails.
        OSError: if the disk is full: then, too, nothing is written.
    """
    nodes = [*nodes]
    names = [node.name for node in nodes]
    for name in skip:
        if name not in names:
            raise InputError(f"there is no stage {name!r} to skip; {suggestion(name, names)}")
    source_folder()
    # zntrack.json records what was written: it comes last, so that after a power cut between two
    # of them the next `write_graph` takes nothing for an edit by hand.
    paths = (VERSIONS, PARAMS, DVC, ZNTRACK)
    before = {path: _bytes(path) for path in paths}
    files = {path: _read(path) for path in paths}
    files[VERSIONS] |= installed_versions(files[VERSIONS])
    _check_names(nodes, files)
    for node in nodes:
        _merge_node(node, files)
    commented = [_comment(node, files[PARAMS].get(node.name)) for node in nodes]
    # A file with the same content keeps its formatting, to the last space.
    original = {path: _read(path) for path in paths}
    changed = [path for path, content in files.items() if content != original[path]]
    if any(commented) and PARAMS not in changed:
        changed.append(PARAMS)
    if edited := [str(path) for path in paths if _bytes(path) != before[path]]:
        raise InputError(
            f"{', '.join(edited)} was edited while the graph was made; nothing is written: "
            "run it again"
        )
    atomic_write_texts({path: _dumped(path, files[path]) for path in changed})
    print(_summary(original[DVC].get("stages") or {}, files[DVC]["stages"], changed), flush=True)
    if run if no_exec is None else not no_exec:
        if skip:
            names = [name for name in _in_order(names) if name not in skip]
        _reproduce(names, alone=bool(skip))


def declared_nodes() -> list[Stage]:
    """Return the stages that `nodes()` of the project's workflow module declares.

    Raises:
        InputError: if there is no such function, or it or the module raises any exception.
    """
    source = source_folder()
    module = workflow_module(source)
    try:
        nodes: list[Stage] = importlib.import_module(module).nodes()
        of_stages = isinstance(nodes, list) and all(
            hasattr(each, "parameter_problems") for each in nodes
        )
        if not of_stages:
            raise InputError(f"{module}: nodes() must return a list of stages, got {nodes!r:.100}")
    except InputError:
        raise
    except Exception as error:  # a person's own code can raise anything
        frames = traceback.extract_tb(error.__traceback__)
        own = [each for each in frames if Path(each.filename).is_relative_to(source.absolute())]
        where = f"{os.path.relpath(own[-1].filename)}:{own[-1].lineno}" if own else module
        raise InputError(
            f"{where}: {type(error).__name__}: {error}; `nodes()` of {module} declares the stages"
        ) from error
    return nodes


def _summary(before: dict[str, Any], after: dict[str, Any], changed: list[Path]) -> str:
    """Say in a line which stages and files were written."""
    if not changed:
        return f"{DVC}: {_stages(len(after))}, nothing to change"
    n_added = len(after.keys() - before.keys())
    n_changed = sum(before[name] != after[name] for name in before.keys() & after.keys())
    counts = [f"{_stages(n_added)} added"] * (n_added > 0)
    counts += [f"{_stages(n_changed)} changed"] * (n_changed > 0)
    return f"{DVC}: {', '.join(counts) or 'no stage changed'}; wrote {', '.join(map(str, changed))}"


def _stages(count: int) -> str:
    return f"{count} stage" + "s" * (count != 1)


def _merge_node(node: Stage, files: Files) -> None:
    """Merge one stage into the contents of the files; record there what the graph wrote for it."""
    name, plugin = node.name, node.state.plugins["DVCPlugin"]
    record = files[ZNTRACK].get(name, {}).get(WRITTEN, {})
    parameters = _plain(plugin.parameters())
    # Some inputs depend on the parameters: use those of the file, which a person may have edited.
    merged = _merge_parameters(name, record, parameters, files[PARAMS])
    _check_parameters(node, merged)
    emitted = plugin.emit(merged)
    new = {"params": parameters, "stage": _plain(emitted["stages"])}
    new |= {key: _plain(emitted[key]) for key in ("plots", "artifacts")}
    stages = files[DVC]["stages"] = files[DVC].get("stages") or CommentedMap()
    stages[name] = merge_stage(
        record.get("stage", MISSING),
        stages.get(name, MISSING),
        new["stage"],
        f"{DVC}: {name}",
        _tell,
    )
    plots = merge_paths(
        record.get("plots", []), files[DVC].get("plots") or [], new["plots"], f"{DVC}: plots", _tell
    )
    artifacts = merge(
        record.get("artifacts", {}),
        files[DVC].get("artifacts") or CommentedMap(),
        new["artifacts"],
        f"{DVC}: artifacts",
        _tell,
    )
    for key, section in (("plots", plots), ("artifacts", artifacts)):
        if section is MISSING or not section:
            files[DVC].pop(key, None)
        else:
            files[DVC][key] = section
    files[ZNTRACK][name] = {**plugin.convert_to_zntrack_json(graph=None), WRITTEN: new}
    schemas = files[ZNTRACK].setdefault(SCHEMAS, {})
    for field in (field for field, value in parameters.items() if "_cls" in (value or ())):
        value = getattr(node, field)
        if schema := parameter_schema(type(value)):
            schemas[_class_path(value)] = schema


def _comment(node: Stage, values: Any) -> bool:
    """Say in params.yaml what the stage's parameters mean; return whether anything was added."""
    sections = values.items() if isinstance(values, dict) else ()
    known = ((section, getattr(node, field)) for field, section in sections if hasattr(node, field))
    return sum(add_comments(section, type(value)) for section, value in known) > 0


def _merge_parameters(name: str, record: Any, new: dict[str, Any], values: Any) -> dict[str, Any]:
    """Merge the stage's section of params.yaml into `values`, and return it."""
    merged = merge(
        record.get("params", MISSING), values.get(name, MISSING), new, f"{PARAMS}: {name}", _tell
    )
    if not merged:
        return {}
    values[name] = merged
    known = {field: merged[field] for field in new} if isinstance(merged, dict) else merged
    if problems := structure_problems(name, new, {name: known}):
        raise InputError("\n".join(problems))
    return merged  # type: ignore[no-any-return]


def _check_parameters(node: Stage, values: dict[str, Any]) -> None:
    """Raise an `InputError` if the stage cannot run with these parameters."""
    known = [
        Section(node.name, field, _class_path(getattr(node, field)), value)
        for field, value in values.items()
        if isinstance(value, dict) and "_cls" in value
    ]
    if problems := own_problems(type(node), node.name, values, known):
        raise InputError("\n".join(problems))


def _class_path(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _plain(value: Any) -> Any:
    """Convert to types of JSON: lists instead of tuples, and no objects shared between values."""
    return json.loads(json.dumps(value))


def _tell(message: str) -> None:
    print(message, file=sys.stderr)


def _check_names(nodes: list[Stage], files: Files) -> None:
    counts = Counter(node.name for node in nodes)
    names = {*counts, *(files[DVC].get("stages") or {})}
    for node in nodes:
        if same := [each for each in names if _is_other_case(str(each), node.name)]:
            raise InputError(
                f"{DVC}: the stages {node.name!r} and {same[0]!r} have one folder on some systems: "
                "give one of them another name"
            )
        if counts[node.name] > 1:
            raise InputError(
                f"{DVC}: {counts[node.name]} stages are called {node.name!r}; "
                f"give each its own name: {type(node).__name__}(name=...)"
            )
        _check_replaces_itself(node, (files[DVC].get("stages") or {}).get(node.name))


def _is_other_case(name: str, other: str) -> bool:
    return name != other and name.lower() == other.lower()


def _check_replaces_itself(node: Stage, stage: Any) -> None:
    """Raise an `InputError` if the `stage` of this name in dvc.yaml runs something else."""
    command = stage.get("cmd") if isinstance(stage, dict) else stage
    if stage is None or f"{type(node).__module__}.{type(node).__name__} " in f"{command} ":
        return
    raise InputError(
        f"{DVC}: the stage {node.name!r} exists already and runs {command!r}; "
        f"give the new one another name ({type(node).__name__}(name=...)), "
        f"or remove the old one first: dvc remove {node.name}"
    )


def _read(path: Path) -> Any:
    if not path.exists():
        return CommentedMap()
    text = read_text(path)
    if path is ZNTRACK:
        content = parse_json(text, path)
    else:
        parse_yaml(text, path)  # within its bounds, ruamel.yaml can neither recurse nor hang
        try:
            content = _yaml().load(text)
        except YAMLError as error:  # the two libraries differ in what is YAML
            raise InputError(f"{path} is not valid YAML: {error}") from error
    if content is not None and not isinstance(content, dict):
        raise InputError(f"{path} must hold names and values, got {format_value(content)}")
    content = content or CommentedMap()
    if path is DVC:
        checked_stages(content)
    if path is ZNTRACK:
        checked_entries(content)
    return content


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _dumped(path: Path, content: Any) -> str:
    if path is ZNTRACK:
        return json.dumps(content, indent=4) + "\n"
    text = io.StringIO()
    _yaml().dump(content, text)
    return text.getvalue()


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1000
    yaml.Representer = _Representer
    return yaml


class _Representer(RoundTripRepresenter):
    """Write None as `null`, not as nothing, and put text like `yes` into quotes."""


_Representer.add_representer(
    type(None), lambda dumper, _: dumper.represent_scalar("tag:yaml.org,2002:null", "null")
)
_Representer.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="'" if is_ambiguous(text) else None
    ),
)


def _in_order(names: list[str]) -> list[str]:
    """Sort stages of the graph so that each comes after those that it reads."""
    makers = {out.as_posix(): name for name in names for out in stage_outs(name)}
    stages = read_stages()
    read = {name: [makers[d] for d in stages[name]["deps"] if d in makers] for name in names}
    return [*TopologicalSorter(read).static_order()]


def _reproduce(names: list[str], *, alone: bool) -> None:
    """Run `dvc repro` for the stages, and unless `alone` for those that they depend on.

    Raises:
        InputError: if it fails.
    """
    if not names:
        return
    # The stages call `zntrack`: take that of the running Python, even if its environment is not
    # activated.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = [sys.executable, "-m", "dvc", "repro", *["--single-item"] * alone, *names]
    done = subprocess.run(command, env={**os.environ, "PATH": path}, check=False)
    if done.returncode:
        raise InputError(f"`dvc repro {' '.join(names)}` failed: see its messages above")


FOLDER = Path("workflows")
ROOT = Path("..", "..")  # the project's root, seen from the folder of a graph


@contextlib.contextmanager
def workflow_folder(name: str) -> Iterator[None]:
    """Change to `workflows/<name>/` within the block; create the folder if it does not exist."""
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(folder):
        yield
