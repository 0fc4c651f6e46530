"""Time `jemtrack serve` against the bare session and LitServe, by turns in one run.

    python -m benchmarks.serving BUNDLE

For one client, a turn is three requests to each side and as many passes of the session, each timed
by itself; for 8 and 32, a window of requests to each side, and as many passes. Clients keep their
connections. Medians over the turns are printed, so that other work of the machine affects all
alike, and the processor's time for a request, which other work affects least. One thread of this
process is all clients. LitServe gets an environment of its own, and the image in base64, for it
takes no raw body.
"""

import argparse
import base64
import json
import re
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.bars import Bar
from jemtrack.deploy.predict import Model

LITSERVE = ("litserve==0.2.19", "numpy", "onnxruntime")
LITSERVE_SERVER = """
import base64, sys
import litserve, numpy
sys.path.insert(0, sys.argv[1])
import predict

class Api(litserve.LitAPI):
    def setup(self, device):
        self.model = predict.Model(sys.argv[1], threads=1)
    def decode_request(self, request):
        pixels = numpy.frombuffer(base64.b64decode(request["image"]), numpy.uint8)
        return pixels.reshape(1, *self.model.shape)
    def predict(self, images):
        return self.model(images)
    def encode_response(self, answers):
        rows = predict.rows(answers, self.model.description["classes"])
        return {"threshold": self.model.threshold, "predictions": rows}

if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu")
    server.run(port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
"""
_IN_TURN = 3  # requests of one client in a turn: the first finds the processor's caches cold
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Side:
    """A server, and the request that is sent to it again and again."""

    def __init__(self, port: int, kind: str, body: bytes, pid: int) -> None:
        self._pid = pid
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n"
        self._request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        self._address = "127.0.0.1", port
        self._connections: list[socket.socket] = []

    def close(self) -> None:
        """Close the connections of its clients; a server closes one that is idle for 5 seconds."""
        while self._connections:
            self._connections.pop().close()

    def processor_seconds(self) -> float:
        """Sum the processor's time of its processes."""
        parent = psutil.Process(self._pid)
        times = [each.cpu_times() for each in (parent, *parent.children(recursive=True))]
        return sum(each.user + each.system for each in times)

    def ask(self, n_requests: int, n_clients: int) -> float:
        """Send so many requests, each client one after another; return the seconds."""
        while len(self._connections) < n_clients:
            connection = socket.create_connection(self._address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections.append(connection)
        received: dict[Any, bytes] = dict.fromkeys(self._connections[:n_clients], b"")
        with selectors.DefaultSelector() as waiting:
            for connection in received:
                waiting.register(connection, selectors.EVENT_READ)
            started, sent, done = time.perf_counter(), n_clients, 0
            for connection in received:
                connection.send(self._request)
            while done < n_requests:
                for key, _ in waiting.select():
                    answered: Any = key.fileobj
                    part = answered.recv(65536)
                    assert part, "a connection was closed"
                    received[answered] += part
                    if _is_whole(received[answered]):
                        received[answered] = b""
                        done += 1
                        if sent < n_requests:
                            answered.send(self._request)
                            sent += 1
            return time.perf_counter() - started


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(_HEAD_END)
    if not end:
        return False
    assert head.startswith(b"HTTP/1.1 200"), answer[:300]
    length = _LENGTH.search(head)
    assert length
    return len(body) >= int(length[1])


@contextmanager
def running(command: list[str], port: int) -> Iterator[int]:
    """Run a server, with the processes that it starts, while the block lasts; yield its id."""
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            _wait_for(port, process)
            yield process.pid
        finally:
            processes = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
            for each in psutil.wait_procs(processes, timeout=5)[1]:
                each.kill()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{process.args} ended")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def jemtrack_side(bundle: Path, pixels: bytes) -> Iterator[Side]:
    """Run `jemtrack serve`."""
    port = _free_port()
    command = [str(Path(sys.executable).parent / "jemtrack"), "serve", str(bundle)]
    with (
        running([*command, "--port", str(port)], port) as pid,
        closing(Side(port, "application/octet-stream", pixels, pid)) as side,
    ):
        yield side


@contextmanager
def litserve_side(bundle: Path, pixels: bytes, environment: Path) -> Iterator[Side]:
    """Run LitServe with its defaults in `environment`, which is made if it is missing."""
    python = environment / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *LITSERVE]
        subprocess.run(install, check=True)
    (environment / "server.py").write_text(LITSERVE_SERVER)
    port = _free_port()
    command = [str(python), str(environment / "server.py"), str(bundle.resolve()), str(port)]
    body = json.dumps({"image": base64.b64encode(pixels).decode()}).encode()
    with (
        running(command, port) as pid,
        closing(Side(port, "application/json", body, pid)) as side,
    ):
        yield side


