"""Split the images of a data set into training, validation and test images, by a seed."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from jemtrack.data.images import DataSplits, LabelledImages, SourceImages
from jemtrack.data.sources.own import find_source
from jemtrack.data.sources.registry import read_source
from jemtrack.errors import ParameterError


class Fold(NamedTuple):
    """The indices of the images of a fold, int64, ascending."""

    train: Tensor
    test: Tensor


def stratified_folds(labels_N: Tensor, n_folds: int, seed: int) -> Iterator[Fold]:
    """Yield `n_folds` folds; each image is in one test part, and each class is spread evenly.

    The same `seed` gives the same folds.

    Raises:
        ParameterError: if a class of `labels_N` has fewer images than there are folds.
    """
    from sklearn.model_selection import StratifiedKFold  # takes a while to import

    classes_N = labels_N.cpu().numpy()
    smallest = int(np.unique(classes_N, return_counts=True)[1].min(initial=len(classes_N)))
    if not 2 <= n_folds <= smallest:
        raise ParameterError(
            f"n_folds must be 2 to {smallest}, the images of the smallest class, got {n_folds}"
        )
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    for train, test in folds.split(classes_N, classes_N):
        yield Fold(torch.from_numpy(train), torch.from_numpy(test))


_TEST_FRACTION = 5  # one image in five is for testing if the source has no test images
_SEEDS = 2**32  # that NumPy's legacy generator, and so scikit-learn, takes


def split(
    images: SourceImages, n_classes: int, n_valid: int, seed: int
) -> tuple[LabelledImages, LabelledImages, LabelledImages]:
    """Split into training, validation and test images.

    Test images of the source stay what they are; if it has none, a fifth is drawn, and `n_valid`
    does not change which. Every class keeps at least one training image; a caption need not.

    Raises:
        ParameterError: if a label is not below `n_classes`, or `n_valid` or `seed` do not fit.
    """
    if not 0 <= seed < _SEEDS:
        raise ParameterError(f"seed must be 0 to {_SEEDS - 1}, got {seed}")
    check_labels(images.train, n_classes, "training")
    # Captions are no classes: all images are drawn from alike.
    labels_N = torch.zeros_like(images.train.labels_N) if images.captions else images.train.labels_N
    rest, test = images.train, images.test
    if test is None:
        is_test_N = _draw(labels_N, _n_test(labels_N), seed)
        rest, test, labels_N = rest[~is_test_N], rest[is_test_N], labels_N[~is_test_N]
    check_labels(test, n_classes, "test")
    _check_n_valid(labels_N, n_valid)
    is_valid_N = _draw(labels_N, n_valid, seed)
    return rest[~is_valid_N], rest[is_valid_N], test


def _n_test(labels_N: Tensor) -> int:
    largest = _largest_draw(labels_N)
    if largest == 0:
        raise ParameterError(
            f"dataset: {len(labels_N)} images of as many classes leave none to test on; "
            "bring more, or test_images and test_labels"
        )
    return max(1, min(round(len(labels_N) / _TEST_FRACTION), largest))


def check_labels(images: LabelledImages, n_classes: int, part: str) -> None:
    """Refuse labels for which there is no logit.

    Raises:
        ParameterError: if there is one, naming the first and its index.
    """
    wrong_N = (images.labels_N < 0) | (images.labels_N >= n_classes)
    if wrong_N.any():
        index = int(wrong_N.int().argmax())
        raise ParameterError(
            f"n_classes must be >= {int(images.labels_N.max()) + 1} for this data set, "
            f"got {n_classes}: its labels must be 0 to {n_classes - 1}, "
            f"got {int(images.labels_N[index])} at index {index} of the {part} images"
        )


def _largest_draw(labels_N: Tensor) -> int:
    return len(labels_N) - len(np.unique(labels_N.numpy()))


def _check_n_valid(labels_N: Tensor, n_valid: int) -> None:
    largest = _largest_draw(labels_N)
    if not 0 <= n_valid <= largest:
        raise ParameterError(
            f"n_valid must be 0 to {largest}, so that of the {len(labels_N)} images to draw from "
            f"each of the {len(labels_N) - largest} classes keeps one to train on, got {n_valid}"
        )


def _draw(labels_N: Tensor, n_drawn: int, seed: int) -> Tensor:
    """Draw `n_drawn` images of these labels; return which, as bool (N,)."""
    is_drawn_N = torch.zeros(len(labels_N), dtype=torch.bool)
    is_drawn_N[torch.from_numpy(_drawn_indices(labels_N.numpy(), n_drawn, seed))] = True
    return is_drawn_N


def _drawn_indices(labels_N: np.ndarray, n_drawn: int, seed: int) -> np.ndarray:
    """Draw in proportion to the classes, or uniformly if they are too small for that.

    scikit-learn cannot stratify if a part has fewer images than there are classes, or a class has
    one image, and its rounding can take all of a rare class. Then one random image of each class
    is held back and the draw is uniform over all the others.
    """
    # Every stage imports this module, and importing scikit-learn takes seconds.
    from sklearn.model_selection import train_test_split

    counts_C = np.unique(labels_N, return_counts=True)[1]
    smallest_part = min(n_drawn, len(labels_N) - n_drawn)
    if counts_C.min() >= 2 and smallest_part >= len(counts_C):
        kept, drawn = train_test_split(
            np.arange(len(labels_N)), test_size=n_drawn, random_state=seed, stratify=labels_N
        )
        if len(np.unique(labels_N[kept])) == len(counts_C):
            return np.asarray(drawn)
    order_N = np.random.default_rng(seed).permutation(len(labels_N))
    held_back = np.unique(labels_N[order_N], return_index=True)[1]
    return np.delete(order_N, held_back)[:n_drawn]


class ChosenFold(NamedTuple):
    """A fold of a cross-validation: number `fold` of `n_folds`, from 0."""

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

    A `fold` divides all images, those that the source tests on as well; each image is a test
    image in one fold only.

    Raises:
        ParameterError: if a parameter does not fit the data, or the data cannot train or test a
            classifier.
        InputError: if a file is missing or altered.
    """
    source = find_source(dataset, data_root)
    if source.n_classes not in {None, n_classes}:
        raise ParameterError(f"n_classes must be {source.n_classes} for {dataset}, got {n_classes}")
    images = read_source(source, data_root / dataset)
    if images.captions:
        n_classes = len(images.captions)
    elif source.n_classes is None:
        _check_n_classes(dataset, images, n_classes)
    if fold is not None:
        images = _folded(images, fold, seed)
    train, valid, test = split(images, n_classes, n_valid, seed)
    _check_two_classes(train, "train")
    _check_two_classes(test, "test")
    flip = source.flip or images.flip
    return DataSplits(dataset, n_classes, flip, seed, train, valid, test, images.captions)


