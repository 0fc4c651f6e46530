"""From a data set's files to the three parts that trainers and evaluations read."""

from pathlib import Path

from jemtrack.data.images import DataSplits
from jemtrack.data.own import find_source
from jemtrack.data.sources import read_source
from jemtrack.data.split import split
from jemtrack.errors import ParameterError


def prepare(dataset: str, data_root: Path, n_classes: int, n_valid: int, seed: int) -> DataSplits:
    """Check the files under `data_root/<dataset>`, read them and split them.

    Raises:
        ParameterError: when a parameter does not fit the data.
        InputError: when a file is missing or altered.
    """
    source = find_source(dataset, data_root)
    if source.n_classes not in {None, n_classes}:
        raise ParameterError(f"n_classes must be {source.n_classes} for {dataset}, got {n_classes}")
    images = read_source(source, data_root / dataset)
    train, valid, test = split(images, n_classes, n_valid, seed)
    flip = source.flip or images.flip
    return DataSplits(dataset, n_classes, flip, seed, train, valid, test)
