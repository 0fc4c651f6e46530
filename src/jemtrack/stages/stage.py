"""The base class of all stages: check the parameters, measure costs, write the graph."""

import contextlib
import dataclasses
import importlib
import json
import os
import resource
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import znflow
import zntrack
from zntrack.config import FIELD_TYPE, FieldTypes

from jemtrack.errors import (
    InputError,
    ParameterError,
    TrainingDivergedError,
    exit_status,
    problem_text,
)
from jemtrack.files import name_problem
from jemtrack.project.code import listed_paths
from jemtrack.project.params import DVC, PARAMS, check_parameter_file, read_stages
from jemtrack.project.provenance import Determinants, determinants, environment, refuse_edits_since
from jemtrack.project.scratch import (
    keep_outs,
    mark_finished,
    remove_recorded,
    restore_outs,
    resume_hint,
)
from jemtrack.shared.hardware import available_cpus, chosen_device, cpu_threads, use_device
from jemtrack.shared.progress import say
from jemtrack.stages import STARTED

# ZnTrack reserves "_" for its groups, which jemtrack does not use.
warnings.filterwarnings("ignore", message="Node name should not contain '_'")


class Stage(zntrack.Node):  # type: ignore[misc]
    """Base of all nodes: a subclass declares its fields and implements `compute`."""

    resources: Path = zntrack.outs_path(zntrack.nwd / "resources.json")

    def __post_init__(self) -> None:
        """Name the node after its class, unless it has a name or a ZnTrack project names it."""
        super().__post_init__()
        # What the result depends on, while the stage runs; None outside of a DVC project.
        self.inputs: Determinants | None = None
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
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            self.nwd.mkdir(parents=True, exist_ok=True)
            check_parameter_file()
            remove_recorded()
            self.inputs = determinants(self.name, self._chosen())
            self._run_unless_done()
        except (InputError, TrainingDivergedError, OSError) as error:
            # ZnTrack wrote it before the stage ran; `dvc checkout` would not overwrite it.
            with contextlib.suppress(OSError):
                (self.nwd / "node-meta.json").unlink()
            where = f"{PARAMS}: {self.name}.params." if isinstance(error, ParameterError) else ""
            hint = resume_hint(self.inputs) if isinstance(error, OSError) else ""
            sys.exit(f"{self.name}: {where}{problem_text(error)}{hint}")
        except KeyboardInterrupt as interrupt:
            text = f"{interrupt or 'interrupted'}{resume_hint(self.inputs)}"
            print(f"{self.name}: {text}", file=sys.stderr)
            sys.exit(exit_status(interrupt))

    def _run_unless_done(self) -> None:
        """Run `compute`, unless it ended earlier with these inputs, while others were edited.

        Raises:
            InputError: if parameters, code or data were changed meanwhile. DVC, which looks at
                them when the stage has ended, would take the result for one of the new ones.
        """
        if self.inputs is None:
            self._measured_compute()
            return
        self._check_deps(self.inputs)
        if "DVC_STAGE" in os.environ:
            refuse_edits_since(STARTED, self.name)
        if restore_outs(self.inputs):
            print(
                f"{self.name}: its result for these inputs was kept, and is used", file=sys.stderr
            )
        else:
            self._measured_compute()
        if changed := self.inputs.changes():
            keep_outs(self.inputs)
            raise InputError(
                f"{', '.join(changed)} changed while the stage ran. Its result is of the state "
                "before, and is kept for it: undo the change, and `dvc repro` uses the result; "
                "otherwise `dvc repro` runs the stage anew"
            )
        mark_finished(self.inputs)

    def _measured_compute(self) -> None:
        params = getattr(self, "params", None)
        n_threads, device = getattr(params, "threads", None), getattr(params, "device", None)
        n_here = getattr(params, "processes", 1) // getattr(params, "nodes", 1)
        n_busy = (n_threads or 0) * n_here
        if n_busy > (n_cpus := available_cpus()):
            cpus = f"{n_cpus} CPU" + "s" * (n_cpus > 1)
            say(f"{self.name}: {n_busy} threads on {cpus}; a smaller params.threads may be faster")
        with (
            measured(self.resources),
            cpu_threads(n_threads) if n_threads else contextlib.nullcontext(),
            use_device(chosen_device(device)) if device else contextlib.nullcontext(),
        ):
            self.compute()

    def _check_deps(self, inputs: Determinants) -> None:
        """Check that DVC watches the code and the files that the parameters name.

        Raises:
            InputError: naming what an edit of would go unnoticed.
        """
        used = [self, *(value for value in self._chosen().values() if is_dataclass(value))]
        modules = [type(each).__module__ for each in used] + self.code_modules(inputs.values)
        needed = {*listed_paths(modules), *self.unpinned_paths(inputs.values)}
        listed = {*read_stages()[self.name].get("deps", [])}
        # What does not exist, the stage itself will name.
        if missing := sorted(path for path in needed - listed if Path(path).exists()):
            lines = (f"{DVC}: {self.name} does not depend on {path}" for path in missing)
            raise InputError("\n".join(f"{line}: type `jemtrack graph`" for line in lines))

    def _chosen(self) -> dict[str, Any]:
        """Return the parameters of this node, as ZnTrack has read them, by field."""
        kinds = (FieldTypes.PARAMS, FieldTypes.DEPS)
        fields = [f for f in dataclasses.fields(self) if f.metadata.get(FIELD_TYPE) in kinds]
        return {field.name: getattr(self, field.name) for field in fields}

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

    @classmethod
    def unpinned_paths(cls, parameters: Mapping[str, Any]) -> list[str]:
        """List those of `input_paths` whose content the code itself does not check."""
        return cls.input_paths(parameters)

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
    """Write the seconds and the peak memory (MiB) of the block to `path` as JSON, the GPU's too.

    Beside them stands what the result depends on besides its inputs.
    """
    started = time.perf_counter()
    yield
    # ru_maxrss counts KiB on Linux and bytes on macOS.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    costs: dict[str, Any] = {
        "seconds": round(time.perf_counter() - started, 3),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1),
    }
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        costs["peak_gpu_memory_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    costs["environment"] = environment()
    path.write_text(json.dumps(costs, indent=2) + "\n")
