"""Several processes train as one would; they run for real, over gloo."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import nn
from torch.nn.functional import silu

from jemtrack.data.augment import Augmentation
from jemtrack.data.images import LabelledImages
from jemtrack.errors import InputError, Interrupted
from jemtrack.events.events import BatchEnd, EpochEnd, Event, RunStart
from jemtrack.events.handlers import Recorder
from jemtrack.jem.networks import wide_resnet
from jemtrack.jem.networks.shape import WideResNetShape
from jemtrack.jem.networks.wide_resnet import build_model
from jemtrack.jem.objectives.cross_entropy import CrossEntropy
from jemtrack.jem.objectives.max_entropy_l1 import MaxEntropyL1Objective
from jemtrack.jem.objectives.max_entropy_l2 import MaxEntropyL2Objective
from jemtrack.jem.objectives.sampled_jem import SampledJEMObjective
from jemtrack.jem.training.batches import Batch, TrainingBatches
from jemtrack.shared.hardware import Hardware
from jemtrack.shared.metrics import declare_metric
from jemtrack.train import distributed
from jemtrack.train.checkpoint import Checkpoints
from jemtrack.train.distributed import all_gather, is_rank_zero, local_shard, rank
from jemtrack.train.launch import Runtime, launch
from jemtrack.train.optimizers import SGD
from jemtrack.train.phase import Models, Phase, Validation
from jemtrack.train.recipe import Step
from jemtrack.train.run import Run
from jemtrack.train.state import TrainState

TWO = Hardware(device="cpu", processes=2)
OBJECTIVES = {
    "cross_entropy": CrossEntropy(),
    "max_entropy_l1": MaxEntropyL1Objective(entropy_reduction="sum"),
    "max_entropy_l2": MaxEntropyL2Objective(),
    "sampled_jem": SampledJEMObjective(p_x_y_weight=0.5, buffer_size=30, step_size=0.1),
}
CASES = [(name, few) for name in OBJECTIVES for few in (False, True)]
Weights = dict[str, torch.Tensor]
FEW_LABELS = torch.arange(0, 42, 3)
declare_metric("valid_process")


class Seen(Recorder):
    """Keeps the metrics of every batch and epoch."""

    def __init__(self) -> None:
        self.batches: list[dict[str, float]] = []
        self.epochs: list[dict[str, float]] = []
        self.runs = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, BatchEnd) and event.metrics:
            self.batches.append({**event.metrics})
        elif isinstance(event, EpochEnd) and event.metrics:
            self.epochs.append({**event.metrics})
        elif isinstance(event, RunStart):
            self.runs += 1

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches, "epochs": self.epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batches, self.epochs = state["batches"], state["epochs"]


class BreakOff(Recorder):
    """Sends the process a signal after a step."""

    def __init__(self, step: int, number: int) -> None:
        self.step = step
        self.number = number

    def __call__(self, event: Event) -> None:
        if isinstance(event, BatchEnd) and event.step == self.step:
            os.kill(os.getpid(), self.number)


def process_of(models: Models) -> dict[str, float]:
    return {"valid_process": float(rank())}


def make_phase(objective: Any, labelled: torch.Tensor | None = None) -> Phase:
    """42 images in batches of 8: the last one has 2."""
    generator = torch.Generator().manual_seed(1)
    images_NCHW = torch.randint(256, (42, 1, 8, 8), dtype=torch.uint8, generator=generator)
    images = LabelledImages(images_NCHW, torch.arange(42) % 3)
    batches = TrainingBatches(images, Augmentation(sigma=0.1, flip=False, pad=1), 8, 1, labelled)
    validation = Validation(process_of)
    if isinstance(objective, SampledJEMObjective):
        objective = objective.begin(images, n_classes=3, batch_size=8, n_steps=3, seed=1)
    step = Step(name="train", n_epochs=2, optimizers={"network": SGD(lr=1e-3)})
    return Phase(step, objective, batches, validation)


def make_network(dropout_rate: float = 0.0) -> nn.Module:
    torch.manual_seed(3)
    shape = WideResNetShape(
        depth=10, width=1, norm="act", dropout_rate=dropout_rate, channels=1, n_classes=3
    )
    return build_model(shape)


def train(runtime: Runtime, name: str, few: bool) -> tuple[Seen, Weights]:
    """Train by an objective, dropout off; give what was seen, and the weights.

    The activation is a smooth one: at leaky ReLU's kink the gradient jumps, and of as many
    activations as there are here, rounding carries one over it now and then.
    """
    seen, network = Seen(), make_network()
    phase = make_phase(OBJECTIVES[name], FEW_LABELS if few else None)
    with patch.object(wide_resnet, "leaky_relu", lambda x, slope, inplace=False: silu(x)):
        Run("run", {}, TrainState({"network": network}), [phase], [seen], runtime=runtime).train()
    return seen, network.state_dict()


def train_all(runtime: Runtime, file: Path) -> None:
    keep(file, {f"{name}, {few=}": train(runtime, name, few) for name, few in CASES})


def train_with_dropout(
    runtime: Runtime, folder: Path, more: list[Recorder]
) -> tuple[Seen, Weights]:
    seen, network = Seen(), make_network(dropout_rate=0.3)
    run = Run(
        "run",
        {},
        TrainState({"network": network}),
        [make_phase(OBJECTIVES["max_entropy_l2"])],
        [seen, *more],
        checkpoints=Checkpoints(folder) if is_rank_zero() else None,
        runtime=runtime,
    )
    run.train()
    return seen, network.state_dict()


def train_broken_off(runtime: Runtime, folder: Path) -> None:
    """Train whole, and broken off by each of two signals to the first process alone."""
    whole = train_with_dropout(runtime, folder / "whole", [])
    for step, number in ((3, signal.SIGINT), (9, signal.SIGTERM)):
        with pytest.raises(Interrupted):
            train_with_dropout(runtime, folder / "broken", [BreakOff(step, number)])
    resumed = train_with_dropout(runtime, folder / "broken", [])
    keep(folder / "results", {"whole": whole, "resumed": resumed})


def keep(file: Path, results: dict[str, tuple[Seen, Weights]]) -> None:
    """Leave the first process's results for the test to read."""
    if is_rank_zero():
        plain = {
            case: ({"runs": seen.runs, **seen.state_dict()}, weights)
            for case, (seen, weights) in results.items()
        }
        torch.save(plain, file)


