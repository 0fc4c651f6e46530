"""Draw the README's picture from the last results: `make figures`."""

import json
import subprocess
from pathlib import Path

import vl_convert

FOLDER = Path("nodes/EvaluateX/calibration")
PICTURE = Path(__file__).parent / "images" / "reliability.png"


def main() -> None:
    """Have DVC fill its template for each trainer, set the diagrams side by side, draw them."""
    filled = subprocess.check_output(["dvc", "plots", "show", "--json", str(FOLDER)], text=True)
    plots = [plot for plots in json.loads(filled)["data"].values() for plot in plots]
    specs = [json.loads(plot["content"]) for plot in plots]
    picture = {"$schema": specs[0]["$schema"], "hconcat": specs}
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_bytes(vl_convert.vegalite_to_png(picture, scale=1.5, vl_version="5.8"))
    print(PICTURE)


if __name__ == "__main__":
    main()
