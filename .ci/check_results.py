"""Fail if dvc.lock was not made from the code, parameters and data of this checkout.

This needs none of the results that only DVC's cache has: that those are absent is no difference,
and whether a stage used what the stage before it made is seen in dvc.lock itself.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ABSENT = {"not in cache", "deleted"}


def main() -> None:
    """Print a line for each difference."""
    stages = yaml.safe_load(Path("dvc.lock").read_text())["stages"]
    pinned = {
        out["path"]: out["md5"] for out in yaml.safe_load(Path("data.dvc").read_text())["outs"]
    }
    made = pinned | {o["path"]: o["md5"] for stage in stages.values() for o in stage["outs"]}
    asked = subprocess.run(["dvc", "status", "--json"], stdout=subprocess.PIPE, check=False)
    if asked.returncode:
        sys.exit(asked.returncode)  # DVC has said why
    status = json.loads(asked.stdout)
    problems = [*changed(status, made), *broken_chains(stages, made)]
    if problems:
        sys.exit("\n".join([*problems, "dvc.lock is stale: type `dvc repro`, and commit it"]))


def changed(status: dict[str, list[Any]], made: dict[str, str]) -> Iterator[str]:
    """List what DVC finds changed, but not the results that are absent from this checkout."""
    for stage, entries in status.items():
        for entry in entries:
            if isinstance(entry, str):  # "changed command"
                yield f"{stage}: {entry}"
                continue
            for kind, paths in entry.items():
                for path, state in paths.items():
                    of_results = any(str(each) in made for each in (path, *Path(path).parents))
                    if not (of_results and state in ABSENT):
                        yield f"{stage}: {kind}: {path}: {state}"


def broken_chains(stages: dict[str, Any], made: dict[str, str]) -> Iterator[str]:
    """List the dependencies of stages on results that are not those of the stage before."""
    for name, stage in stages.items():
        for dep in stage["deps"]:
            if dep["path"] in made and dep["md5"] != made[dep["path"]]:
                yield f"{name}: changed deps: {dep['path']}: made anew since"


if __name__ == "__main__":
    main()
