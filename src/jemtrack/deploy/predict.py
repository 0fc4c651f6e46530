"""Answer for images with a bundle that jemtrack wrote; needs numpy and onnxruntime alone.

    python predict.py --self-test
    python predict.py image.npy     # uint8, (N, C, H, W) or (C, H, W); for a PNG, with Pillow
    python predict.py --model model.int8.onnx --threshold -3.5 image.npy

From Python: `Model(folder)(images)`. A file's hash is checked before anything in it is loaded.
"""

import argparse
import hashlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

FORMAT = 1
KIND = "bundle of jemtrack"
DESCRIPTION, SAMPLES, MODEL = "bundle.json", "samples.npz", "model.onnx"
INPUT, TEMPERATURE, THRESHOLD = "images", "temperature", "threshold"
MASS, MASS_FILE = "approximate_mass", "mass.onnx"
_TOLERANCE = 1e-5  # of the self-test, where the processor is of another kind


class BundleError(ValueError):
    """A bundle or an image cannot be used; the message says what, where and why."""


class Model:
    """A model of a bundle: `model(images)` computes its outputs, as arrays by name.

    Args:
        folder: the bundle.
        file: which of its models.
        threads: of the CPU; 0 for one a core.
        threshold: of log p~(x), instead of the bundle's.

    Raises:
        BundleError: if the bundle is broken, altered, foreign or newer than this file.
    """

    def __init__(
        self,
        folder: str | Path,
        file: str = MODEL,
        *,
        threads: int = 0,
        threshold: float | None = None,
    ) -> None:
        self.description = read_description(Path(folder))
        if file not in self.description["models"]:
            there = ", ".join(self.description["models"])
            raise BundleError(f"{folder} has no model {file!r}; it has {there}")
        self.about: dict[str, Any] = self.description["models"][file]
        self.shape: tuple[int, ...] = tuple(self.description["input"]["shape"])
        self.threshold: float = self.about["threshold"] if threshold is None else threshold
        self._folder, self._threads = Path(folder), threads
        self.session = self._opened(file)
        self._mass_session: onnxruntime.InferenceSession | None = None
        self.outputs = [each.name for each in self.session.get_outputs()]

    def __call__(self, images_NCHW: np.ndarray) -> dict[str, np.ndarray]:
        """Compute probabilities, log p~(x), the Mahalanobis score and the verdict `refused`.

        Raises:
            BundleError: unless the images are uint8, (N, C, H, W), as those of the bundle.
        """
        images_NCHW = np.asarray(images_NCHW)
        check_images(images_NCHW.dtype, images_NCHW.shape, self.shape)
        inputs = {INPUT: images_NCHW, THRESHOLD: np.array(self.threshold, np.float32)}
        return dict(zip(self.outputs, self.session.run(None, inputs), strict=True))

    def approximate_mass(self, images_NCHW: np.ndarray) -> np.ndarray:
        """Compute -||d log p~(x) / dx||, (N,): 0 at a flat mode, less where the density is steep.

        Raises:
            BundleError: if the bundle has no graph of it, or for such images as a call refuses.
        """
        if MASS not in self.description:
            raise BundleError(f"{self._folder} has no {MASS_FILE}: make it with gradient: true")
        images_NCHW = np.asarray(images_NCHW)
        check_images(images_NCHW.dtype, images_NCHW.shape, self.shape)
        self._mass_session = self._mass_session or self._opened(MASS_FILE)
        mass_N: np.ndarray = self._mass_session.run(None, {INPUT: images_NCHW})[0]
        return mass_N

    def _opened(self, file: str) -> onnxruntime.InferenceSession:
        content = read_checked(self._folder, file, self.description)
        where = self._folder / file
        try:
            session = open_session(content, self._threads)
        except Exception as error:  # onnxruntime's errors have no base class but this
            raise BundleError(f"{where} does not load in onnxruntime: {error}") from error
        found = {each.name: each.shape[1:] for each in session.get_inputs()}
        if found.get(INPUT) != [*self.shape]:
            raise BundleError(f"{where} is not for images of {self.shape}, but {found}")
        return session


def open_session(content: bytes, threads: int = 0) -> onnxruntime.InferenceSession:
    """Load a graph on the CPU, with so many threads; 0 is one a core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # it warns that the threshold is no constant: on purpose
    return onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])


def check_images(dtype: Any, found: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Raise BundleError unless these are type and shape of one image or more of `shape`."""
    if dtype != np.uint8 or found[1:] != shape or not found[0]:
        expected = ", ".join(map(str, shape))
        raise BundleError(
            f"images must be uint8 of shape (N, {expected}), N >= 1, got {dtype} of shape {found}"
        )


def read_description(folder: Path) -> dict[str, Any]:
    """Read and check bundle.json; raise BundleError if it is none, is newer or was altered."""
    path = folder / DESCRIPTION
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        kind, version, digest = found["kind"], int(found["format"]), found.pop("sha256")
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}: {folder} is not a {KIND}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(f"{path} is damaged, or not of a {KIND}: {error!r}") from error
    if kind != KIND or version > FORMAT:
        raise BundleError(
            f"{path}: expected a {KIND} of format {FORMAT} or older, got {kind!r} of {version}"
        )
    if digest != digest_of(found):
        raise BundleError(f"{path} was altered: its sha256 is not the one that it names")
    return dict(found)


