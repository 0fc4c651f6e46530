"""Train small models of each kind, twice and killed in the middle, and compare their files.

Each training is a process of its own, as a user has it: `jemtrack train --config`, or for cells,
which a recipe file has no section for, this module. `benchmarks.gpu` runs them.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from jemtrack.data.sources.fetch import fetch
from jemtrack.train.checkpoint import newest_first

ROOT = Path(__file__).parents[1]
PRECISIONS = ("fp32", "bf16-mixed")
AT_ONCE = 12  # processes on one GPU
SECONDS = 120  # that one of them may take
CELLS = "inVAE"
MODEL = Path("out", "model.safetensors")
N_STEPS = 30
_TRAIN = "import sys; from jemtrack.commands.main import main; sys.exit(main())"


def _jem(objective: Mapping[str, Any], norm: str) -> dict[str, Any]:
    # Dropout draws from the GPU's global random stream, which a checkpoint must hold.
    model = {"family": "jem", "depth": 10, "width": 2, "norm": norm, "dropout_rate": 0.2}
    optimizers = {"network": {"type": "Adam", "lr": 0.001, "clip_norm": 5.0}}
    step = {"name": "train", "n_epochs": 2, "max_steps": N_STEPS // 2, "objective": objective}
    step["optimization"] = {"optimizers": optimizers}
    training = {"n_steps": 10, "callbacks": [{"type": "ema"}], "pipeline": {"steps": [step]}}
    return {"model": model, "training": training}


def _flux() -> dict[str, Any]:
    autoencoder = {"train_vae": True, "train_spade": True, "use_lpips": True}
    flow = {"train_diff_full": True, "freeze": ["compressor", "expander"]}
    steps = [
        {"name": "vae", **autoencoder},
        {"name": "vae_gan", **autoencoder, "gan_training": True, "r1_interval": 2},
        {"name": "flow", **flow},
        {"name": "mean_flow", **flow, "flow_objective": "mean_flow"},
    ]  # fmt: skip
    each = {"n_epochs": 1, "max_steps": N_STEPS // len(steps)}
    return {
        "model": {"family": "flux"},
        "training": {"pipeline": {"steps": [{**step, **each} for step in steps]}},
    }


RECIPES = {
    "cross entropy": _jem({"type": "cross_entropy"}, "batch"),
    "max entropy L1": _jem({"type": "max_entropy_l1"}, "act"),
    "max entropy L2": _jem({"type": "max_entropy_l2"}, "layer"),
    "SampledJEM": _jem(
        {
            "type": "sampled_jem",
            "class_conditional": True,
            "start": "class_gaussians",
            "buffer_size": 1000,
        },
        "none",
    ),
    "flux: VAE, GAN with R1, flow, mean flow": _flux(),
}
NAMES = (*RECIPES, CELLS)


@dataclass(frozen=True)
class Trained:
    """What became of a training; `error` is the last line of what it printed if it failed."""

    name: str
    precision: str
    seconds: float = 0.0
    same_twice: bool = False
    killed_at: int = 0
    same_after_kill: bool = False
    model: Path = Path()
    error: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells of its row."""
        if self.error:
            return self.name, self.precision, f"failed: {self.error}", "", "", ""
        kill = f"at {self.killed_at} of {N_STEPS}" if self.killed_at else "ended before"
        answers = ("yes" if each else "NO" for each in (self.same_twice, self.same_after_kill))
        same, after = answers
        return self.name, self.precision, f"{self.seconds:.0f} s", same, kill, after


HEAD = ("training", "precision", "runs", "same bytes twice", "killed", "same bytes after it")


def trained(device: str, folder: Path, names: Sequence[str] = NAMES) -> list[Trained]:
    """Run all trainings of these names on the device, several at once, in `folder`."""
    fetch("digits", folder / "data")
    both = [*product(names, PRECISIONS)]

    def outcome(each: tuple[str, str]) -> Trained:
        found = _outcome(*each, device, folder)
        print(*found.cells, sep=" | ", file=sys.stderr, flush=True)  # all that is left of a cut run
        return found

    with ThreadPoolExecutor(AT_ONCE if device == "cuda" else 1) as pool:
        return [*pool.map(outcome, both)]


