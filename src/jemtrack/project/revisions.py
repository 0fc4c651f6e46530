"""Read the results of any commit or experiment without checking it out.

    from jemtrack.project.revisions import Revision

    old = Revision("HEAD~1")
    old.metrics()["MaxEntropyL2"]["accuracy"]
    old.table("EvaluateX/tables/figures.csv")
    model = old.model("MaxEntropyL2")

Files that git does not track come from DVC's cache or its remote.
"""

import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dvc.api
import pandas as pd
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.repo import Repo
from dvc.scm import RevError
from torch import nn

from jemtrack.documents import decoded, parse_yaml
from jemtrack.errors import InputError
from jemtrack.evaluation.models.model_outputs import StoredOutputs, load_outputs
from jemtrack.evaluation.models.results import metrics_of
from jemtrack.project.params import PARAMS
from jemtrack.shared.components import imported
from jemtrack.train.phase import Models

NODES = Path("nodes")
EVALUATION = "EvaluateX"


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
        folder = Path(self.repo or ".").resolve()
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
        text = decoded(self.read(PARAMS), f"{PARAMS} of {self}")
        found: dict[str, Any] = parse_yaml(text, Path(f"{PARAMS} of {self}"))
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
