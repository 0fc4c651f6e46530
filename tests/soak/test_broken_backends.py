"""Backends of trackers that break: the training ends in time, with the weights of an untracked one.

Each backend is real: a database that another process holds locked, a server of MLflow that is
killed, a socket that never answers, a disk that takes no more bytes.
"""

import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from project import ROOT
from ruamel.yaml import YAML
from safetensors.torch import load_file
from torch import Tensor

from jemtrack.data.sources.fetch import fetch
from jemtrack.record.jsonl import read_lines

Weights = dict[str, Tensor]
OWN = Path(__file__).parents[1] / "unit"  # the folder of hostile_trackers
HINT = "`jemtrack replay` sends it the whole record"
yaml = YAML(typ="safe", pure=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("broken")
    fetch("digits", path / "data")
    return path


@pytest.fixture(scope="module")
def weights(folder: Path) -> Weights:
    """The weights of the training without trackers."""
    with training(folder, "untracked") as process:
        assert process.wait(300) == 0, process.stderr.read()
    return load_file(folder / "untracked" / "model.safetensors")


@contextmanager
def training(
    folder: Path, out: str, *trackers: dict[str, Any], until: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start a training of some six seconds, as a user does; it waits for a file if one is given."""
    content = yaml.load(ROOT / "recipes" / "two_phase.yaml")
    content["data"]["n_valid"] = 20
    content["model"]["width"] = 1
    slow = {"type": "hostile_trackers.Slow", "until": str(until) if until else None}
    content["training"] |= {"batch_size": 8, "callbacks": [slow]}
    content["training"]["pipeline"]["defaults"]["max_steps"] = 15
    for step in content["training"]["pipeline"]["steps"]:
        step["n_epochs"] = 2
    content["trackers"] = [*trackers]
    config = folder / f"{out}.yaml"
    with config.open("w") as file:
        yaml.dump(content, file)
    command = Path(sys.executable).parent / "jemtrack"
    process = subprocess.Popen(
        [command, "train", "--config", config.name, "--out", out],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(OWN), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def assert_unharmed(
    folder: Path, out: str, process: subprocess.Popen[str], weights: Weights
) -> str:
    """Hold the training against the untracked one; return its one warning."""
    said = process.communicate(timeout=300)[1]
    ended = datetime.now(UTC)
    assert process.returncode == 0, said
    (warning,) = [line for line in said.splitlines() if HINT in line]
    others = said.replace(warning, "").lower()
    assert not any(word in others for word in ("warn", "error", "retry", "traceback")), said
    found = load_file(folder / out / "model.safetensors")
    assert found.keys() == weights.keys()
    assert all(found[name].equal(weights[name]) for name in weights)
    record = folder / out / "record" / "run.jsonl"
    (end,) = [line for line in read_lines(record) if line["event"] == "run_end"]
    assert (ended - datetime.fromisoformat(end["timestamp"])).total_seconds() < 30
    return warning


LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("CREATE TABLE IF NOT EXISTS t (x)")
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["sql", "mlflow"])
def test_a_database_that_another_process_holds_locked(folder, weights, kind):
    path = folder / f"{kind}.db"
    uri = {"sql": "url", "mlflow": "uri"}[kind]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", LOCK, str(path)], **pipes) as other:
        assert other.stdout.readline() == b"locked\n"
        with training(folder, kind, {"type": kind, uri: f"sqlite:///{path}"}) as process:
            assert_unharmed(folder, kind, process, weights)
        other.communicate()


def test_a_socket_that_accepts_and_never_answers(folder, weights):
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        with training(folder, "silent", {"type": "mlflow", "uri": uri}) as process:
            warning = assert_unharmed(folder, "silent", process, weights)
    # A training of more than 40 s ends after the call's time, and not before.
    ends = "it did not finish in time|a call took longer than 60 s"
    assert re.search(f"after step 0: ({ends});", warning)


def test_a_disk_that_is_full(folder, weights):
    tracker = {"type": "hostile_trackers.FullDisk", "folder": "logs"}
    with training(folder, "full", tracker) as process:
        warning = assert_unharmed(folder, "full", process, weights)
    assert "OSError: [Errno 27] File too large" in warning


def test_a_server_that_is_killed(folder, weights):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    store = f"sqlite:///{folder}/server.db"
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    uri = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        [*command, "--backend-store-uri", store, "--artifacts-destination", str(folder / "made")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as server:
        try:
            wait_for(lambda: answers(uri))
            tracker = {"type": "mlflow", "uri": uri, "every": 1}
            with training(folder, "killed", tracker, until=folder / "is_killed") as process:
                wait_for(lambda: logged(store) > 5)
                os.killpg(server.pid, 9)
                server.wait()
                (folder / "is_killed").touch()
                warning = assert_unharmed(folder, "killed", process, weights)
        finally:
            if server.poll() is None:
                os.killpg(server.pid, 9)
    # A request that was on its way fails at once; MLflow tries any other again, for minutes.
    assert re.search(r"Mlflow gets nothing of the run after step \d+: ", warning)


def wait_for(condition: Any) -> None:
    until = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def answers(uri: str) -> bool:
    try:
        with urlopen(f"{uri}/health", timeout=10) as answer:
            return answer.status == 200
    except OSError:
        return False


def logged(store: str) -> int:
    """Count the metrics that the server has stored."""
    path = store.removeprefix("sqlite:///")
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        return connection.execute("SELECT COUNT(*) FROM metrics").fetchone()[0]
    except sqlite3.Error:
        return 0
