"""A user's own images: a checked `.npz` file beside its checksum.

| array | shape and type |
|---|---|
| `images` | `(N, H, W)`, `(N, H, W, C)` or `(N, C, H, W)`; C 1 or 3, H = W from 8 to 32 |
| `labels` | `(N,)`, whole numbers from 0 |
| `test_images`, `test_labels` | the same, of the same size; both or neither |
| `flip` | optional, true or false: whether a mirrored image keeps its class |
| `captions` | optional, `(L,)`, text: a label is the number of one; H = W is then from 8 to 256 |

Pixels are uint8, or floats from 0 to 1 that become round(value * 255).
"""

import difflib
import re
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]
import torch

from jemtrack.data.images import LabelledImages, SourceImages
from jemtrack.data.sources.registry import SOURCES, Form, Source, digest
from jemtrack.errors import InputError, ParameterError
from jemtrack.files import name_problem

_SMALLEST, _LARGEST, _LARGEST_CAPTIONED = 8, 32, 256  # pixels a side
_CHANNELS = (1, 3)
_LARGEST_LABEL = 2**31 - 1


def read_npz(paths: list[Path]) -> SourceImages:
    """Read and check a user's own images.

    Raises:
        InputError: if the file is broken or its arrays are not as the table above says.
    """
    path = paths[0]
    arrays = _arrays(path)
    flip = arrays.get("flip", np.array(False))
    if flip.shape != () or flip.dtype != np.bool_:
        raise InputError(f"{path}: flip must be one true or false, got {flip!r}")
    train, test = _part(path, arrays, prefix=""), None
    if arrays.keys() & {"test_images", "test_labels"}:
        test = _part(path, arrays, prefix="test_")
        sizes = [tuple(part.images_NCHW.shape[1:]) for part in (train, test)]
        if sizes[0] != sizes[1]:
            raise InputError(
                f"{path}: images and test_images must have one size (channels, height, width), "
                f"got {sizes[0]} and {sizes[1]}"
            )
    return SourceImages(train, test, bool(flip), _texts(path, arrays, (train, test)))


def _texts(
    path: Path, arrays: dict[str, np.ndarray], parts: Iterable[LabelledImages | None]
) -> tuple[str, ...]:
    """Return the captions, if there are any, of which each image has one."""
    if "captions" not in arrays:
        return ()
    captions = arrays["captions"]
    if captions.ndim != 1 or captions.dtype.kind != "U":
        raise InputError(
            f"{path}: captions must be text of shape (L,), got {captions.dtype} of {captions.shape}"
        )
    last = max(int(part.labels_N.max()) for part in parts if part is not None)
    if last >= len(captions):
        raise InputError(
            f"{path}: labels must be numbers of captions, 0 to {len(captions) - 1}, got {last}"
        )
    return tuple(captions.tolist())


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is not a zip archive")
        with zipfile.ZipFile(path) as members:
            unpacked = sum(member.file_size for member in members.infolist())
        if unpacked > psutil.virtual_memory().total:
            raise ValueError(f"unpacked it takes {unpacked} bytes, more than this machine has")
        with np.load(path, allow_pickle=False) as archive:
            counts = Counter(archive.files)
            arrays = {name: archive[name] for name in counts}
    except Exception as error:  # a broken archive can raise nearly anything
        raise InputError(
            f"{path}: is not a whole .npz file of plain arrays ({error}); "
            "write it with numpy.savez(path, images=..., labels=...)"
        ) from error
    for name, count in counts.items():
        if count > 1:
            raise InputError(f"{path}: must have one array {name!r}, found {count}")
    return arrays


def _part(path: Path, arrays: dict[str, np.ndarray], prefix: str) -> LabelledImages:
    image_key, label_key = f"{prefix}images", f"{prefix}labels"
    for key in (image_key, label_key):
        if key not in arrays:
            raise InputError(
                f"{path}: has no array {key!r}; expected images and labels, "
                f"found {', '.join(sorted(arrays)) or 'nothing'}"
            )
    where = f"{path}: {image_key}"
    largest = _LARGEST_CAPTIONED if "captions" in arrays else _LARGEST
    images_NCHW = _channels_first(where, arrays[image_key], largest)
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


