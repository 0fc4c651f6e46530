"""Draw the README's picture from the last results: `make figures`."""

import io
import json
import subprocess
from pathlib import Path

import vl_convert
from PIL import Image

FOLDER = Path("nodes/EvaluateX/calibration")
PICTURE = Path(__file__).parent / "images" / "reliability.png"


def main() -> None:
    """Have DVC fill its template for each trainer; draw the diagrams and set them in a row."""
    filled = subprocess.check_output(["dvc", "plots", "show", "--json", str(FOLDER)], text=True)
    diagrams = {
        Path(name).stem: Image.open(io.BytesIO(vl_convert.vegalite_to_png(plot["content"])))
        for name, (plot,) in json.loads(filled)["data"].items()
    }
    row = [diagrams[name] for name in ("XEntropyAugmented", "MaxEntropyL1", "MaxEntropyL2")]
    height = max(diagram.height for diagram in row)
    picture = Image.new("RGB", (sum(diagram.width for diagram in row), height), "white")
    left = 0
    for diagram in row:
        picture.paste(diagram, (left, 0))
        left += diagram.width
    PICTURE.parent.mkdir(exist_ok=True)
    picture.save(PICTURE, optimize=True)
    print(PICTURE)


if __name__ == "__main__":
    main()
