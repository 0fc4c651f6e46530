"""The objectives of this project against their formulas."""

import torch

from my_study.objectives import PseudoHuber


def test_pseudo_huber_is_quadratic_near_zero_and_linear_far_from_it() -> None:
    near = torch.tensor([0.0, 1e-4, -1e-4], dtype=torch.float64)
    far = torch.tensor([1e6, -1e6], dtype=torch.float64)

    torch.testing.assert_close(PseudoHuber().spread(near), near.square() / 2)
    torch.testing.assert_close(PseudoHuber().spread(far), far.abs() - 1)
