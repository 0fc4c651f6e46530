"""Pictures of images, as bytes and files.

Letters: C channels, H height, N images, W width.
"""

import importlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jemtrack.errors import InputError
from jemtrack.files import atomic_write

_GREY = 128


def pillow() -> Any:
    """Return Pillow's module of images.

    Raises:
        InputError: if it is not installed.
    """
    try:
        return importlib.import_module("PIL.Image")
    except ModuleNotFoundError as error:
        raise InputError("pictures need Pillow: pip install 'jemtrack[plots]'") from error


def as_pixels(images_NCHW: Tensor) -> Tensor:
    """Convert images in [-1, 1] to uint8, on the CPU."""
    return ((images_NCHW + 1) * 127.5).clamp(0, 255).round().to(torch.uint8).cpu()


def grid(pixels_NCHW: Tensor, columns: int) -> Tensor:
    """Lay out images in `columns`, separated by grey lines, (C, H, W)."""
    rows = -(-len(pixels_NCHW) // columns)
    framed = torch.nn.functional.pad(pixels_NCHW, (1, 0, 1, 0), value=_GREY)
    empty = framed.new_full((rows * columns - len(framed), *framed.shape[1:]), _GREY)
    table = torch.cat([framed, empty]).reshape(rows, columns, *framed.shape[1:])
    picture_CHW = table.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
    return torch.nn.functional.pad(picture_CHW, (0, 1, 0, 1), value=_GREY)


def encoded(pixels_CHW: Tensor, scale: int = 1, kind: str = "png") -> bytes:
    """Encode a uint8 picture without loss, as PNG or WebP, a pixel as `scale` times `scale`."""
    library = pillow()
    colours_HWC = pixels_CHW.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
    picture = library.fromarray(colours_HWC)
    size = picture.width * scale, picture.height * scale
    written, options = io.BytesIO(), {"lossless": True} if kind.lower() == "webp" else {}
    picture.resize(size, library.Resampling.NEAREST).save(written, kind, **options)
    return written.getvalue()


def write_picture(path: Path, pixels_CHW: Tensor, scale: int = 1) -> None:
    """Write a picture as `encoded` does; the file is never seen half written."""
    content = encoded(pixels_CHW, scale, path.suffix[1:])
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda unfinished: unfinished.write_bytes(content))
