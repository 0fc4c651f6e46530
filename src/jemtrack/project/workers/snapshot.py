"""A snapshot of the work tree, and clones of the project that are at it."""

import os
import shutil
import subprocess
from pathlib import Path

from jemtrack.errors import InputError
from jemtrack.project.workers.plan import Plan

_REF = "refs/jemtrack/run"
# Neither a user's hooks nor a missing name of the user's can stop a snapshot or a clone.
_SETTINGS = {
    "core.hooksPath": os.devnull,
    "user.name": "jemtrack",
    "user.email": "jemtrack@localhost",
}
_GIT = (
    "git",
    "--literal-pathspecs",
    *(part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")),
)


def take_snapshot(plan: Plan) -> str:
    """Record the work tree, edits included, without touching it; return the commit.

    As in DVC's queue, new files are part of it once `git add` was called for them.

    Raises:
        InputError: if git does not know a file that a stage depends on.
    """
    root = plan.git_root
    if unknown := _unknown_files(plan):
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        names = " ".join(unknown[:3])
        raise InputError(
            f"{', '.join(unknown[:3])}{more}: stages need it, and no worker would have it, because "
            f"git does not know it: `git add {names}`"
        )
    snapshot = head(root)
    if _git(root, "status", "--porcelain", "--untracked-files=no"):
        snapshot = _git(root, "stash", "create") or snapshot
    # Without a reference to it, git would remove the commit one day, while a worker is at it.
    _git(root, "update-ref", _REF, snapshot)
    return snapshot


def head(root: Path) -> str:
    """Return the last commit.

    Raises:
        InputError: if there is none.
    """
    if not (found := _git(root, "rev-parse", "--quiet", "--verify", "HEAD", may_fail=True)):
        raise InputError(f"{root} has no commit, which clones are made from: `git commit` first")
    return found


def _unknown_files(plan: Plan) -> list[str]:
    from dvc.repo import Repo

    listed = _git(plan.git_root, "ls-files", "--others", "-z", "--", *plan.inputs)
    ignored = Repo(plan.dvc_root).dvcignore
    paths = [name for name in listed.split("\0") if name]
    return [name for name in paths if not ignored.is_ignored_file(str(plan.git_root / name))]


def edited_since(plan: Plan, snapshot: str) -> list[str]:
    """List the files, known to git, that differ from the snapshot now and that stages need."""
    found = _git(plan.git_root, "diff", "--name-only", "-z", snapshot, "--", *plan.inputs)
    return [name for name in found.split("\0") if name]


def put_clone(source: str, snapshot: str, clone: Path, baseline: str | None = None) -> None:
    """Bring the folder `clone` to the snapshot: make it a clone of `source` if it is none.

    What git ignores, such as results and data of an earlier run, is left for DVC. With a
    `baseline`, that is the commit of the clone, and what the snapshot has beyond it, an edit.
    """
    try:
        _check_out(clone, source, snapshot, baseline)
    except (InputError, OSError):  # there is none, or it was killed in the middle of something
        shutil.rmtree(clone, ignore_errors=True)
        clone.parent.mkdir(parents=True, exist_ok=True)
        # The objects of one on this disk stay there: a clone takes no time and no space.
        shared = ["--shared"] * Path(source).is_dir()
        _git(clone.parent, "clone", *shared, "--no-checkout", "--quiet", source, str(clone))
        _check_out(clone, source, snapshot, baseline)


def _check_out(clone: Path, source: str, snapshot: str, baseline: str | None) -> None:
    if not (clone / ".git").is_dir():  # git would find the repository above
        raise InputError(f"{clone} is no clone")
    if not Path(source).is_dir():
        _git(clone, "fetch", "--quiet", source, _REF)
    _git(clone, "checkout", "--quiet", "--force", "--detach", snapshot)
    _git(clone, "clean", "--quiet", "--force", "-d")
    for left in (clone / ".git" / "refs").rglob("*.lock"):  # by a DVC that was killed
        left.unlink()
    if baseline:
        _git(clone, "reset", "--quiet", "--soft", baseline)
        # DVC would go on with an experiment that was killed, and refuse one that it has.
        for ref in _git(clone, "for-each-ref", "--format=%(refname)", "refs/exps").split():
            _git(clone, "update-ref", "-d", ref)


def push_snapshot(root: Path, snapshot: str, address: str) -> str:
    """Push the snapshot to a git remote or address, for machines that share no disk.

    Return the address of the remote.
    """
    _git(root, "push", "--quiet", "--force", address, f"{snapshot}:{_REF}")
    return _git(root, "remote", "get-url", address, may_fail=True) or address


def push_experiment(clone: Path, source: str, baseline: str, name: str) -> None:
    """Make an experiment of the clone one of `source`."""
    ref = f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}"
    _git(clone, "push", "--quiet", "--force", source, ref)


def _git(folder: Path, *arguments: str, may_fail: bool = False) -> str:
    """Run git in `folder`; return what it prints; "" if it `may_fail` and does.

    Raises:
        InputError: with what git says, if it fails.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        [*_GIT, *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and not may_fail:
        said = done.stderr.strip() or f"exit status {done.returncode}"
        raise InputError(f"`git {arguments[0]}` in {folder}: {said}")
    return done.stdout.strip()
