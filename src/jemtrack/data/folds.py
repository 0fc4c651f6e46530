"""Cross-validation: the images in parts, each of which is the test set once."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from jemtrack.errors import ParameterError


class Fold(NamedTuple):
    """The indices of a fold's images, int64, ascending."""

    train: Tensor
    test: Tensor


def stratified_folds(labels_N: Tensor, n_folds: int, seed: int) -> Iterator[Fold]:
    """Yield `n_folds` folds; each image is in the test part of one, and each class evenly spread.

    `seed` decides which; the same one gives the same folds.

    Raises:
        ParameterError: when a class of `labels_N` has fewer images than there are folds.
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