def _channels_first(where: str, images: np.ndarray, largest: int) -> np.ndarray:
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
    if not _SMALLEST <= height == width <= largest:
        raise InputError(
            f"{where} must be square, {_SMALLEST} to {largest} pixels a side, "
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


def _first_image(wrong_NCHW: np.ndarray) -> int:
    return int(wrong_NCHW.reshape(len(wrong_NCHW), -1).any(axis=1).argmax())


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


IMAGES_NAME = "images.npz"
SUMS_NAME = "SHA256SUMS"


def find_source(name: str, data_root: Path) -> Source:
    """Find a data set by its name, among those that jemtrack knows and the user's own.

    Raises:
        ParameterError: if there is none.
    """
    if name in SOURCES:
        return SOURCES[name]
    if not (data_root / name / SUMS_NAME).is_file():
        raise ParameterError(f"dataset: {_unknown(name)}")
    return own_source(name, data_root / name)


def own_source(name: str, folder: Path) -> Source:
    """Describe the user's own data in `folder` by the checksum that was written beside them.

    Raises:
        InputError: if there are none, or the checksum is missing or unreadable.
    """
    check_name(name)
    sums, to_bring = folder / SUMS_NAME, _how_to_bring(name)
    if not sums.is_file():
        raise InputError(f"{sums} is not there; {_unknown(name)}")
    content = sums.read_text(encoding="utf-8", errors="replace")
    line = re.fullmatch(rf"([0-9a-f]{{64}}) [ *]{re.escape(IMAGES_NAME)}\s*", content)
    if line is None:
        raise InputError(
            f"{sums}: must be one line, the sha256 and {IMAGES_NAME}; "
            f"bring the data again with {to_bring}"
        )
    form = Form({IMAGES_NAME: line[1]}, read_npz, how_to_bring=to_bring)
    return Source(name, n_classes=None, flip=False, forms=(form,), mend=to_bring)


def write_checksum(folder: Path) -> None:
    """Write the checksum of the images in `folder` beside them, as `sha256sum` would."""
    line = f"{digest(folder / IMAGES_NAME)}  {IMAGES_NAME}\n"
    (folder / SUMS_NAME).write_text(line, encoding="utf-8", newline="\n")


def check_name(name: str) -> None:
    """Refuse a name that is not a folder's own on every system.

    Raises:
        InputError: if it is none, or is a known name in other case.
    """
    if problem := name_problem(name, dots=False):
        raise InputError(f"the name of a data set {problem}")
    if name not in SOURCES and name.lower() in SOURCES:
        raise InputError(
            f"a data set of your own cannot be called {name}, did you mean {name.lower()}? "
            "On some systems both names are one folder"
        )


def npz_in(given: Path, name: str) -> Path:
    """Find the one `.npz` file that `given` is or holds; `images.npz` goes before others.

    Raises:
        InputError: if there is none, or more than one.
    """
    if given.is_file():
        return given
    found = sorted(given.glob("*.npz"))
    if not found:
        raise InputError(f"{given} has no .npz file in it; {_unknown(name)}")
    chosen = [path for path in found if path.name == IMAGES_NAME] or found
    if len(chosen) > 1:
        names = ", ".join(path.name for path in found)
        raise InputError(f"{given}: expected one .npz file, found {names}; name the file itself")
    return chosen[0]


def _how_to_bring(name: str) -> str:
    return f"`jemtrack data {name} --from {name}.npz`"


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name.lower(), SOURCES, n=1)
    hint = f", did you mean {close[0]}?" if close else ""
    return (
        f"{name} is none of the known data sets ({', '.join(SOURCES)}){hint}; bring your own with "
        f"{_how_to_bring(name)}, a NumPy file with the arrays images and labels"
    )
