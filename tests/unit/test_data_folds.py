"""Folds of cross-validation."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from profiles import at_most

from jemtrack.data.splits import stratified_folds
from jemtrack.errors import ParameterError


@at_most(20)
@given(st.lists(st.integers(3, 9), min_size=2, max_size=4), st.integers(2, 3), st.integers(0, 99))
def test_every_image_is_tested_once_and_classes_are_spread_evenly(sizes, n_folds, seed):
    labels_N = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))

    folds = list(stratified_folds(labels_N, n_folds, seed))

    assert len(folds) == n_folds
    assert torch.cat([fold.test for fold in folds]).sort().values.tolist() == [*range(sum(sizes))]
    for fold in folds:
        both = torch.cat([fold.train, fold.test]).sort().values
        assert both.tolist() == [*range(sum(sizes))]
        for class_, size in enumerate(sizes):
            tested = int((labels_N[fold.test] == class_).sum())
            assert size // n_folds <= tested <= -(-size // n_folds)


def test_the_seed_decides():
    labels_N = torch.arange(60) % 3
    one, again, other = (
        [fold.test.tolist() for fold in stratified_folds(labels_N, 5, seed)] for seed in (1, 1, 2)
    )

    assert one == again
    assert one != other


@pytest.mark.parametrize("n_folds", [1, 4])
def test_a_class_must_reach_every_fold(n_folds):
    with pytest.raises(ParameterError, match=f"n_folds must be 2 to 3, .* got {n_folds}"):
        list(stratified_folds(torch.tensor([0, 0, 0, 1, 1, 1, 1]), n_folds, 0))


def test_no_images_have_no_folds():
    with pytest.raises(ParameterError, match="n_folds must be 2 to 0"):
        list(stratified_folds(torch.tensor([], dtype=torch.int64), 2, 0))
