"""Release a version of an artifact of dvc.yaml, as a git tag of GTO's form."""

import os
from pathlib import Path

import dvc.api
import gto.api
from dvc.exceptions import DvcException
from dvc.repo import Repo
from gto.exceptions import GTOException

from jemtrack.documents import decoded, parse_yaml
from jemtrack.errors import InputError
from jemtrack.project.params import DVC, LOCK, PARAMS
from jemtrack.project.revisions import Revision

HEAD = Revision("HEAD")


def release(name: str, version: str) -> list[str]:
    """Tag the last commit as `version`, such as v1.0.0, of the artifact; return what to do next.

    Raises:
        InputError: if the commit has no such artifact, lacks what the workspace has, or the
            artifact's content is missing; if there is such a version, or it is none.
    """
    path = _artifact_path(name)
    for file in (DVC, LOCK, PARAMS):
        if file.exists() and file.read_bytes() != HEAD.read(file):
            raise InputError(f"{file} differs from the last commit: commit it, then release")
    _check_content(path)
    root = Path(Repo.find_root()).resolve()
    folder = os.path.relpath(Path.cwd(), root)
    full_name = name if folder == "." else f"{folder}:{name}"
    try:
        event = gto.api.register(root, full_name, "HEAD", version=version)
    except GTOException as error:
        raise InputError(f"{full_name} cannot be released as {version}: {error}") from error
    return [
        f"{event.tag} is a tag of the commit {event.commit_hexsha[:7]}; for others to get it:",
        f"  git push origin {event.tag} && dvc push",
        f"  dvc artifacts get REPOSITORY {full_name} --rev {version}",
    ]


def _artifact_path(name: str) -> str:
    content = parse_yaml(decoded(HEAD.read(DVC), f"{DVC} of {HEAD}"), DVC) or {}
    artifacts = content.get("artifacts") or {}
    if name not in artifacts:
        there = ", ".join(artifacts) or "none"
        raise InputError(f"{DVC} of the last commit has no artifact {name!r}; it has {there}")
    return str(artifacts[name]["path"])


def _check_content(path: str) -> None:
    """Read all of the artifact: a tag of what nobody has would be found out by who gets it."""
    root = Path(Repo.find_root()).resolve()
    within = (Path.cwd() / path).relative_to(root).as_posix()
    try:
        files = dvc.api.DVCFileSystem(str(root), rev=HEAD.name)
        for file in [*files.find(within)]:
            files.cat_file(file)
        found = files.exists(within)
    except (DvcException, OSError) as error:
        raise InputError(f"{path} of the last commit cannot be read: {error}") from error
    if not found:
        raise InputError(f"the last commit has no {path}: `dvc repro`, and commit {LOCK}")
