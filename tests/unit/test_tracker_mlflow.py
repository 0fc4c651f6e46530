import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tracked_run import (
    FLAT,
    N_STEPS,
    PARAMETERS,
    assert_same,
    broken_off,
    curves,
    diverged_run,
    end,
    expected,
    start,
    steps,
    tell,
    tell_killed,
    tell_resumed,
    tell_to_end,
    whole_run,
)
from tracker_readers import mlflow_points, mlflow_run

import jemtrack
from jemtrack.errors import InputError
from jemtrack.events.events import ArtifactSaved, Measured, RunStart, Status
from jemtrack.jem.networks.model_file import save_model
from jemtrack.jem.networks.shape import WideResNetShape
from jemtrack.jem.networks.wide_resnet import build_model
from jemtrack.shared.plain import plain
from jemtrack.trackers.mlflow import Mlflow


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    """Where the database is: making one takes MLflow seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def uri(folder) -> str:
    return f"sqlite:///{folder}/mlflow.db"


def last_of_each_step(points: dict) -> dict:
    return {name: sorted(dict(values).items()) for name, values in points.items()}


def wanted(events) -> dict:
    record = expected(events)
    by_step = curves(record.batch, "batch/") | curves(record.measured, "measured/")
    return by_step | curves(record.epoch) | curves({0: record.run}, "run/")


def of_run(events, run_id) -> list:
    first = events[0]
    start = RunStart(first.name, first.parameters, run_id, first.session_id)
    return [start, *events[1:]]


def test_mlflow_holds_the_run_each_step_once_and_what_came_last_after_a_divergence(uri, folder):
    weights = folder / "weights.safetensors"
    weights.write_bytes(b"weights")
    artifact = ArtifactSaved(weights, "weights")
    whole = [*whole_run()[:-1], artifact, end()]
    tell_to_end(Mlflow(uri=uri, every=1), of_run(whole, "whole"))
    client, run = mlflow_run(uri, "whole")
    assert_same(mlflow_points(client, run), wanted(whole))
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "Trainer whole"
    assert run.data.params.keys() == FLAT.keys()
    assert run.data.params["params.lr"] == "0.1"
    assert run.data.params["text"] == "x" * 6000
    stored = folder / "mlartifacts" / run.info.run_id / "artifacts"
    assert (stored / "weights" / "weights.safetensors").read_bytes() == b"weights"
    assert json.loads((stored / "parameters.json").read_text()) == plain(PARAMETERS)

    state = tell_killed(Mlflow(uri=uri, every=1))
    client, run = mlflow_run(uri, "run-1")
    assert run.info.status == "RUNNING"
    assert len(mlflow_points(client, run)["train_loss"]) == 2
    tell_resumed(Mlflow(uri=uri, every=1), state)
    client, run = mlflow_run(uri, "run-1")
    assert_same(mlflow_points(client, run), wanted(whole_run()))
    assert run.info.status == "FINISHED"

    # What a session says again that has no step to take is not there twice.
    tell_to_end(Mlflow(uri=uri, every=1), [start(N_STEPS, "session-3"), end()])
    client, run = mlflow_run(uri, "run-1")
    assert_same(mlflow_points(client, run), wanted(whole_run()))

    tell_to_end(Mlflow(uri=uri, every=1), of_run(diverged_run(), "diverged"))
    found = mlflow_points(*mlflow_run(uri, "diverged"))
    assert_same(last_of_each_step(found), wanted(diverged_run()))

    tell_to_end(Mlflow(uri=uri, every=0), of_run(broken_off(4), "broken"))
    client, run = mlflow_run(uri, "broken")
    assert run.info.status == "FAILED"
    assert run.data.tags["jemtrack.status"] == "failed"
    assert not [name for name in run.data.metrics if name.startswith("batch/")]

    aborted = [start(), *steps(1, 4), end(Status.ABORTED)]
    tell_to_end(Mlflow(uri=uri, every=3), of_run(aborted, "aborted"))
    client, run = mlflow_run(uri, "aborted")
    assert run.info.status == "KILLED"
    assert mlflow_points(client, run)["batch/loss"] == [(3, 1 / 9)]

    tell_to_end(Mlflow(uri=uri, every=1), of_run([start(), *steps(1, 5)], "untold"))
    client, run = mlflow_run(uri, "untold")
    assert run.info.status == "FAILED"
    assert len(mlflow_points(client, run)["batch/loss"]) == 5


def test_the_trained_model_is_one_that_mlflow_loads_and_the_data_are_the_runs_input(uri, folder):
    import mlflow

    torch.manual_seed(0)
    shape = WideResNetShape(depth=10, width=1, channels=1, n_classes=3)
    path = folder / "model.safetensors"
    save_model(path, build_model(shape), shape, {"sigma": "0.1"})
    first = start()
    data = {"dataset": "digits", "digest": "0a1b" * 16, "seed": 1}
    begun = RunStart(first.name, {"data": data}, "model", first.session_id)

    tell_to_end(Mlflow(uri=uri), [begun, ArtifactSaved(path, "model"), end()])

    _, run = mlflow_run(uri, "model")
    (logged,) = run.outputs.model_outputs
    model = mlflow.pyfunc.load_model(f"models:/{logged.model_id}")
    assert model.metadata.signature.inputs.to_dict()[0]["tensor-spec"] == {
        "dtype": "uint8", "shape": (-1, 1, -1, -1),
    }  # fmt: skip
    images = np.random.default_rng(0).integers(256, size=(4, 1, 8, 8), dtype=np.uint8)
    expected_NC = jemtrack.load_model(path).predict(images).numpy()
    assert np.array_equal(model.predict(images), expected_NC)
    stored = Path(mlflow.artifacts.download_artifacts(f"models:/{logged.model_id}"))
    assert not [*stored.rglob("*.pkl")]
    assert [*(folder / "mlartifacts" / "models").glob(f"{logged.model_id}/artifacts/MLmodel")]
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("digits", "0a1b" * 9)


def test_what_is_measured_of_the_machine_has_the_names_and_units_of_mlflows_own_monitor(uri):
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor

    measured = {
        "machine_cpu_percent": 30.0,
        "machine_memory_mib": 1000.0,
        "machine_memory_mib.peak": 1500.0,
        "gpu_percent": 40.0,
        "machine_gpu_memory_mib": 2000.0,
        "cpu_percent": 150.0,
    }
    events = [start(), *steps(1, 3), Measured(measured, 3), end()]

    tell_to_end(Mlflow(uri=uri), of_run(events, "system"))

    found = mlflow_points(*mlflow_run(uri, "system"))
    assert {name: value for name, ((_, value), *_) in found.items() if name.startswith("sys")} == {
        "system/cpu_utilization_percentage": 30.0,
        "system/system_memory_usage_megabytes": 1000 * 2**20 / 1e6,
        "system/gpu_0_utilization_percentage": 40.0,
        "system/gpu_0_memory_usage_megabytes": 2000 * 2**20 / 1e6,
    }
    assert found["measured/cpu_percent"] == [(3, 150.0)]
    assert found["measured/machine_memory_mib.peak"] == [(3, 1500.0)]
    monitor = CPUMonitor()
    monitor.collect_metrics()
    assert {f"system/{name}" for name in monitor.aggregate_metrics()} >= {
        name for name in found if name.startswith("system/") and "gpu" not in name
    }


def test_values_that_differ_in_a_later_session_are_those_that_count(uri):
    """The first session diverged after the checkpoint, and took another way from there."""
    first = Mlflow(uri=uri, experiment="again", every=1)
    tell(first, diverged_run()[:-1])

    tell_resumed(Mlflow(uri=uri, experiment="again", every=1), {})

    found = mlflow_points(*mlflow_run(uri, "run-1", "again"))
    assert_same(last_of_each_step(found), wanted(whole_run()))
    assert len(found["batch/loss"]) > len(expected(whole_run()).batch)


def test_the_runs_of_a_group_are_the_children_of_one(uri, monkeypatch):
    for group, run_id, status in (
        ("g1", "prepare", Status.SUCCESS), ("g1", "train", Status.FAILED), ("g2", "again", None),
    ):  # fmt: skip
        monkeypatch.setenv("JEMTRACK_GROUP", group)
        tracker = Mlflow(uri=uri, experiment="groups")
        tell(tracker, of_run([start(), *([end(status)] if status else [])], run_id))
        if status:
            tracker.close()

    children = [mlflow_run(uri, run_id, "groups")[1] for run_id in ("prepare", "train", "again")]

    parents = [child.data.tags["mlflow.parentRunId"] for child in children]
    assert parents[0] == parents[1] != parents[2]
    client, _ = mlflow_run(uri, "again", "groups")
    first, other = (client.get_run(parent) for parent in (parents[0], parents[2]))
    assert (first.info.run_name, first.info.status) == ("g1", "FAILED")
    assert (other.info.run_name, other.info.status) == ("g2", "RUNNING")
    assert len(client.search_runs([first.info.experiment_id])) == 5


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "mlruns"])
def test_plain_files_are_refused(uri):
    with pytest.raises(InputError, match=r"Mlflow\.uri must name a database or a server"):
        Mlflow(uri=uri)


def test_a_run_tells_its_commit_and_the_experiment_of_dvc(uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_EXP_NAME", "group-toms")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "0" * 40)
    identity = ("-c", "user.name=N", "-c", "user.email=n@example.org")
    for command in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *command], check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout

    tell_to_end(Mlflow(uri=uri), of_run([start(), end()], "origin"))

    _, run = mlflow_run(uri, "origin")
    assert run.info.run_name == "Trainer group-toms"
    assert run.data.tags["mlflow.source.name"] == "test/Trainer"
    assert run.data.tags["mlflow.source.git.commit"] == commit.strip()
    assert run.data.tags["dvc.experiment"] == "group-toms"
    assert run.data.tags["dvc.baseline"] == "0" * 40


def test_outside_of_a_repository_a_run_has_no_commit(uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    tell_to_end(Mlflow(uri=uri), of_run([start(), end()], "alone"))

    _, run = mlflow_run(uri, "alone")
    assert not [name for name in run.data.tags if "commit" in name or name.startswith("dvc.")]
