"""Read the results of any commit or experiment without checking it out.

    from jemtrack.project.revisions import Revision

    old = Revision("HEAD~1")
    old.metrics()["MaxEntropyL2"]["accuracy"]
    old.table("EvaluateX/tables/figures.csv")
    model = old.model("MaxEntropyL2")
    old.stage("MaxEntropyL2").local_paths["nodes/MaxEntropyL2/model.safetensors"]

Files that git does not track come from DVC's cache or its remote.
"""

import io
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import dvc.api
import pandas as pd
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.repo import Repo
from dvc.scm import RevError
from dvc_data.hashfile.hash_info import HashInfo
from torch import nn

from jemtrack.documents import decoded, parse_json, parse_yaml
from jemtrack.errors import InputError
from jemtrack.evaluation.models.model_outputs import StoredOutputs, load_outputs
from jemtrack.evaluation.models.results import metrics_of
from jemtrack.parameters import suggestion
from jemtrack.project.params import DVC, LOCK, PARAMS
from jemtrack.shared.components import imported
from jemtrack.train.phase import Models

NODES = Path("nodes")
EVALUATION = "EvaluateX"
_FOLDER = ".dir"  # the end of the MD5 of a folder


class StageOutput(NamedTuple):
    """What a stage has made, by the paths of its outs.

    Attributes:
        artifacts: the reference of each out: the MD5 of its content, as in `dvc.lock`, which
            `Revision.resolve` takes.
        metadata: its `params`, and its `metrics` by the paths of their files.
        local_paths: where the content of each out lies on this machine. Of a revision these are
            files of DVC's cache, which must not be changed; what git tracks is not among them.
    """

    artifacts: Mapping[str, str]
    metadata: Mapping[str, Any]
    local_paths: Mapping[str, Path]