def _check_n_classes(dataset: str, images: SourceImages, n_classes: int) -> None:
    """Refuse a class that no image has: nothing would train its logit."""
    parts = [part.labels_N for part in (images.train, images.test) if part is not None]
    found = int(torch.cat(parts).max()) + 1
    if found < n_classes:  # where there are more, `check_labels` names the first image
        raise ParameterError(
            f"n_classes must be {found} for {dataset}, whose labels are 0 to {found - 1}, "
            f"got {n_classes}"
        )


def _check_two_classes(part: LabelledImages, use: str) -> None:
    """Refuse what a classifier cannot be trained or tested on."""
    classes = sorted({*part.labels_N.tolist()})
    if len(classes) < 2:
        raise ParameterError(
            f"dataset: the images to {use} on must be of at least two classes, got {len(part)} of "
            f"class {', '.join(map(str, classes)) or 'none'}; bring more, or other test_images"
        )


def _folded(images: SourceImages, chosen: ChosenFold, seed: int) -> SourceImages:
    parts = [part for part in (images.train, images.test) if part is not None]
    every = LabelledImages.joined(parts)
    if not 0 <= chosen.fold < chosen.n_folds:
        raise ParameterError(f"fold must be 0 to {chosen.n_folds - 1}, got {chosen.fold}")
    folds = stratified_folds(every.labels_N, chosen.n_folds, seed)
    train, test = next(islice(folds, chosen.fold, None))
    return SourceImages(every[train], every[test], images.flip, images.captions)
