"""The base class of all stages: check the parameters, measure costs, write the graph."""

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
from jemtrack.files import name_problem
from jemtrack.project.params import PARAMS, check_parameter_file

# ZnTrack reserves "_" for its groups, which jemtrack does not use.
warnings.filterwarnings("ignore", message="Node name should not contain '_'")


class Stage(zntrack.Node):  # type: ignore[misc]
    """Base of all nodes: a subclass declares its fields and implements `compute`."""

    resources: Path = zntrack.outs_path(zntrack.nwd / "resources.json")

    def __post_init__(self) -> None:
        """Name the node after its class, unless it has a name or a ZnTrack project names it."""
        super().__post_init__()
        if "nwd" not in self.__dict__ and znflow.get_graph() is znflow.empty_graph:
            self.name = type(self).__name__

    def __setattr__(self, attribute: str, value: Any) -> None:
        """Set a field.

        Raises:
            InputError: for a name that cannot be that of a folder and of a stage on every system.
        """
        if attribute == "name" and value and (problem := name_problem(value, dots=False)):
            raise InputError(f"the name of a stage {problem}")
        super().__setattr__(attribute, value)

    def compute(self) -> None:
        """Read the deps, do the work, write the outs."""
        raise NotImplementedError

    def run(self) -> None:
        """Check the parameters of all stages, run `compute`, and write its time and memory.

        Errors that a user can fix are printed without a traceback, and the process exits with
        status 1. After Ctrl-C or SIGTERM, the status is 128 plus the number of the signal, as
        shells have it.
        """
        self.nwd.mkdir(parents=True, exist_ok=True)
        try:
            check_parameter_file()
            with measured(self.resources):
                self.compute()
        except (InputError, TrainingDivergedError) as error:
            # ZnTrack wrote it before the stage ran; `dvc checkout` would not overwrite it.
            (self.nwd / "node-meta.json").unlink(missing_ok=True)
            where = f"{PARAMS}: {self.name}.params." if isinstance(error, ParameterError) else ""
            sys.exit(f"{self.name}: {where}{error}")
        except KeyboardInterrupt as interrupt:
            print(f"{self.name}: {interrupt or 'interrupted'}", file=sys.stderr)
            sys.exit(exit_status(interrupt))

    @classmethod
    def parameter_problems(cls, where: str, objects: Mapping[str, Any]) -> list[str]:
        """List the problems of parameters that no parameters class checks, one line each.

        `objects` holds the stage's fields: parameter objects, None for one that has problems,
        and plain values. `where` is the path to them, with which a line begins.
        """
        return []

    @classmethod
    def code_modules(cls, parameters: Mapping[str, Any]) -> list[str]:
        """List the modules that the stage uses only with these `parameters`, by dotted name."""
        return []

    @classmethod
    def input_paths(cls, parameters: Mapping[str, Any]) -> list[str]:
        """List the files and folders that the stage reads with these `parameters`."""
        return []

    def write_graph(self, *, run: bool = False, no_exec: bool | None = None) -> None:
        """Write this stage into dvc.yaml, params.yaml and zntrack.json; with `run`, reproduce it.

        What was added or changed in the files by hand is kept. `no_exec` is the older
        spelling of `not run`.

        Raises:
            InputError: if another stage has this name.
        """
        self._project("graph").write_graph([self], run=run, no_exec=no_exec)

    @property
    def state(self) -> Any:
        """ZnTrack's state of the node, with `StagePlugin` to convert it to a stage of dvc.yaml."""
        if "state" not in self.__dict__:
            plugin = self._project("plugin").StagePlugin(self)
            super().state.plugins["DVCPlugin"] = plugin
        return super().state

    @staticmethod
    def _project(module: str) -> Any:
        # A running stage need not import what writes the graph.
        return importlib.import_module(f"jemtrack.project.{module}")


def plot(path: Path, **options: Any) -> Any:
    """Declare an out that is a DVC plot, with DVC's `options` (x, y, title, template).

    An image takes no options.
    """
    return zntrack.plots_path(path, metadata={"plot": options})


@contextlib.contextmanager
def measured(path: Path) -> Iterator[None]:
    """Write the seconds and the peak memory (MiB) of the block to `path` as JSON, the GPU's too."""
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
