"""Images in rows, as one image.

Letters: N images, C channels, H rows, W columns.
"""

import numpy as np
from torch import Tensor


def image_grid(images_NCHW: Tensor, columns: int) -> np.ndarray:
    """Lay uint8 images (N, C, H, W) out in rows, with a line between them, as (rows, cols, 3)."""
    count, _, height, width = images_NCHW.shape
    rows = -(-count // columns)
    grid = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, 3), 128, dtype=np.uint8)
    for index, image_CHW in enumerate(images_NCHW.expand(-1, 3, -1, -1).numpy()):
        top, left = (index // columns) * (height + 1) + 1, (index % columns) * (width + 1) + 1
        grid[top : top + height, left : left + width] = image_CHW.transpose(1, 2, 0)
    return grid
