"""From a data set's files to the three parts that trainers and evaluations read."""

from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch

from jemtrack.data.folds import stratified_folds
from jemtrack.data.images import DataSplits, LabelledImages, SourceImages
from jemtrack.data.own import find_source
from jemtrack.data.sources import read_source
from jemtrack.data.split import split
from jemtrack.errors import ParameterError


class ChosenFold(NamedTuple):
    """One fold of a cross-validation: number `fold` of `n_folds`, from 0."""

    n_folds: int
    fold: int


def prepare(
    dataset: str,
    data_root: Path,
    n_classes: int,
    n_valid: int,
    seed: int,
    fold: ChosenFold | None = None,
) -> DataSplits:
    """Check the files under `data_root/<dataset>`, read them and split them.

    A `fold` is of all images, whether the source tests on them or not; its test images are tested
    on in no other fold.

    Raises:
        ParameterError: when a parameter does not fit the data.
        InputError: when a file is missing or altered.
    """
    source = find_source(dataset, data_root)
    if source.n_classes not in {None, n_classes}:
        raise ParameterError(f"n_classes must be {source.n_classes} for {dataset}, got {n_classes}")
    images = read_source(source, data_root / dataset)
    if fold is not None:
        images = _folded(images, fold, seed)
    train, valid, test = split(images, n_classes, n_valid, seed)
    flip = source.flip or images.flip
    return DataSplits(dataset, n_classes, flip, seed, train, valid, test)


def _folded(images: SourceImages, chosen: ChosenFold, seed: int) -> SourceImages:
    parts = [part for part in (images.train, images.test) if part is not None]
    every = LabelledImages(
        torch.cat([part.images_NCHW for part in parts]),
        torch.cat([part.labels_N for part in parts]),
    )
    if not 0 <= chosen.fold < chosen.n_folds:
        raise ParameterError(f"fold must be 0 to {chosen.n_folds - 1}, got {chosen.fold}")
    folds = stratified_folds(every.labels_N, chosen.n_folds, seed)
    train, test = next(islice(folds, chosen.fold, None))
    return SourceImages(every[train], every[test], images.flip)
