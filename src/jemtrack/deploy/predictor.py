"""Answers for files, arrays and bytes: preprocessed, in batches, remembered by content."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from jemtrack.deploy.predict import MODEL, BundleError, Model, check_images, read_images
from jemtrack.errors import InputError

Image = str | Path | bytes | np.ndarray
_SIGNATURES = {b"\x89PNG": "png", b"\x93NUM": "npy"}


class Predictor:
    """A bundle's model for images in any form; `preprocess` is for a subclass to extend.

    An image is a path to a PNG or to an npy file, the bytes of one, the raw bytes of its pixels, or
    a uint8 array (C, H, W), or (H, W) where it is grey. A batch gives what single images give.

    Args:
        bundle: the folder.
        model: which of its models.
        batch_size: images in one pass; changes the speed and the memory alone.
        cache_size: answers to remember, by the content of the image.
        threads: of the CPU; 0 for one a core.
        threshold: of log p~(x), instead of the bundle's.

    Raises:
        InputError: if the bundle cannot be used.
    """

    def __init__(
        self,
        bundle: str | Path,
        *,
        model: str = MODEL,
        batch_size: int = 64,
        cache_size: int = 4096,
        threads: int = 0,
        threshold: float | None = None,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size must be >= 1, got {batch_size}")
        self.model = opened(Path(bundle), model, threads=threads, threshold=threshold)
        self._batch_size, self._cache_size = batch_size, cache_size
        self._cache: OrderedDict[bytes, tuple[np.ndarray, ...]] = OrderedDict()

    def predict(self, images: Image | Iterable[Image]) -> dict[str, np.ndarray]:
        """Answer for one image or several: arrays of N rows, by the names of the outputs.

        Raises:
            InputError: naming the first image that cannot be used, by its number from 0.
        """
        single = isinstance(images, str | Path | bytes) or getattr(images, "ndim", 4) < 4
        several: Any = [images] if single else images
        pixels = [self._preprocessed(n, each) for n, each in enumerate(several)]
        if not pixels:
            raise InputError("there are no images")
        keys = [hashlib.sha256(each.tobytes()).digest() for each in pixels]
        new = {key: each for key, each in zip(keys, pixels, strict=True) if key not in self._cache}
        answers = {key: self._cache[key] for key in {*keys} - {*new}} | self._computed(new)
        self._remember(answers)
        columns = zip(*(answers[key] for key in keys), strict=True)
        return dict(zip(self.model.outputs, map(np.stack, columns), strict=True))

    def preprocess(self, image: Image) -> np.ndarray:
        """Turn an image into uint8 pixels (C, H, W)."""
        if isinstance(image, str | Path):
            return self.preprocess(Path(image).read_bytes())
        shape = self.model.shape
        if isinstance(image, bytes):
            found = read_images(image, _SIGNATURES.get(image[:4], "raw"), shape)
            if len(found) != 1:
                raise BundleError(f"expected one image, got {len(found)}")
            pixels: np.ndarray = found[0]
            return pixels
        found = np.asarray(image)
        if found.ndim == 2:
            found = found[None]
        check_images(found.dtype, (1, *found.shape), shape)
        return found

    def _preprocessed(self, number: int, image: Any) -> np.ndarray:
        try:
            return self.preprocess(image)
        except (BundleError, OSError) as error:
            name = image if isinstance(image, str | Path) else f"image {number}"
            raise InputError(f"{name}: {getattr(error, 'strerror', None) or error}") from error

    def _computed(self, new: dict[bytes, np.ndarray]) -> dict[bytes, tuple[np.ndarray, ...]]:
        keys = [*new]
        found: dict[bytes, tuple[np.ndarray, ...]] = {}
        for start in range(0, len(keys), self._batch_size):
            batch = keys[start : start + self._batch_size]
            answers = self.model(np.stack([new[key] for key in batch]))
            rows = zip(*(answers[name] for name in self.model.outputs), strict=True)
            found |= dict(zip(batch, rows, strict=True))
        return found

    def _remember(self, answers: dict[bytes, tuple[np.ndarray, ...]]) -> None:
        for key, row in answers.items():
            self._cache[key] = row
            self._cache.move_to_end(key)
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)


def opened(bundle: Path, file: str = MODEL, **options: Any) -> Model:
    """Open a bundle's model.

    Raises:
        InputError: if the bundle cannot be used.
    """
    try:
        return Model(bundle, file, **options)
    except BundleError as error:
        raise InputError(str(error)) from error