@dataclass(frozen=True)
class Revision:
    """A commit, branch, tag or experiment, by any name that git or DVC knows.

    Args:
        name: None is the workspace as it is.
        repo: the folder of a graph, or the address of a project; None is this folder. Paths are
            relative to it.

    Raises:
        InputError: by each method, if there is no such revision, file, or copy of the file.
    """

    name: str | None = None
    repo: str | None = None

    def __str__(self) -> str:
        return self.name or "workspace"

    def read(self, path: str | Path) -> bytes:
        """Read a file, such as `params.yaml` or `nodes/Report/report.html`."""
        folder = self._folder
        if self.name is None and folder.is_dir():
            try:
                return (folder / path).read_bytes()
            except OSError as error:
                raise InputError(f"{path} of the workspace: {error.strerror}") from error
        try:
            repo, within = self._place(folder, path)
            found = dvc.api.read(within, repo=repo, rev=self.name, mode="rb")
        except NotDvcRepoError as error:
            raise InputError(f"{folder} is not in a DVC project") from error
        except RevError as error:
            raise InputError(
                f"{self.name!r} is not a commit, branch, tag or experiment: `git log` and "
                "`dvc exp list` list them"
            ) from error
        except (DvcException, OSError) as error:
            raise InputError(
                f"{path} of {self}: {error}; `dvc fetch --all-commits` gets what was made on "
                "another machine"
            ) from error
        return bytes(found)

    def _place(self, folder: Path, path: str | Path) -> tuple[str | None, str]:
        """Find the project and the path within it, by which DVC reads the file."""
        if not folder.is_dir():  # an address
            return self.repo, str(path)
        root = Path(Repo.find_root(folder)).resolve()
        return str(root), (folder / path).relative_to(root).as_posix()

    def metrics(self, stage: str = EVALUATION) -> dict[str, dict[str, float]]:
        """Read all measures of an evaluation, by model."""
        return metrics_of(self.table(f"{stage}/tables/measures.csv"))

    def params(self) -> dict[str, Any]:
        """Read the parameters of all stages."""
        return self._yaml(PARAMS)

    def stage(self, name: str) -> StageOutput:
        """Read what a stage made in the last run that `dvc.lock` records.

        Raises:
            InputError: if there is no such stage, it has not run, or its files are nowhere.
        """
        stages, locked = ((self._yaml(path).get("stages") or {}) for path in (DVC, LOCK))
        if name not in stages:
            raise InputError(f"{DVC} of {self} has no stage {name!r}; {suggestion(name, stages)}")
        if name not in locked:
            raise InputError(f"{LOCK} of {self} has no result of {name}: type `dvc repro {name}`")
        made = {out["path"]: str(out["md5"]) for out in locked[name].get("outs", [])}
        metrics = _paths(stages[name].get("metrics", []))
        metadata = {
            "params": self.params().get(name, {}),
            "metrics": {
                path: parse_json(self.read(path), f"{path} of {self}")
                for path in metrics
                if path in made and not made[path].endswith(_FOLDER)
            },
        }
        if self.name is None:
            return StageOutput(made, metadata, {path: self._folder / path for path in made})
        # Metrics are small files in git, and not in DVC's cache.
        cached = {path: content for path, content in made.items() if path not in metrics}
        return StageOutput(
            made, metadata, {path: self.resolve(content) for path, content in cached.items()}
        )

    def resolve(self, reference: str) -> Path:
        """Return where the content of an artifact lies in DVC's cache; fetch it if it does not.

        Raises:
            InputError: if neither the cache nor the remote has it.
        """
        try:
            with Repo(str(self._folder)) as repo:
                path = Path(repo.cache.local.oid_to_path(reference))
                if not path.exists():
                    repo.cloud.pull([HashInfo("md5", reference)])
        except DvcException as error:
            raise InputError(f"{reference} is not in DVC's cache: {error}") from error
        if not path.exists():
            raise InputError(f"{reference} is neither in DVC's cache nor on its remote")
        return path

    @property
    def _folder(self) -> Path:
        return Path(self.repo or ".").resolve()

    def _yaml(self, path: str | Path) -> dict[str, Any]:
        where = f"{path} of {self}"
        found: dict[str, Any] = parse_yaml(decoded(self.read(path), where), Path(where))
        return found

    def table(self, path: str) -> pd.DataFrame:
        """Read a CSV file under `nodes/`, such as `EvaluateX/tables/figures.csv`."""
        return pd.read_csv(
            io.BytesIO(self.read(NODES / path)),
            keep_default_na=False,
            na_values=[""],
            float_precision="round_trip",
        )

    def models(self, trainer: str) -> Models:
        """Load the models of a trainer by name, in evaluation mode, on the CPU."""
        content, family = self.read(NODES / trainer / "model.safetensors"), self._family(trainer)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.safetensors")
            path.write_bytes(content)
            models: Models = family.load(path)
        return {name: model.eval() for name, model in models.items()}

    def model(self, trainer: str) -> nn.Module:
        """Load the first model of a trainer, which is the only one in many families."""
        return next(iter(self.models(trainer).values()))

    def _family(self, trainer: str) -> Any:
        """Find the family that the trainer's parameters belong to."""
        section = (self.params().get(trainer) or {}).get("params") or {}
        cls: Any = imported(section["_cls"]) if "_cls" in section else None
        if not hasattr(cls, "family"):
            raise InputError(f"params.yaml of {self}: {trainer} is no stage that trains a family")
        return cls.family

    def outputs(self, stage: str = EVALUATION) -> StoredOutputs:
        """Load the outputs of each model for the evaluated images."""
        path = NODES / stage / "outputs.safetensors"
        return load_outputs(self.read(path), f"{path} of {self}")


def _paths(entries: Iterable[str | Mapping[str, Any]]) -> list[str]:
    """Return the paths of outs of `dvc.yaml`; one with options is a mapping of its path."""
    return [each if isinstance(each, str) else next(iter(each)) for each in entries]
