"""Small data sets in the publishers' true formats, and sources that describe them."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jemtrack.data.sources.formats import read_idx
from jemtrack.data.sources.registry import Form, Source

IDX_NAMES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


class _Python2Pickler(pickle._Pickler):
    """Text and bytes alike become Python 2's `str`."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)

    def _save_string(self, value: str | bytes) -> None:
        content = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)

    dispatch[str] = _save_string
    dispatch[bytes] = _save_string


def python2_pickle(value: object) -> bytes:
    """Pickle as Python 2 with NumPy 1 did."""
    file = io.BytesIO()
    _Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def random_images(n: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def idx_bytes(values: np.ndarray) -> bytes:
    sizes = np.array(values.shape, ">i4").tobytes()
    return b"\0\0\x08" + bytes([values.ndim]) + sizes + values.astype(np.uint8).tobytes()


def write_idx(
    folder: Path, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]
) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in IDX_NAMES]
    for path, values in zip(paths, (*train, *test), strict=True):
        path.write_bytes(gzip.compress(idx_bytes(values), mtime=0))
    return paths


def write_mnist_pickle(path: Path, parts: list[tuple[np.ndarray, np.ndarray]]) -> Path:
    as_published = tuple(
        (images.reshape(len(images), -1).astype(np.float32) / 256, labels.astype(np.int64))
        for images, labels in parts
    )
    path.write_bytes(gzip.compress(python2_pickle(as_published)))
    return path


def write_cifar(path: Path, batches: dict[str, dict[str, object]]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        folder = tarfile.TarInfo("cifar-batches-py")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, batch in {"readme.html": {}, **batches}.items():
            content = python2_pickle(batch)
            member = tarfile.TarInfo(f"cifar-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def tiny_arrays(n: int = 12) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Make `n` training images of 28x28 and half as many test images, of three classes."""
    labels = np.arange(n) % 3
    return (random_images(n, 28, 28), labels), (
        random_images(n // 2, 28, 28, seed=1),
        labels[: n // 2],
    )


def tiny_source(contents: dict[str, bytes], **where: Any) -> Source:
    """Describe four IDX files by the digests of their contents, under the name `tiny`."""
    files = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    form = Form(files, read_idx, how_to_bring="pip install tiny", **where)
    return Source("tiny", n_classes=3, flip=False, forms=(form,), mend="`jemtrack data tiny`")


def tiny_contents() -> dict[str, bytes]:
    train, test = tiny_arrays()
    return {
        name: idx_bytes(values) for name, values in zip(IDX_NAMES, (*train, *test), strict=True)
    }


def files_under(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
