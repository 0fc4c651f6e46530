"""Draw the pictures of the README and the gallery from the last results: `make figures`.

With `--check`, only see whether the pictures show the results of dvc.lock.
"""

import hashlib
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import yaml
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from jemtrack.evaluation.report.pictures import reliability

RESULTS = Path("nodes/EvaluateX")
REPORT = Path("nodes/Report/report.html")
IMAGES = Path(__file__).parent / "images"
TRAINERS = ("XEntropyAugmented", "MaxEntropyL1", "MaxEntropyL2")
# Of a picture: the folder of results that it shows.
PICTURES = {
    "reliability": "calibration",
    "report": "tables",
    "report_ood": "roc",
}
# Of a picture of the report: its sections, and its height in pixels.
SECTIONS = {
    "report": (("summary", "metrics"), 768),
    "report_ood": (("ood-detection",), 908),
}
_DPI, _WIDTH = 130, 1000
_DIGEST = "md5 of the results"  # the key in a picture's file


def draw() -> None:
    """Draw each picture, and write down in it which results it shows."""
    IMAGES.mkdir(exist_ok=True)
    tables = {name: pd.read_csv(RESULTS / "calibration" / f"{name}.csv") for name in TRAINERS}
    pictures = {"reliability": diagrams(tables)}
    pictures |= {name: of_report(*chosen) for name, chosen in SECTIONS.items()}
    for name, picture in pictures.items():
        notes = PngInfo()
        notes.add_text(_DIGEST, folder_digest(RESULTS / PICTURES[name]))
        path = IMAGES / f"{name}.png"
        picture.quantize(256).save(path, optimize=True, pnginfo=notes)
        print(path)


def diagrams(tables: dict[str, pd.DataFrame]) -> Image.Image:
    """Set the reliability diagrams of the models in a row."""
    drawn = []
    for figure in reliability(tables):
        written = io.BytesIO()
        figure.savefig(written, dpi=_DPI)
        drawn.append(Image.open(written))
    width, height = drawn[0].size
    picture = Image.new("RGB", (width * len(drawn), height), "white")
    for place, diagram in enumerate(drawn):
        picture.paste(diagram, (place * width, 0))
    return picture


def of_report(sections: Iterable[str], height: int) -> Image.Image:
    """Take a picture of sections of the report in Chromium."""
    kept = "".join(f":not(#{section})" for section in sections)
    style = f"<style>body > header, nav, section{kept} {{ display: none }}</style>"
    with tempfile.TemporaryDirectory() as folder:
        page, picture = Path(folder, "page.html"), Path(folder, "picture.png")
        page.write_text(REPORT.read_text().replace("</head>", f"{style}</head>"))
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--window-size={_WIDTH},{height}", f"--screenshot={picture}", page.as_uri()]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        return Image.open(picture).convert("RGB")


def folder_digest(folder: Path) -> str:
    """Compute the md5 that DVC writes into dvc.lock for a folder of files."""
    entries = [
        {"md5": hashlib.md5(path.read_bytes()).hexdigest(), "relpath": path.name}
        for path in sorted(folder.iterdir())
    ]
    return hashlib.md5(json.dumps(entries).encode()).hexdigest() + ".dir"


def check() -> None:
    """Exit with a message unless the pictures show the results that dvc.lock lists."""
    outs = yaml.safe_load(Path("dvc.lock").read_text())["stages"]["EvaluateX"]["outs"]
    expected = {out["path"]: out["md5"] for out in outs}
    stale = []
    for name, folder in PICTURES.items():
        path = IMAGES / f"{name}.png"
        with Image.open(path) as picture:
            if picture.info.get(_DIGEST) != expected[str(RESULTS / folder)]:
                stale.append(str(path))
    if stale:
        sys.exit(f"{', '.join(stale)}: not the results of dvc.lock: type `make figures`")


if __name__ == "__main__":
    check() if sys.argv[1:] == ["--check"] else draw()
