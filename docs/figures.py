"""Draw the README's picture from the last results: `make figures`.

With `--check`, only see whether the picture shows the results of dvc.lock.
"""

import hashlib
import io
import json
import sys
from pathlib import Path

import pandas as pd
import yaml
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from jemtrack.evaluation.report.pictures import reliability

FOLDER = Path("nodes/EvaluateX/calibration")
PICTURE = Path(__file__).parent / "images" / "reliability.png"
TRAINERS = ("XEntropyAugmented", "MaxEntropyL1", "MaxEntropyL2")
_DIGEST = "md5 of nodes/EvaluateX/calibration"  # the key in the picture's file
_DPI = 130


def draw() -> None:
    """Set the report's diagrams in a row, and write down which tables they show."""
    tables = {name: pd.read_csv(FOLDER / f"{name}.csv") for name in TRAINERS}
    diagrams = []
    for figure in reliability(tables):
        written = io.BytesIO()
        figure.savefig(written, dpi=_DPI)
        diagrams.append(Image.open(written))
    width, height = diagrams[0].size
    picture = Image.new("RGB", (width * len(diagrams), height), "white")
    for place, diagram in enumerate(diagrams):
        picture.paste(diagram, (place * width, 0))
    notes = PngInfo()
    notes.add_text(_DIGEST, folder_digest(FOLDER))
    PICTURE.parent.mkdir(exist_ok=True)
    picture.quantize(64).save(PICTURE, optimize=True, pnginfo=notes)
    print(PICTURE)


def folder_digest(folder: Path) -> str:
    """Compute the md5 that DVC writes into dvc.lock for a folder of files."""
    entries = [
        {"md5": hashlib.md5(path.read_bytes()).hexdigest(), "relpath": path.name}
        for path in sorted(folder.iterdir())
    ]
    return hashlib.md5(json.dumps(entries).encode()).hexdigest() + ".dir"


def check() -> None:
    """Exit with a message unless the picture shows the tables that dvc.lock lists."""
    outs = yaml.safe_load(Path("dvc.lock").read_text())["stages"]["EvaluateX"]["outs"]
    (expected,) = (out["md5"] for out in outs if out["path"] == str(FOLDER))
    with Image.open(PICTURE) as picture:
        shown = picture.info.get(_DIGEST)
    if shown != expected:
        sys.exit(f"{PICTURE} shows other results than those of dvc.lock: type `make figures`")


if __name__ == "__main__":
    check() if sys.argv[1:] == ["--check"] else draw()