def latency(sides: Mapping[str, Side], bare: Callable[[], None], turns: int) -> Iterator[Bar]:
    """Time one client's requests and the bare session's passes by turns."""
    seconds: dict[str, list[float]] = {name: [] for name in (*sides, "bare")}
    for _ in range(10 * turns):
        for name, side in sides.items():
            seconds[name] += [side.ask(1, 1) for _ in range(_IN_TURN)]
        seconds["bare"] += [_passes(bare, 1) for _ in range(_IN_TURN)]
    p50 = {name: 1e3 * statistics.median(each) for name, each in seconds.items()}
    print(f"    1 client, p50 ms: {_listed(p50)}")
    behind = p50["jemtrack"] - p50["bare"]
    yield Bar("server, 1 client: ms behind the bare session", behind, 0.4, at_least=False)
    if "LitServe" in sides:
        ratio = p50["jemtrack"] / p50["LitServe"]
        yield Bar("server, 1 client: p50 over LitServe's", ratio, 1, at_least=False)


def throughput(
    sides: Mapping[str, Side], bare: Callable[[], None], clients: int, turns: int
) -> Iterator[Bar]:
    """Time windows of so many clients' requests by turns, and the processor's time for them."""
    n = 4 * clients
    windows: dict[str, list[float]] = {name: [] for name in (*sides, "bare")}
    before = {name: side.processor_seconds() for name, side in sides.items()}
    for _ in range(turns):
        for name, side in sides.items():
            windows[name].append(n / side.ask(n, clients))
        windows["bare"].append(n / _passes(bare, n))
    rates = {name: statistics.median(each) for name, each in windows.items()}
    print(f"    {clients} clients, images/s: {_listed(rates)}")
    spent = {
        name: 1e3 * (side.processor_seconds() - before[name]) / (n * turns)
        for name, side in sides.items()
    }
    print(f"    {clients} clients, processor ms an image: {_listed(spent)}")
    for other, bound in (("bare", 0.75), ("LitServe", 1)):
        if other in windows:
            pairs = zip(windows["jemtrack"], windows[other], strict=True)
            ratio = statistics.median(one / two for one, two in pairs)
            yield Bar(f"server, {clients} clients: throughput over {other}", ratio, bound)


def bars(sides: Mapping[str, Side], bare: Callable[[], None], turns: int) -> Iterator[Bar]:
    """Compare the sides: for one client by latency, for more by throughput."""
    for side in sides.values():
        side.ask(200, 32)
    for clients in (1, 8, 32):
        for side in sides.values():
            side.close()
        if clients == 1:
            yield from latency(sides, bare, turns)
        else:
            yield from throughput(sides, bare, clients, turns)


def _passes(bare: Callable[[], None], n: int) -> float:
    started = time.perf_counter()
    for _ in range(n):
        bare()
    return time.perf_counter() - started


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in values.items())


def serving(bundle: Path, turns: int, environment: Path | None) -> Iterator[Bar]:
    """Compare the servers; LitServe's is left out without an environment."""
    model = Model(bundle, threads=1)
    image = np.zeros((1, *model.shape), np.uint8)
    with ExitStack() as stack:
        sides = {"jemtrack": stack.enter_context(jemtrack_side(bundle, image.tobytes()))}
        if environment:
            other = litserve_side(bundle, image.tobytes(), environment)
            sides["LitServe"] = stack.enter_context(other)
        yield from bars(sides, lambda: model(image) and None, turns)


def main() -> None:
    """Print a line a bar."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--turns", type=int, default=40, help="of each comparison (40)")
    parser.add_argument("--no-litserve", action="store_true", help="leave it out")
    parser.add_argument("--environment", type=Path, help="keep LitServe's environment there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = options.environment or Path(folder, "litserve")
        found = serving(options.bundle, options.turns, None if options.no_litserve else environment)
        for bar in found:
            print(bar, flush=True)


if __name__ == "__main__":
    main()