def digest_of(description: dict[str, Any]) -> str:
    """Compute the sha256 of a bundle.json without its own."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def read_checked(folder: Path, name: str, description: dict[str, Any]) -> bytes:
    """Read a file of the bundle; raise BundleError unless its sha256 is the one on record."""
    path = folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != description["files"][name]:
        raise BundleError(f"{path} is damaged or altered: its sha256 is not that of {DESCRIPTION}")
    return content


def read_images(content: bytes, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Read images, uint8 (N, C, H, W), from a `png`, an `npy` or the `raw` bytes of their pixels.

    The size is checked before a pixel is decoded.

    Raises:
        BundleError: if the content is of another kind or size.
    """
    if kind not in _READERS:
        raise BundleError(f"images must be of {', '.join(_READERS)}, got {kind!r}")
    try:
        return _READERS[kind](content, shape)
    except BundleError:
        raise
    except ModuleNotFoundError as error:
        raise BundleError(f"reading {kind} needs {error.name}, not installed here") from error
    except Exception as error:  # of whatever a broken file makes numpy and Pillow raise
        raise BundleError(f"not readable as {kind}: {error}") from error


def _read_raw(content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    n_bytes = int(np.prod(shape))
    if not content or len(content) % n_bytes:
        raise BundleError(f"raw images must be {n_bytes} bytes each, got {len(content)} bytes")
    return np.frombuffer(content, np.uint8).reshape(-1, *shape)


def _read_npy(content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    stream = io.BytesIO(content)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise BundleError("an npy file must be of version 1.0, as numpy.save writes arrays")
    found, in_columns, dtype = np.lib.format.read_array_header_1_0(stream)
    check_images(dtype, found if len(found) > len(shape) else (1, *found), shape)
    if len(content) - stream.tell() != np.prod(found):
        raise BundleError(f"the npy file is cut short: its header says shape {found}")
    pixels = np.frombuffer(content, np.uint8, offset=stream.tell())
    return pixels.reshape(found, order="F" if in_columns else "C").reshape(-1, *shape)


def _read_png(content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    from PIL import Image  # the one thing that numpy cannot read

    channels, height, width = shape
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        mode = {1: "L", 3: "RGB"}[channels]
        if (image.size, image.mode) != ((width, height), mode):
            raise BundleError(
                f"a PNG must be {width} x {height} pixels of mode {mode}, got "
                f"{image.size[0]} x {image.size[1]} of mode {image.mode}"
            )
        pixels = np.asarray(image)  # decoded only now
    return pixels.reshape(1, height, width, channels).transpose(0, 3, 1, 2)


_READERS = {"raw": _read_raw, "npy": _read_npy, "png": _read_png}


def self_test(folder: Path) -> list[str]:
    """Check the hash of each file, and compute the samples again; say how each output differs.

    Raises:
        BundleError: if one differs by more than another processor explains.
    """
    description = read_description(folder)
    for name in description["files"]:
        read_checked(folder, name, description)
    stored = np.load(io.BytesIO(read_checked(folder, SAMPLES, description)), allow_pickle=False)
    images = stored[INPUT]
    answers: dict[str, np.ndarray] = {}
    for file in description["models"]:
        model = Model(folder, file, threads=1)
        answers |= {f"{file}/{name}": values for name, values in model(images).items()}
    if MASS in description:
        answers[f"{MASS_FILE}/{MASS}"] = model.approximate_mass(images)
    lines = []
    for name, values in answers.items():
        expected, (file, output) = stored[name], name.split("/")
        largest = np.abs(np.subtract(values, expected, dtype=np.float64)).max()
        if not np.allclose(values, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
            raise BundleError(f"{folder}/{file}: {output} differs from its samples by {largest}")
        found = "to the bit" if np.array_equal(values, expected) else f"to {largest:.2g}"
        lines.append(f"{file}: {output} as stored, {found}")
    return lines


def main() -> None:
    """Print the answers as JSON, a line an image."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("images", nargs="*", type=Path, help="npy or png")
    parser.add_argument("--model", default=MODEL, help=f"a model of the bundle ({MODEL})")
    parser.add_argument("--threshold", type=float, help="of log p~(x), instead of the bundle's")
    parser.add_argument("--mass", action="store_true", help=f"also {MASS}, of {MASS_FILE}")
    parser.add_argument("--self-test", action="store_true", help="compute the samples again")
    options = parser.parse_args()
    folder = Path(__file__).parent
    try:
        if options.self_test:
            print(*self_test(folder), sep="\n")
        model = Model(folder, options.model, threshold=options.threshold)
        for path in options.images:
            images = _read(path, model.shape)
            masses = model.approximate_mass(images).tolist() if options.mass else None
            for n, row in enumerate(rows(model(images), model.description["classes"])):
                mass = {MASS: masses[n]} if masses else {}
                print(json.dumps({"image": str(path), **row, **mass}))
    except (BundleError, OSError) as error:
        sys.exit(f"predict.py: {error}")


def _read(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        return read_images(path.read_bytes(), path.suffix[1:].lower(), shape)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error


def rows(answers: dict[str, np.ndarray], classes: list[str]) -> list[dict[str, Any]]:
    """Put the answers into plain values, an object an image."""
    return [
        {
            "class": classes[int(answers["probabilities"][n].argmax())],
            "refused": bool(answers["refused"][n]),
            "log_density": float(answers["log_density"][n]),
            "mahalanobis": float(answers["mahalanobis"][n]),
            "probabilities": dict(zip(classes, answers["probabilities"][n].tolist(), strict=True)),
        }
        for n in range(len(answers["refused"]))
    ]


if __name__ == "__main__":
    main()
