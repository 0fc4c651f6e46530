"""What all stages share: parameters checked first, costs measured, the graph written."""

import contextlib
import importlib
import json
import resource
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import znflow
import zntrack

from jemtrack.errors import InputError, ParameterError, TrainingDivergedError, exit_status
from jemtrack.project.params import PARAMS, check_parameter_file

# ZnTrack keeps "_" for its groups, but a name with one works as well as any other.
warnings.filterwarnings("ignore", message="Node name should not contain '_'")


class Stage(zntrack.Node):  # type: ignore[misc]
    """A node whose subclasses say in `compute` what the stage does."""

    resources: Path = zntrack.outs_path(zntrack.nwd / "resources.json")

    def __post_init__(self) -> None:
        """Name the node after its class, unless it has a name or a project is to give it one."""
        super().__post_init__()
        if "nwd" not in self.__dict__ and znflow.get_graph() is znflow.empty_graph:
            self.name = type(self).__name__

    def compute(self) -> None:
        """Read the deps, do the work, write the outs."""
        raise NotImplementedError

    def run(self) -> None:
        """Check the parameters of all stages, then compute and record what it took.

        What a user can mend is printed without a traceback, and the process exits with 1; where
        Ctrl-C or SIGTERM ended it, it exits as a shell says so, with 128 and the signal's number.
        """
        self.nwd.mkdir(parents=True, exist_ok=True)
        try:
            check_parameter_file()
            with measured(self.resources):
                self.compute()
        except (InputError, TrainingDivergedError) as error:
            # ZnTrack wrote it beforehand; `dvc checkout` would not write over it.
            (self.nwd / "node-meta.json").unlink(missing_ok=True)
            where = f"{PARAMS}: {self.name}.params." if isinstance(error, ParameterError) else ""
            sys.exit(f"{self.name}: {where}{error}")
        except KeyboardInterrupt as interrupt:
            print(f"{self.name}: {interrupt or 'interrupted'}", file=sys.stderr)
            sys.exit(exit_status(interrupt))

    @classmethod
    def parameter_problems(cls, where: str, objects: Mapping[str, Any]) -> list[str]:
        """Say what is wrong with parameters that no parameters class checks, a line a problem.

        `where` leads to the `objects`: parameter objects, None where they are at fault, and
        plain values.
        """
        return []

    @classmethod
    def code_modules(cls, parameters: Mapping[str, Any]) -> list[str]:
        """Name the modules that the stage runs because its `parameters` say so."""
        return []

    @classmethod
    def input_paths(cls, parameters: Mapping[str, Any]) -> list[str]:
        """Name the files and folders that the stage reads because its `parameters` say so."""
        return []

    def write_graph(self, *, run: bool = False, no_exec: bool | None = None) -> None:
        """Write this stage into dvc.yaml, params.yaml and zntrack.json; `run` it if asked.

        What was added or changed in the files by hand stays. `no_exec` is the older
        spelling of `not run`.

        Raises:
            InputError: when another stage has the name already.
        """
        self._project("graph").write_graph([self], run=run, no_exec=no_exec)

    @property
    def state(self) -> Any:
        """Give ZnTrack's status of the node; a node being declared emits our form of a stage."""
        if "state" not in self.__dict__:
            plugin = self._project("plugin").StagePlugin(self)
            super().state.plugins["DVCPlugin"] = plugin
        return super().state

    @staticmethod
    def _project(module: str) -> Any:
        # An import statement would make the writer a code dependency of every stage.
        return importlib.import_module(f"jemtrack.project.{module}")


def plot(path: Path, **options: Any) -> Any:
    """Declare an out that is a DVC plot; `options` are those of DVC: x, y, title, template.

    Images have none.
    """
    return zntrack.plots_path(path, metadata={"plot": options})


@contextlib.contextmanager
def measured(path: Path) -> Iterator[None]:
    """Write the seconds and the peak memory (MiB) of the block, and the GPU's, to `path`."""
    started = time.perf_counter()
    yield
    # ru_maxrss counts KiB on Linux and bytes on macOS.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    costs = {
        "seconds": round(time.perf_counter() - started, 3),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1),
    }
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        costs["peak_gpu_memory_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    path.write_text(json.dumps(costs, indent=2) + "\n")
