"""A user's own images in NumPy's `.npz` form, checked before anything is trained on them.

| array | shape and type |
|---|---|
| `images` | `(N, H, W)`, `(N, H, W, C)` or `(N, C, H, W)`; C 1 or 3, H = W from 8 to 32 |
| `labels` | `(N,)`, whole numbers from 0 |
| `test_images`, `test_labels` | the same, of the same size; both or neither |
| `flip` | optional true or false: whether a mirrored image keeps its class |

Pixels are uint8, or floats from 0 to 1 that become round(value * 255).
"""

import zipfile
from pathlib import Path

import numpy as np
import torch

from jemtrack.data.images import LabelledImages, SourceImages
from jemtrack.errors import InputError

_SIDES = range(8, 33)
_CHANNELS = (1, 3)
_LARGEST_LABEL = 2**31 - 1


def read_npz(paths: list[Path]) -> SourceImages:
    """Read and check a user's own images.

    Raises:
        InputError: when the file is broken or its arrays are not as the table above says.
    """
    path = paths[0]
    arrays = _arrays(path)
    train = _part(path, arrays, prefix="")
    if "test_images" not in arrays and "test_labels" not in arrays:
        return SourceImages(train, None, _flip(path, arrays))
    test = _part(path, arrays, prefix="test_")
    sizes = [tuple(part.images_NCHW.shape[1:]) for part in (train, test)]
    if sizes[0] != sizes[1]:
        raise InputError(
            f"{path}: images and test_images must have one size (channels, height, width), "
            f"got {sizes[0]} and {sizes[1]}"
        )
    return SourceImages(train, test, _flip(path, arrays))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is not a zip archive")
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # a broken archive can raise nearly anything
        raise InputError(
            f"{path}: is not a whole .npz file of plain arrays ({error}); "
            "write it with numpy.savez(path, images=..., labels=...)"
        ) from error


def _part(path: Path, arrays: dict[str, np.ndarray], prefix: str) -> LabelledImages:
    image_key, label_key = f"{prefix}images", f"{prefix}labels"
    for key in (image_key, label_key):
        if key not in arrays:
            raise InputError(
                f"{path}: has no array {key!r}; expected images and labels, "
                f"found {', '.join(sorted(arrays)) or 'nothing'}"
            )
    where = f"{path}: {image_key}"
    images_NCHW = _channels_first(where, arrays[image_key])
    labels_N = _checked_labels(f"{path}: {label_key}", arrays[label_key])
    if len(images_NCHW) != len(labels_N):
        raise InputError(
            f"{where} and {label_key} must have one length, "
            f"got {len(images_NCHW)} and {len(labels_N)}"
        )
    return LabelledImages(
        torch.from_numpy(np.ascontiguousarray(_as_bytes(where, images_NCHW))),
        torch.from_numpy(labels_N),
    )


def _channels_first(where: str, images: np.ndarray) -> np.ndarray:
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[1] not in _CHANNELS and images.shape[3] in _CHANNELS:
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in _CHANNELS:
        raise InputError(
            f"{where} must have shape (N, H, W), (N, H, W, C) or (N, C, H, W) "
            f"with C 1 or 3, got {images.shape}"
        )
    if len(images) == 0:
        raise InputError(f"{where} is empty; at least one image is needed")
    height, width = images.shape[2:]
    if height != width or height not in _SIDES:
        raise InputError(
            f"{where} must be square, {_SIDES.start} to {_SIDES.stop - 1} pixels a side, "
            f"got {height}x{width}; resize them first"
        )
    return images


def _as_bytes(where: str, images_NCHW: np.ndarray) -> np.ndarray:
    if images_NCHW.dtype == np.uint8:
        return images_NCHW
    if not np.issubdtype(images_NCHW.dtype, np.floating):
        raise InputError(
            f"{where} must be uint8 (0 to 255) or floats (0 to 1), got {images_NCHW.dtype}"
        )
    not_finite = ~np.isfinite(images_NCHW)
    if not_finite.any():
        raise InputError(
            f"{where} must be finite: {not_finite.sum()} pixels are NaN or infinite, "
            f"the first in image {_first_image(not_finite)}"
        )
    low, high = images_NCHW.min(), images_NCHW.max()
    if low < 0 or high > 1:
        raise InputError(
            f"{where} that are floats must lie within 0 to 1, got {low:g} to {high:g}, the first "
            f"outside in image {_first_image((images_NCHW < 0) | (images_NCHW > 1))}; "
            "scale them, or write uint8"
        )
    return np.asarray(np.rint(images_NCHW * 255), np.uint8)


def _checked_labels(where: str, labels: np.ndarray) -> np.ndarray:
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"{where} must be whole numbers of shape (N,), got {labels.dtype} of {labels.shape}"
        )
    wrong_N = (labels < 0) | (labels > _LARGEST_LABEL)
    if wrong_N.any():
        index = int(wrong_N.argmax())
        raise InputError(
            f"{where} must be class numbers from 0, got {labels[index]} at index {index}"
        )
    return labels.astype(np.int64)


def _flip(path: Path, arrays: dict[str, np.ndarray]) -> bool:
    flip = arrays.get("flip", np.array(False))
    if flip.shape != () or flip.dtype != np.bool_:
        raise InputError(f"{path}: flip must be one true or false, got {flip!r}")
    return bool(flip)


def _first_image(wrong_NCHW: np.ndarray) -> int:
    return int(wrong_NCHW.reshape(len(wrong_NCHW), -1).any(axis=1).argmax())
