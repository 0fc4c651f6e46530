"""The graph's files: dvc.yaml, params.yaml and zntrack.json, written without losing edits."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from jemtrack.errors import InputError
from jemtrack.graph.merge import MISSING, merge
from jemtrack.stages.stage import Stage

DVC, PARAMS, ZNTRACK = Path("dvc.yaml"), Path("params.yaml"), Path("zntrack.json")

# Under this name a stage's entry in zntrack.json remembers what the graph wrote of it, so that
# the next writing can tell a change by hand from a change of the graph.
_WRITTEN = "_written"


def write_graph(nodes: Iterable[Stage], *, run: bool = False, no_exec: bool | None = None) -> None:
    """Write the stages of `nodes` into the three files, and run them if asked.

    Other stages, and what was added to these by hand, stay. `no_exec` is the older spelling
    of `not run`.

    Raises:
        InputError: when two stages have one name, or a node's class cannot be imported.
    """
    nodes = [*nodes]
    files = {path: _read(path) for path in (DVC, PARAMS, ZNTRACK)}
    _check_names(nodes, files)
    for node in nodes:
        _bring_in(node, files)
    for path, content in files.items():
        if content:
            _write(path, content)
    if run if no_exec is None else not no_exec:
        _reproduce([node.name for node in nodes])


def _bring_in(node: Stage, files: dict[Path, Any]) -> None:
    """Merge one stage into the contents of the files."""
    name, plugin = node.name, node.state.plugins["DVCPlugin"]
    record = files[ZNTRACK].get(name, {}).get(_WRITTEN, {})
    params = plugin.convert_to_params_yaml()
    _merge_at(files[PARAMS], name, record.get("params", MISSING), _plain(params))
    # Some inputs follow from the parameters: from those in the file, which may be changed.
    inputs = node.input_paths(files[PARAMS][name])
    emitted = _plain(plugin.convert_to_dvc_yaml())
    emitted["stages"]["deps"] = sorted({*emitted["stages"]["deps"], *inputs})
    stages = files[DVC].setdefault("stages", {})
    _merge_at(stages, name, record.get("stage", MISSING), emitted["stages"])
    _merge_at(files[DVC], "plots", record.get("plots", MISSING), emitted["plots"])
    files[ZNTRACK][name] = {
        **plugin.convert_to_zntrack_json(graph=None),
        _WRITTEN: {
            "params": _plain(params),
            "stage": emitted["stages"],
            "plots": emitted["plots"],
        },
    }


def _merge_at(place: Any, key: str, written: Any, new: Any) -> None:
    place[key] = merge(written, place.get(key, MISSING), new, key, _tell)


def _plain(value: Any) -> Any:
    """Give the value as YAML and JSON know it: no tuples, no enums, nothing shared."""
    return json.loads(json.dumps(value))


def _tell(message: str) -> None:
    print(message, file=sys.stderr)


def _check_names(nodes: list[Stage], files: dict[Path, Any]) -> None:
    counts = Counter(node.name for node in nodes)
    for node in nodes:
        if counts[node.name] > 1:
            raise InputError(
                f"{DVC}: {counts[node.name]} stages are to be called {node.name!r}; "
                f"give each a name of its own: {type(node).__name__}(name=...)"
            )
        _check_holder(node, files)


def _check_holder(node: Stage, files: dict[Path, Any]) -> None:
    stage = files[DVC].get("stages", {}).get(node.name)
    command = f"zntrack run {type(node).__module__}.{type(node).__name__} "
    if stage is None or command in f"{stage.get('cmd', '')} ":
        return
    raise InputError(
        f"{DVC}: there is a stage {node.name!r} already, which runs {stage.get('cmd')!r}; "
        f"give the new one another name ({type(node).__name__}(name=...)), "
        f"or remove the old one first: dvc remove {node.name}"
    )


def _read(path: Path) -> Any:
    if not path.exists():
        return {}
    if path is ZNTRACK:
        return json.loads(path.read_text())
    return _yaml().load(path.read_text()) or {}


def _write(path: Path, content: Any) -> None:
    if path is ZNTRACK:
        path.write_text(json.dumps(content, indent=4) + "\n")
        return
    with path.open("w") as file:
        _yaml().dump(content, file)


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1000
    return yaml


def _reproduce(names: list[str]) -> None:
    """Run the stages; the exit status of `dvc repro` is this one's."""
    done = subprocess.run([sys.executable, "-m", "dvc", "repro", *names], check=False)
    if done.returncode:
        raise InputError(f"`dvc repro {' '.join(names)}` failed: its messages stand above")
