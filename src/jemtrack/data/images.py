"""Labelled images in memory, and the one file that carries a prepared data set to the trainers.

Dimensions: `N` images, `C` channels (1 or 3), `H` rows, `W` columns.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from jemtrack.documents import parse_json, refused_if_broken
from jemtrack.errors import InputError
from jemtrack.files import atomic_write

LARGEST_PIXEL = 255
PARTS = ("train", "valid", "test")

# All metadata are under one key: safetensors writes several keys in a random order.
_HEADER_KEY = "jemtrack"


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images (uint8, 0 to 255, of shape `(N, C, H, W)`) and their classes (int64, `(N,)`).

    Raises:
        InputError: if types, shapes or lengths differ from these.
    """

    images_NCHW: Tensor
    labels_N: Tensor

    def __post_init__(self) -> None:
        images, labels = self.images_NCHW, self.labels_N
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise InputError(
                f"images must be uint8 of shape (N, C, H, W), got {_described(images)}"
            )
        if labels.dtype != torch.int64 or labels.ndim != 1:
            raise InputError(f"labels must be int64 of shape (N,), got {_described(labels)}")
        if len(images) != len(labels):
            raise InputError(f"{len(images)} images cannot have {len(labels)} labels")

    def __len__(self) -> int:
        return len(self.labels_N)

    def __getitem__(self, indices_M: Tensor) -> "LabelledImages":
        """Pick the images at `indices_M`, in that order."""
        return LabelledImages(self.images_NCHW[indices_M], self.labels_N[indices_M])

    @classmethod
    def joined(cls, parts: Sequence["LabelledImages"]) -> "LabelledImages":
        """Concatenate `parts`, whose images have one size."""
        return cls(
            torch.cat([part.images_NCHW for part in parts]),
            torch.cat([part.labels_N for part in parts]),
        )


@dataclass(frozen=True, eq=False)
class SourceImages:
    """The images in the files of a source, which may have no test images.

    `flip` tells whether the file itself declares that a horizontal flip keeps the class. Where
    `captions` are given, a label is the number of one of them.
    """

    train: LabelledImages
    test: LabelledImages | None = None
    flip: bool = False
    captions: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class DataSplits:
    """A prepared data set: its three parts and what a trainer must know about it.

    `flip` tells whether a horizontal flip keeps the class; `seed` is the one that drew the parts.
    `captions` are those of the labels, where the data set has captions and no classes.
    """

    dataset: str
    n_classes: int
    flip: bool
    seed: int
    train: LabelledImages
    valid: LabelledImages
    test: LabelledImages
    captions: tuple[str, ...] = ()

    def save(self, path: Path) -> None:
        """Write one safetensors file; equal splits give equal bytes."""
        tensors = {}
        for name in PARTS:
            part: LabelledImages = getattr(self, name)
            tensors[f"{name}.images"] = part.images_NCHW.contiguous()
            tensors[f"{name}.labels"] = part.labels_N.contiguous()
        notes = {
            "dataset": self.dataset,
            "n_classes": self.n_classes,
            "flip": self.flip,
            "seed": self.seed,
        }
        if self.captions:
            notes["captions"] = self.captions
        content = save(tensors, {_HEADER_KEY: json.dumps(notes)})
        # Renamed, because the old file may be a link into a cache, or mapped by a reader.
        atomic_write(path, lambda unfinished: unfinished.write_bytes(content))

    @classmethod
    def load(cls, path: Path) -> "DataSplits":
        """Read what `save` wrote.

        Raises:
            InputError: if the file is missing, broken or not a prepared data set.
        """
        mend = "make it again with `dvc repro PrepareData`"
        with (
            refused_if_broken(f"{path}:", "is not a whole prepared data set", mend),
            safe_open(path, framework="pt") as file,
        ):
            notes = parse_json((file.metadata() or {})[_HEADER_KEY], "its metadata")
            train, valid, test = (_part(file.get_tensor, name) for name in PARTS)
            captions = tuple(notes.pop("captions", ()))
            data = cls(**notes, train=train, valid=valid, test=test, captions=captions)
            _check_notes(data)
            return data


def to_unit_range(images_BCHW: Tensor) -> Tensor:
    """Scale uint8 images to float32 in [-1, 1]: 0 becomes -1 and 255 becomes 1, exactly."""
    scaled_BCHW = images_BCHW.to(torch.float32, copy=True)
    # In place, on the copy: a new tensor for each operation takes four times as long.
    return scaled_BCHW.div_(LARGEST_PIXEL / 2).sub_(1)


def _check_notes(data: DataSplits) -> None:
    for name, kind in {"dataset": str, "n_classes": int, "flip": bool, "seed": int}.items():
        if type(getattr(data, name)) is not kind:
            raise ValueError(f"{name} must be of type {kind.__name__}")
    labels = torch.cat([getattr(data, part).labels_N for part in PARTS])
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < data.n_classes:
        raise ValueError(f"labels must be 0 to {data.n_classes - 1}")


def _part(tensor: Callable[[str], Tensor], name: str) -> LabelledImages:
    return LabelledImages(tensor(f"{name}.images"), tensor(f"{name}.labels"))


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


def save_outliers(outliers: Mapping[str, Tensor], path: Path) -> None:
    """Write one safetensors file; equal images give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(save({name: each.contiguous() for name, each in outliers.items()}))


def load_outliers(path: Path) -> dict[str, Tensor]:
    """Read what `save_outliers` wrote.

    Raises:
        InputError: if the file is missing or broken.
    """
    mend = f"make it again with `dvc repro {path.parent.name}`"
    with refused_if_broken(f"{path}:", "is not a whole file of outliers", mend):
        found: dict[str, Tensor] = load_file(path)
        for name, images in found.items():
            if images.dtype != torch.uint8 or images.ndim != 4:
                raise ValueError(f"{name} must be uint8 of shape (N, C, H, W)")
    return found
