"""The server, over real sockets."""

import io
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import uvicorn
from deployed import Here, some_data
from PIL import Image

from jemtrack.commands.main import main
from jemtrack.deploy.batcher import Limits
from jemtrack.deploy.predict import Model, rows
from jemtrack.deploy.server import make_app

IMAGES = some_data().test.images_NCHW.numpy()
PNG, NPY, RAW = "image/png", "application/x-npy", "application/octet-stream"
PATIENCE = 120  # seconds, of a busy machine
LIMIT = 100_000  # bytes of a request


def npy(images: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, images)
    return stream.getvalue()


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image[0]).save(stream, "PNG")
    return stream.getvalue()


@contextmanager
def serving(bundle: Path, *options: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """Run `jemtrack serve`; yield its process and address."""
    command = [str(Path(sys.executable).parent / "jemtrack"), "serve", str(bundle), "--port", "0"]
    command += ["--max-body", str(LIMIT), "--max-waiting", "200", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stderr:
                if found := re.search(r"running on (http://\S+)", line):
                    break
            else:
                raise AssertionError("the server did not start")
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield process, found[1]
        finally:
            process.terminate()
            process.wait(PATIENCE)


@pytest.fixture(scope="module")
def bundle(deployed_once) -> Path:
    return deployed_once / "bundle"


@pytest.fixture(scope="module")
def client(bundle) -> Iterator[httpx.Client]:
    with (
        serving(bundle) as (_, address),
        httpx.Client(base_url=address, timeout=PATIENCE) as client,
    ):
        yield client


@pytest.fixture
def expected(bundle) -> list[dict]:
    return rows(Model(bundle)(IMAGES), ["0", "1", "2", "3"])


def post(client: httpx.Client, content: bytes, kind: str, **params) -> httpx.Response:
    return client.post("/predict", content=content, headers={"content-type": kind}, params=params)


def test_png_npy_and_raw_one_and_many_are_answered_as_the_model_does(client, expected):
    for content, kind, n in [
        (png(IMAGES[0]), PNG, 1),
        (npy(IMAGES[0]), NPY, 1),
        (npy(IMAGES), NPY, len(IMAGES)),
        (IMAGES[0].tobytes(), RAW, 1),
        (IMAGES.tobytes(), f"{RAW}; charset=x", len(IMAGES)),
    ]:
        answer = post(client, content, kind)
        assert answer.status_code == 200, answer.text
        assert answer.json()["predictions"] == expected[:n]

    form = [("images", (f"{n}.png", png(IMAGES[n]), PNG)) for n in range(3)]
    assert client.post("/predict", files=form).json()["predictions"] == expected[:3]


def test_many_clients_get_each_their_own_answers(client, expected):
    def ask(n: int) -> list[dict]:
        n %= len(IMAGES) - 2
        answer = post(client, IMAGES[n : n + 2].tobytes(), RAW)
        assert answer.json()["predictions"] == expected[n : n + 2]

    with ThreadPoolExecutor(16) as pool:
        assert len([*pool.map(ask, range(100))]) == 100


def test_another_threshold_can_be_asked_for(client, bundle):
    answer = post(client, IMAGES.tobytes(), RAW, threshold=1e9).json()
    assert answer["threshold"] == 1e9
    assert all(each["refused"] for each in answer["predictions"])
    assert post(client, IMAGES.tobytes(), RAW).json()["threshold"] == Model(bundle).threshold
    for wrong in ("much", "inf", "nan"):
        assert post(client, IMAGES.tobytes(), RAW, threshold=wrong).status_code == 422


def test_it_tells_its_health_its_model_and_its_interface(client, bundle):
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json() == {"status": "ready"}
    assert client.get("/metadata").json() == Model(bundle).description
    content = client.get("/openapi.json").json()["paths"]["/predict"]["post"]["requestBody"]
    assert {PNG, NPY, RAW, "multipart/form-data"} == {*content["content"]}
    assert "Drop a PNG" in client.get("/").text


def counted(client: httpx.Client, name: str) -> float:
    line = re.search(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return float(line[1]) if line else 0.0


def test_prometheus_reads_what_it_did(client):
    names = ['jemtrack_requests_total{status="200"}', "jemtrack_images_total"]
    names += ["jemtrack_images_refused_total", 'jemtrack_requests_total{status="400"}']
    names += ['jemtrack_requests_total{status="422"}']
    before = [counted(client, name) for name in names]
    refused = sum(
        each["refused"] for each in post(client, IMAGES.tobytes(), RAW).json()["predictions"]
    )
    post(client, b"", RAW)
    post(client, b"", RAW, threshold="much")

    changes = [counted(client, name) - old for name, old in zip(names, before, strict=True)]
    assert changes == [1, len(IMAGES), refused, 1, 1]
    assert counted(client, "jemtrack_images_waiting") == 0


BOMB = io.BytesIO()
Image.new("L", (9000, 9000)).save(BOMB, "PNG")  # 81 MB of pixels in 80 kB


@pytest.mark.parametrize(
    ("content", "kind", "status", "message"),
    [
        (b"", RAW, 400, "raw images must be 64 bytes each, got 0 bytes"),
        (bytes(63), RAW, 400, "got 63 bytes"),
        (npy(IMAGES.astype(float)[:9]), NPY, 400, "images must be uint8 of shape (N, 1, 8, 8)"),
        (npy(IMAGES[:, :, 1:]), NPY, 400, "got uint8 of shape (80, 1, 7, 8)"),
        (npy(IMAGES[:0]), NPY, 400, "N >= 1"),
        (b"no png", PNG, 400, "not readable as png"),
        (BOMB.getvalue(), PNG, 400, "a PNG must be 8 x 8 pixels of mode L, got 9000 x 9000"),
        (bytes(64 * 201), RAW, 413, "at most 200 images in a request"),
        (bytes(100_000_000), RAW, 413, f"a request must have at most {LIMIT} bytes"),
        (bytes(64), "text/plain", 415, "content-type must be one of image/png"),
        (bytes(64), "", 415, "content-type must be one of"),
        (b"", "multipart/form-data", 400, "not a readable form"),
        (b"--x--\r\n", "multipart/form-data; boundary=x", 400, "the form has no files"),
        (b"--y\r\nrubbish", "multipart/form-data; boundary=x", 400, "form"),
    ],
)
def test_what_is_no_image_is_refused_in_a_line(client, content, kind, status, message):
    try:
        answer = post(client, content, kind)
    except httpx.WriteError:  # it was refused before all of it was sent
        assert status == 413
    else:
        assert answer.status_code == status
        assert message in answer.json()["detail"]
    assert post(client, IMAGES[0].tobytes(), RAW).status_code == 200


def test_a_body_of_untold_length_is_cut_off_at_the_limit(client):
    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(10_000)

    with suppress(httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
        answer = client.post("/predict", content=endless(), headers={"content-type": RAW})
        assert answer.status_code == 413
    assert client.get("/health").status_code == 200


def test_sigterm_lets_a_request_end_and_then_the_server(bundle, expected):
    with serving(bundle) as (process, address):
        url = httpx.URL(address)
        body = IMAGES[:2].tobytes()
        with socket.create_connection((url.host, url.port), timeout=PATIENCE) as connection:
            head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: {RAW}\r\n"
            head += f"Content-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body[:64])
            time.sleep(0.5)
            os.kill(process.pid, signal.SIGTERM)
            time.sleep(0.5)
            connection.sendall(body[64:])
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200")
        assert f'"log_density":{expected[1]["log_density"]}'.encode() in answer
        assert process.wait(PATIENCE) in (0, -signal.SIGTERM)
        with pytest.raises(httpx.ConnectError):
            httpx.get(address)


class BlockedModel(Model):
    """A model that answers when it is let go."""

    def __init__(self, bundle: Path) -> None:
        super().__init__(bundle)
        self.entered, self.free = threading.Semaphore(0), threading.Event()

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        self.entered.release()
        assert self.free.wait(PATIENCE)
        return super().__call__(images)


@contextmanager
def serving_here(model: Model, limits: Limits) -> Iterator[httpx.Client]:
    """Serve in a thread of this process, so that the test has the model in its hands."""
    app = make_app(model.description, [Here(model)], limits)
    config = uvicorn.Config(app, port=0, log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_full_queue_answers_503_at_once_and_then_serves_again(bundle):
    model = BlockedModel(bundle)
    model.free.set()
    with serving_here(model, Limits(waiting=3)) as client:
        model.free.clear()
        while model.entered.acquire(blocking=False):
            pass
        with ThreadPoolExecutor(1) as pool:
            held = pool.submit(post, client, IMAGES[:3].tobytes(), RAW)
            assert model.entered.acquire(timeout=PATIENCE)
            full = post(client, IMAGES[:1].tobytes(), RAW)
            assert (full.status_code, full.headers["retry-after"]) == (503, "1")
            assert client.get("/ready").status_code == 503
            assert client.get("/health").status_code == 200
            model.free.set()
            assert held.result().status_code == 200
        assert client.get("/ready").status_code == 200
        assert post(client, IMAGES[:3].tobytes(), RAW).status_code == 200


class FailingModel(Model):
    """A model that raises while it is told to."""

    failing = False

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        if self.failing:
            raise RuntimeError("no memory is left")
        return super().__call__(images)


def test_a_model_that_fails_ends_its_request_alone_and_is_not_ready(bundle, expected):
    model = FailingModel(bundle)
    with serving_here(model, Limits()) as client:
        model.failing = True
        answer = post(client, IMAGES[:1].tobytes(), RAW)
        problem = "the model failed: no memory is left"
        assert (answer.status_code, answer.json()["detail"]) == (500, problem)
        assert counted(client, 'jemtrack_requests_total{status="500"}') == 1
        assert counted(client, "jemtrack_images_waiting") == 0
        ready = client.get("/ready")
        assert (ready.status_code, ready.json()["detail"]) == (503, problem)
        assert client.get("/health").status_code == 200
        model.failing = False
        assert client.get("/ready").status_code == 200
        answer = post(client, IMAGES[:1].tobytes(), RAW)
        assert answer.json()["predictions"] == expected[:1]


def test_a_model_that_fails_from_the_start_is_not_ready(bundle):
    model = FailingModel(bundle)
    model.failing = True
    with serving_here(model, Limits()) as client:
        assert client.get("/ready").json()["detail"] == "the model failed: no memory is left"
        model.failing = False
        assert client.get("/ready").json() == {"status": "ready"}


def workers(process: subprocess.Popen) -> list[psutil.Process]:
    found = psutil.Process(process.pid).children()
    return [each for each in found if "jemtrack.deploy.worker" in each.cmdline()]


def test_killed_workers_lose_no_request(bundle, expected):
    with serving(bundle, "--workers", "2") as (process, address):
        assert len(workers(process)) == 2
        over = threading.Event()

        def ask(n: int) -> int:
            count = 0
            with httpx.Client(base_url=address, timeout=PATIENCE) as client:
                while not over.is_set():
                    answer = post(client, IMAGES[n : n + 2].tobytes(), RAW)
                    assert answer.status_code == 200, answer.text
                    assert answer.json()["predictions"] == expected[n : n + 2]
                    count += 1
            return count

        with ThreadPoolExecutor(6) as pool:
            clients = [pool.submit(ask, n) for n in range(6)]
            for _ in range(4):
                time.sleep(0.3)
                with suppress(psutil.NoSuchProcess):
                    random.choice(workers(process) or [psutil.Process(2**22)]).kill()
            over.set()
            assert all(client.result() for client in clients)
        with httpx.Client(base_url=address, timeout=PATIENCE) as client:
            assert counted(client, "jemtrack_worker_deaths") >= 1
            assert client.get("/ready").status_code == 200
        ended = workers(process)
    assert not psutil.wait_procs(ended, timeout=PATIENCE)[1]


def test_a_worker_that_cannot_start_again_is_told(bundle, tmp_path, expected):
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    with (
        serving(copy, "--workers", "1") as (process, address),
        httpx.Client(base_url=address, timeout=PATIENCE) as client,
    ):
        (copy / "model.onnx").rename(tmp_path / "away")
        workers(process)[0].kill()
        answer = post(client, IMAGES[:1].tobytes(), RAW)
        assert answer.status_code == 500
        problem = f"the model failed: {copy}/model.onnx: No such file or directory"
        assert answer.json()["detail"] == problem
        assert client.get("/ready").status_code == 503
        (tmp_path / "away").rename(copy / "model.onnx")
        assert client.get("/ready").status_code == 200
        answer = post(client, IMAGES[:1].tobytes(), RAW)
        assert answer.json()["predictions"] == expected[:1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "absent is not a bundle of jemtrack"),
        (["--port", "70000"], "--port must be 0 to 65535, got 70000"),
        (["--max-body", "0"], "limits and --workers must be >= 1"),
        (["--model", "model.pt"], "has no model 'model.pt'"),
    ],
)
def test_a_server_that_cannot_start_says_why(bundle, capsys, arguments, message):
    given = arguments if arguments[0] == "absent" else [str(bundle), *arguments]
    assert main(["serve", *given]) == 1

    err = capsys.readouterr().err
    assert message in err
    assert err.startswith("jemtrack: ")
    assert err.count("\n") == 1
