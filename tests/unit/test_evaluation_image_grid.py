"""Images in rows."""

import numpy as np
import pytest
import torch

from jemtrack.jem.sampling.generation import image_grid


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_has_a_row_a_class(channels):
    images = torch.randint(256, (6, channels, 4, 5), dtype=torch.uint8)

    grid = image_grid(images, columns=3)

    assert grid.shape == (2 * 5 + 1, 3 * 6 + 1, 3)
    last = grid[6:10, 13:18]
    np.testing.assert_array_equal(last, images[5].expand(3, -1, -1).permute(1, 2, 0).numpy())
