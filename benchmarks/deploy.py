"""Time a bundle against PyTorch, and a clean process; hold a trained one to its promises.

    python -m benchmarks.deploy [digits | fashion-mnist]

prints a line a bar of docs/deploy.md: what was measured, and what is asked for. Sides take turns in
one process, with one thread each, and medians of the turns' ratios are printed, so that other work
of the machine affects both alike. Without a data set, a WideResNet-10-2 for 28x28 grey images with
random weights is timed, whose accuracy says nothing. `benchmarks.serving` times the server.
"""

import argparse
import contextlib
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.bars import Bar
from jemtrack import create_model, create_trainer
from jemtrack.data.images import DataSplits, LabelledImages
from jemtrack.data.outliers import make_outliers
from jemtrack.data.sources.fetch import fetch
from jemtrack.deploy.args import DeployArgs
from jemtrack.deploy.bundle import INT8, Exported, Material, write_bundle
from jemtrack.deploy.figures import FP32_BOUNDS, Run, worse_by
from jemtrack.deploy.formats import Source, torch_run
from jemtrack.deploy.predict import MASS, MODEL, Model
from jemtrack.jem.networks.model_file import save_model
from jemtrack.jem.networks.shape import WideResNetShape
from jemtrack.jem.networks.wide_resnet import build_model

N_VALID = {"digits": 180, "fashion-mnist": 5000}  # validation images

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
    models = source.description["models"]
    for (file, size), bound in bounds.items():
        if file not in models:
            continue
        images = np.random.default_rng(0).integers(256, size=(size, *shape), dtype=np.uint8)
        model = Model(source.bundle, file, threads=1)
        found = ratio(eager, model, images, max(turns // (8 if size > 1 else 1), 5))
        yield Bar(f"{file} over PyTorch, batch {size}", found, bound)
    if INT8 not in models:
        return
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


def promises(description: dict[str, Any]) -> Iterator[Bar]:
    """Compare what the int8 model says with the float32 one, and what is refused with alpha."""
    models, alpha = description["models"], description["alpha"]
    if INT8 in models:
        lost = worse_by(models[INT8]["figures"], models[MODEL]["figures"])
        for name, bound in {"accuracy": 0.005, "nll": 0.005, "auroc": 0.003}.items():
            yield Bar(f"{INT8}: {name} lost to {MODEL}", lost[name], bound, at_least=False)
    error = math.sqrt(alpha * (1 - alpha) / description["measured_on"]["n_test"])
    for file, about in models.items():
        share = about["figures"]["refused"]
        yield Bar(f"{file}: test images refused", share, alpha + 2 * error, at_least=False)
    for name, bound in FP32_BOUNDS.items():
        yield Bar(f"{MODEL}: {name} apart", models[MODEL]["differences"][name], bound, False)
    if MASS in description:
        yield Bar(
            f"{MASS} apart", description[MASS]["difference"], description[MASS]["bound"], False
        )


def trained_material(dataset: str, folder: Path, n_batches: int) -> Material:
    """Train MaxEntropyL2's objective on a published data set, for so many batches."""
    fetch(dataset, folder / "data")
    step = {
        "name": "train",
        "n_epochs": 1 if dataset != "digits" else n_batches // 20,
        "max_steps": n_batches,
        "objective": {"type": "max_entropy_l2"},
        "optimization": {"optimizers": {"network": {"type": "Adam", "lr": 1e-3}}},
    }
    config = {
        "data": {
            "dataset": dataset,
            "data_root": str(folder / "data"),
            "n_valid": N_VALID[dataset],
        },
        "training": {"threads": 1, "n_steps": 0, "pipeline": {"steps": [step]}},
    }
    model = create_model(config)
    with contextlib.chdir(folder):
        create_trainer(model, folder=folder / dataset).fit()
    path, data = folder / dataset / "model.safetensors", model.data
    outliers = make_outliers(data, ["permuted", "uniform"], 1000, folder / "data")
    return Material(path, data, outliers, DeployArgs(threads=1, gradient=True))


def main() -> None:
    """Print a line a bar."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dataset", nargs="?", choices=[*N_VALID], help="to train on first")
    parser.add_argument("--batches", type=int, default=2000, help="to train on (2000)")
    parser.add_argument("--turns", type=int, default=100, help="of each comparison (100)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the bundle there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = options.keep or folder / "bundle"
        material = (
            trained_material(options.dataset, folder, options.batches)
            if options.dataset
            else some_material(folder)
        )
        exported = Exported.of(material)
        source = Source(bundle, write_bundle(exported, material, bundle), exported)
        if refused := source.description["refused"]:
            print(f"NO  {refused}", flush=True)
        found = [speed(source, options.turns), clean_process(bundle)]
        if options.dataset:
            found.append(promises({**source.description}))
        for bars in found:
            for bar in bars:
                print(bar, flush=True)


if __name__ == "__main__":
    main()
