"""A folder of images with captions, as the one `.npz` file that a user's own data set is.

The captions are in `captions.csv` or `metadata.csv`, or `.jsonl` files of these names, with the
columns `file_name` and `text` (or `caption`), which is the form of Hugging Face's imagefolder; or
in `captions.txt`, a line `FILE<tab>CAPTION` each; or in a `.txt` file beside each image.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jemtrack.data.images import LabelledImages, SourceImages
from jemtrack.documents import parse_json, read_text
from jemtrack.errors import InputError
from jemtrack.parameters import format_value
from jemtrack.shared.pictures import pillow

_ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
_TABLES = tuple(f"{name}.{form}" for form in ("csv", "jsonl") for name in ("metadata", "captions"))
_LINES = "captions.txt"
_COLUMNS = ("text", "caption")


def has_captions(folder: Path) -> bool:
    """Return whether a folder has images and captions of them."""
    if not folder.is_dir():
        return False
    found = any((folder / name).is_file() for name in (*_TABLES, _LINES))
    return found or any(path.with_suffix(".txt").is_file() for path in _images(folder))


def read_captioned(folder: Path, side: int) -> SourceImages:
    """Read the images of a folder that have captions, cut to a square and scaled to `side` pixels.

    They are grey if all of them are. Equal captions share a label.

    Raises:
        InputError: if an image or a caption is missing or broken.
    """
    pillow()  # if it is missing, say so
    captions = _captions(folder)
    if not captions:
        raise InputError(f"{folder}: no image in it has a caption")
    images_NHWC = np.stack([_square(path, side) for path in captions])
    names = [*dict.fromkeys(captions.values())]
    number = {name: index for index, name in enumerate(names)}
    if (images_NHWC == images_NHWC[..., :1]).all():
        images_NHWC = images_NHWC[..., :1]
    return SourceImages(
        LabelledImages(
            torch.from_numpy(np.ascontiguousarray(images_NHWC.transpose(0, 3, 1, 2))),
            torch.tensor([number[each] for each in captions.values()]),
        ),
        captions=tuple(names),
    )


def write_npz(path: Path, source: SourceImages) -> None:
    """Write images with captions as the file of a user's own data set."""
    parts = {"": source.train, "test_": source.test}
    arrays = {"captions": np.array(source.captions), "flip": np.array(source.flip)}
    for prefix, part in parts.items():
        if part is not None:
            arrays[f"{prefix}images"] = part.images_NCHW.numpy()
            arrays[f"{prefix}labels"] = part.labels_N.numpy()
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS)


def _captions(folder: Path) -> dict[Path, str]:
    """Return the caption of each image."""
    table = next((folder / name for name in _TABLES if (folder / name).is_file()), None)
    if table:
        rows = _csv_rows(table) if table.suffix == ".csv" else _json_rows(table)
        return {folder / name: text for name, text in rows}
    if (lines := folder / _LINES).is_file():
        return {folder / name: text for name, text in _tab_rows(lines)}
    beside = {path: path.with_suffix(".txt") for path in _images(folder)}
    return {p: read_text(text).strip() for p, text in beside.items() if text.is_file()}


def _tab_rows(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        name, tab, text = line.partition("\t")
        if line.strip() and not (tab and text.strip()):
            raise InputError(
                f"{path}:{number}: must be a file's name, a tab and its caption, got "
                f"{format_value(line)}"
            )
        if tab:
            yield name, text.strip()


def _csv_rows(path: Path) -> Iterator[tuple[str, str]]:
    for number, row in enumerate(csv.DictReader(read_text(path).splitlines()), start=2):
        yield _pair(row, f"{path}:{number}")


def _json_rows(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            yield _pair(parse_json(line, f"{path}:{number}"), f"{path}:{number}")


def _pair(row: Any, where: str) -> tuple[str, str]:
    values = row if isinstance(row, dict) else {}
    name, text = values.get("file_name"), next(filter(None, map(values.get, _COLUMNS)), None)
    if not isinstance(name, str) or not isinstance(text, str):
        raise InputError(
            f"{where}: must have `file_name` and `text` (or `caption`), got {format_value(row)}"
        )
    return name, text.strip()


def _square(path: Path, side: int) -> np.ndarray:
    """Read an image, cut its middle square and scale it, uint8 (H, W, 3)."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.fit(image.convert("RGB"), (side, side)))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as an image: {error}") from error
