"""Time a bundle against PyTorch, a clean process, and the server against the bare session.

    python benchmarks/deploy.py [MODEL.safetensors]

prints a line a bar of docs/deploy.md: what was measured, and what is asked for. Sides take turns in
one process, with one thread each, and medians of the turns' ratios are printed, so that other work
of the machine affects both alike. Without a model, a WideResNet-10-2 for 28x28 grey images with
random weights is timed, whose accuracy says nothing.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from jemtrack.data.images import DataSplits, LabelledImages
from jemtrack.deploy.args import DeployArgs
from jemtrack.deploy.bundle import INT8, Exported, Material, write_bundle
from jemtrack.deploy.figures import Run
from jemtrack.deploy.formats import Source, torch_run
from jemtrack.deploy.predict import MODEL, Model
from jemtrack.jem.networks.model_file import save_model
from jemtrack.jem.networks.shape import WideResNetShape
from jemtrack.jem.networks.wide_resnet import build_model

# Prints the seconds until the first answer, its peak memory in MiB and whether torch came along.
FIRST = """
import time
started = time.perf_counter()
import json, re, sys
import numpy as np, predict
model = predict.Model(".")
model(np.load("samples.npz")["images"][:1])
seconds = time.perf_counter() - started
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
print(json.dumps([seconds, peak, "torch" in sys.modules]))
"""


class Bar(NamedTuple):
    """What was measured, and at least or at most what is asked for."""

    name: str
    value: float
    bound: float
    at_least: bool = True

    def __str__(self) -> str:
        """Write it with a mark."""
        met = self.value >= self.bound if self.at_least else self.value <= self.bound
        asked = f"{'>=' if self.at_least else '<='} {self.bound:g}"
        return f"{'ok ' if met else 'NO '} {self.name:55} {self.value:10.3f}   {asked}"


def some_material(folder: Path) -> Material:
    """Make a network of random weights, and images to go with it."""
    shape = WideResNetShape(depth=10, width=2, channels=1, n_classes=10)
    torch.manual_seed(0)
    path = folder / "Random" / "model.safetensors"
    save_model(path, build_model(shape), shape, {"sigma": "0.0"})

    def images(n: int) -> LabelledImages:
        pixels = torch.randint(256, (n, 1, 28, 28), dtype=torch.uint8)
        return LabelledImages(pixels, torch.arange(n) % 10)

    data = DataSplits("noise", 10, False, 0, *(images(n) for n in (200, 100, 100)))
    wide = dict.fromkeys(("accuracy_within", "nll_within", "auroc_within"), 1.0)
    return Material(path, data, {}, DeployArgs(threads=1, **wide))


def ratio(slow: Run, fast: Run, images: np.ndarray, turns: int) -> float:
    """Time both by turns; return the median of slow / fast."""

    def seconds(run: Run) -> float:
        started = time.perf_counter()
        run(images)
        return time.perf_counter() - started

    pairs = [(seconds(slow), seconds(fast)) for _ in range(turns + 2)][2:]
    return statistics.median(one / other for one, other in pairs)


def speed(source: Source, turns: int) -> Iterator[Bar]:
    """Time both models of the bundle against PyTorch."""
    assert source.pytorch_export is not None
    torch.set_num_threads(1)
    eager = torch_run(source.module())
    shape = source.description["input"]["shape"]
    bounds = {(MODEL, 1): 2.0, (MODEL, 64): 1.15, (INT8, 1): 4.0, (INT8, 64): 2.2}
    for (file, size), bound in bounds.items():
        images = np.random.default_rng(0).integers(256, size=(size, *shape), dtype=np.uint8)
        model = Model(source.bundle, file, threads=1)
        found = ratio(eager, model, images, max(turns // (8 if size > 1 else 1), 5))
        yield Bar(f"{file} over PyTorch, batch {size}", found, bound)
    sizes = [(source.bundle / file).stat().st_size for file in (INT8, MODEL)]
    yield Bar(f"size of {INT8} over {MODEL}", sizes[0] / sizes[1], 0.35, at_least=False)


def clean_process(bundle: Path, repeats: int = 5) -> Iterator[Bar]:
    """Start the bundle's own reader."""
    command = [sys.executable, "-c", FIRST]
    runs = [
        json.loads(subprocess.run(command, cwd=bundle, capture_output=True, check=True).stdout)
        for _ in range(repeats)
    ]
    seconds, peaks, with_torch = zip(*runs, strict=True)
    yield Bar("clean process: seconds to the first answer", min(seconds), 0.6, at_least=False)
    yield Bar("clean process: MiB", max(peaks), 80, at_least=False)
    yield Bar("clean process: imports torch", float(any(with_torch)), 0, at_least=False)


@contextmanager
def served(bundle: Path) -> Iterator[int]:
    """Run `jemtrack serve`; yield its port."""
    command = [str(Path(sys.executable).parent / "jemtrack"), "serve", str(bundle), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            found = (re.search(r"running on http://\S+:(\d+)", line) for line in process.stderr)
            yield int(next(match[1] for match in found if match))
        finally:
            process.terminate()


def asker(port: int, body: bytes) -> Callable[[], float]:
    """Make what asks the server on a connection of its own, and returns the seconds."""
    connection = HTTPConnection("127.0.0.1", port)
    headers = {"Content-Type": "application/octet-stream"}

    def ask() -> float:
        started = time.perf_counter()
        connection.request("POST", "/predict", body, headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        return time.perf_counter() - started

    return ask


def several(ask: Callable[[], float], n: int) -> list[float]:
    """Ask so often."""
    return [ask() for _ in range(n)]


def server(bundle: Path, n: int) -> Iterator[Bar]:
    """Compare the server with the bare session, by turns: one client, then 8 and 32.

    The clients are threads of this process, which share the machine's cores with the server.
    """
    model = Model(bundle, threads=1)
    image = np.zeros((1, *model.shape), np.uint8)

    def bare() -> float:
        started = time.perf_counter()
        model(image)
        return time.perf_counter() - started

    with served(bundle) as port:
        ask = asker(port, image.tobytes())
        pairs = [(ask(), bare()) for _ in range(n + 20)][20:]
        behind = statistics.median(one for one, _ in pairs) - statistics.median(
            other for _, other in pairs
        )
        yield Bar("server, 1 client: ms behind the bare session", 1e3 * behind, 0.4, at_least=False)
        for clients in (8, 32):
            askers = [asker(port, image.tobytes()) for _ in range(clients)]
            with ThreadPoolExecutor(clients) as pool:
                started = time.perf_counter()
                spent = [*pool.map(several, askers, [n // clients] * clients)]
                rate = sum(map(len, spent)) / (time.perf_counter() - started)
            yield Bar(
                f"server, {clients} clients: throughput over the bare session",
                rate * statistics.median(bare() for _ in range(n)),
                0.75,
            )


def main() -> None:
    """Print a line a bar."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", nargs="?", type=Path, help="a model.safetensors of this project")
    parser.add_argument("--turns", type=int, default=100, help="of each comparison (100)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder, "bundle")
        if options.model:
            data = DataSplits.load(Path("nodes/PrepareData/images.safetensors"))
            material = Material(options.model, data, {}, DeployArgs(threads=1))
        else:
            material = some_material(Path(folder))
        exported = Exported.of(material)
        source = Source(bundle, write_bundle(exported, material, bundle), exported)
        for bars in (
            speed(source, options.turns),
            clean_process(bundle),
            server(bundle, 5 * options.turns),
        ):
            for bar in bars:
                print(bar, flush=True)


if __name__ == "__main__":
    main()