TORCHRUN = """
    import sys
    from pathlib import Path

    from jemtrack.shared.hardware import Hardware
    from jemtrack.train.launch import launch
    from test_engine_processes import train_all

    launch(Hardware(device="cpu", processes=2), train_all, Path(sys.argv[1]))
"""


def torchrun(script: str, folder: Path, n_processes: int) -> subprocess.CompletedProcess[str]:
    """Run a script in so many processes, as one does by hand."""
    file = folder.parent / "script.py"
    file.write_text(textwrap.dedent(script))
    command = ["-m", "torch.distributed.run", f"--nproc-per-node={n_processes}", "--standalone"]
    return subprocess.run(
        [sys.executable, *command, str(file), str(folder)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def test_two_processes_train_as_one_does(tmp_path):
    train_all(Runtime(torch.device("cpu")), tmp_path / "alone")
    done = torchrun(TORCHRUN, tmp_path / "together", n_processes=2)

    assert done.returncode == 0, done.stderr
    alone, together = torch.load(tmp_path / "alone"), torch.load(tmp_path / "together")
    assert len(together) == 8
    for case, (seen, weights) in together.items():
        expected, expected_weights = alone[case]
        assert seen["runs"] == 1
        for level in ("batches", "epochs"):
            for found, right in zip(seen[level], expected[level], strict=True):
                assert found == pytest.approx(right, rel=1e-5, abs=1e-6), case
        for name, weight in weights.items():
            torch.testing.assert_close(weight, expected_weights[name], rtol=1e-5, atol=1e-6)


def test_two_processes_go_on_where_they_were(tmp_path):
    launch(TWO, train_broken_off, tmp_path)

    results = torch.load(tmp_path / "results")
    (whole, weights), (resumed, resumed_weights) = results["whole"], results["resumed"]
    assert resumed["batches"] == whole["batches"]
    assert resumed["epochs"] == whole["epochs"]
    assert [epoch["valid_process"] for epoch in whole["epochs"]] == [0.0, 0.0]
    assert all(torch.equal(weights[name], resumed_weights[name]) for name in weights)


def linear_logits(runtime: Runtime) -> tuple[torch.dtype, torch.dtype]:
    """Give the types of a layer's output and of its weights."""
    layer = nn.Linear(4, 2, device=runtime.device)
    with runtime.autocast():
        return layer(torch.ones(1, 4, device=runtime.device)).dtype, layer.weight.dtype


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16-mixed", torch.bfloat16)]
)
def test_the_precision_is_that_of_the_arithmetic_not_of_the_weights(precision, dtype):
    hardware = Hardware(device="cpu", precision=precision)

    assert launch(hardware, linear_logits) == (dtype, torch.float32)


def rank_of_all(runtime: Runtime) -> list[int]:
    return all_gather(torch.tensor([rank()])).tolist()


@pytest.fixture
def _slurm_job(monkeypatch):
    """The variables of the script of `sbatch --ntasks=2`, which `srun` has not started."""
    job = {"JOB_ID": "7", "JOB_NAME": "train", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in {**job, "NTASKS": "2", "NNODES": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)


@pytest.mark.usefixtures("_slurm_job")
def test_the_tasks_of_a_slurm_job_are_not_taken_for_the_processes_of_a_training():
    assert launch(TWO, rank_of_all) == [0, 1]
    half = Hardware(device="cpu", precision="bf16-mixed")
    assert launch(half, linear_logits) == (torch.bfloat16, torch.float32)


def test_as_many_processes_train_as_were_started(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(InputError, match=r"^processes must be 3, .* got 2"):
        launch(TWO, linear_logits)


def test_a_gpu_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"^device must be cpu or auto, got 'cuda'"):
        launch(Hardware(device="cuda"), linear_logits)


def test_a_share_is_cut_from_every_tensor_of_a_batch(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    batch = Batch(torch.arange(10).reshape(5, 2), torch.arange(5))

    share = local_shard({"batch": batch, "rest": (torch.arange(3), "text", None)})

    assert share["batch"].images_BCHW.tolist() == [[6, 7], [8, 9]]
    assert share["batch"].labels_B.tolist() == [3, 4]
    assert share["batch"].density_images_BCHW is None
    assert share["rest"][0].tolist() == [2]
    assert share["rest"][1:] == ("text", None)


def test_batch_norm_of_shares_is_refused_where_it_would_differ(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    models = {"network": nn.Sequential(nn.BatchNorm2d(1))}

    with pytest.raises(InputError, match=r"network has batch norm, .* on GPUs alone"):
        Run("run", {}, TrainState(models), [make_phase(CrossEntropy())]).train()


def test_one_process_needs_nobody():
    values_B = torch.arange(3.0, requires_grad=True)

    assert all_gather(values_B) is values_B
    assert local_shard(values_B) is values_B


def refuse(runtime: Runtime) -> None:
    raise InputError("the images must be of one size")


def test_what_is_wrong_in_the_processes_is_told_as_in_one():
    with pytest.raises(InputError, match=r"^the images must be of one size$"):
        launch(Hardware(device="cpu", processes=2), refuse)