def _outcome(name: str, precision: str, device: str, folder: Path) -> Trained:
    here = folder / f"{NAMES.index(name)}-{precision}"
    runs = [Process(here / run, name, precision, device) for run in ("first", "again", "killed")]
    first, again, killed = runs
    started = time.perf_counter()
    try:
        first.run()
        seconds = time.perf_counter() - started
        again.run()
        killed_at = killed.kill_after(N_STEPS // 2)
        killed.run()
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return Trained(name, precision, error=str(error).replace("|", "/"))
    return Trained(
        name, precision, seconds, first.digest == again.digest,
        killed_at, first.digest == killed.digest, first.folder / MODEL,
    )  # fmt: skip


@dataclass(frozen=True)
class Process:
    """A training in a folder of its own."""

    folder: Path
    name: str
    precision: str
    device: str

    def run(self) -> None:
        """Train to the end, or go on.

        Raises:
            RuntimeError: with the last line that it printed, if it fails.
        """
        with self._started() as process:
            try:
                status = process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        if status:
            lines = (self.folder / "log").read_text().strip().splitlines() or ["nothing printed"]
            raise RuntimeError(lines[-1])

    def kill_after(self, step: int) -> int:
        """Kill it as soon as a checkpoint has so many steps; return its steps, 0 if there is none.

        It writes one after each step.
        """
        with self._started(checkpoint_seconds=0) as process:
            while process.poll() is None and self._saved() < step:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        return self._saved() if process.returncode == -signal.SIGKILL else 0

    @property
    def digest(self) -> str:
        """The SHA-256 of the trained model's file."""
        return hashlib.sha256((self.folder / MODEL).read_bytes()).hexdigest()

    def _saved(self) -> int:
        folders = (self.folder / ".jemtrack").rglob("*.checkpoint")
        return max((file.step for each in {path.parent for path in folders}
                    for file in newest_first(each)), default=0)  # fmt: skip

    def _started(self, checkpoint_seconds: float = 60) -> subprocess.Popen[bytes]:
        # A root of its own: checkpoints of a project that the folder is in would be in its root.
        (self.folder / ".dvc").mkdir(parents=True, exist_ok=True)
        environment = {
            **own_environment(),
            "JEMTRACK_CHECKPOINT_SECONDS": str(checkpoint_seconds),
            "OMP_NUM_THREADS": "1",
        }
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                self._command(), cwd=self.folder, env=environment, stdout=log, stderr=log
            )

    def _command(self) -> list[str]:
        if self.name == CELLS:
            chosen = ("--device", self.device, "--precision", self.precision)
            return [sys.executable, "-m", "benchmarks.gpu_trainings", *chosen]
        recipe: dict[str, Any] = json.loads(json.dumps(RECIPES[self.name]))
        data = {"dataset": "digits", "data_root": str(self.folder.parents[1] / "data")}
        recipe["data"] = {**data, "n_valid": 180}
        recipe["training"] |= {
            "batch_size": 64, "threads": 1, "device": self.device, "precision": self.precision,
        }  # fmt: skip
        (self.folder / "recipe.yaml").write_text(json.dumps(recipe, indent=1))
        return [sys.executable, "-c", _TRAIN, "train", "--config", "recipe.yaml", "--out", "out"]


def own_environment() -> dict[str, str]:
    """Return the environment of a process that imports this checkout, wherever it runs."""
    path = [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def train_cells(device: str, precision: str) -> None:
    """Train inVAE on drawn cells in the working directory; resume what was killed."""
    import numpy as np
    from scipy import sparse

    from jemtrack.data.cells.cells import Cells, CellSplits, Vocabulary
    from jemtrack.invae.family import FAMILY, InVAESettings, InVAEStep
    from jemtrack.invae.options import NETWORK, InVAEShape
    from jemtrack.project.runtime import checkpoint_seconds
    from jemtrack.train.checkpoint import Checkpoints
    from jemtrack.train.launch import Runtime, launch
    from jemtrack.train.optimizers import Adam
    from jemtrack.train.recipe import Recipe
    from jemtrack.train.run import Training

    random = np.random.default_rng(1)
    n_genes, n_codes, n_epochs, batch_size = 500, 3, 3, 100

    def cells(n: int) -> Cells:
        counts_NG = sparse.csr_matrix(random.poisson(0.3, (n, n_genes)).astype(np.int32))
        labels_N = random.integers(-1, n_codes, n)  # -1: a cell without a label
        return Cells(counts_NG, random.integers(n_codes, size=n), labels_N)

    names = tuple(f"{number}" for number in range(n_genes))
    codes = names[:n_codes]
    train, valid = cells(batch_size * N_STEPS // n_epochs), cells(100)
    data = CellSplits("drawn", 1, Vocabulary(names, codes, codes), train, valid)
    settings = InVAESettings(
        batch_size=batch_size, device=device, precision=precision, threads=1  # type: ignore[arg-type]
    )  # fmt: skip
    recipe = Recipe(
        steps=(InVAEStep(name="train", n_epochs=n_epochs, optimizers={NETWORK: Adam(lr=1e-3)}),)
    )

    def go(runtime: Runtime) -> None:
        shape = InVAEShape(dispersion="gene_batch", likelihood="zinb")
        training = Training("cells", FAMILY, recipe, shape, settings, data, runtime)
        MODEL.parent.mkdir(exist_ok=True)
        training.train([], Checkpoints(Path(".jemtrack", "cells"), checkpoint_seconds()), MODEL)

    launch(settings, go)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=train_cells.__doc__)
    parser.add_argument("--device", required=True)
    parser.add_argument("--precision", required=True)
    train_cells(**vars(parser.parse_args()))
