"""Pictures: images in rows, and files without loss."""

import numpy as np
import pytest
import torch
from PIL import Image

from jemtrack.shared.pictures import grid, write_picture


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_has_a_row_a_class(channels):
    images = torch.randint(256, (6, channels, 4, 5), dtype=torch.uint8)

    table = grid(images, columns=3)

    assert table.shape == (channels, 2 * 5 + 1, 3 * 6 + 1)
    assert torch.equal(table[:, 6:10, 13:18], images[5])


def test_a_grid_has_its_images_in_rows(tmp_path):
    pixels = torch.arange(3, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)

    table = grid(pixels, columns=2)
    write_picture(tmp_path / "new" / "a.webp", table, scale=2)

    assert table.shape == (1, 7, 7)
    assert [int(table[0, y, x]) for y, x in ((1, 1), (1, 4), (4, 1), (4, 4), (0, 0))] == [
        0, 1, 2, 128, 128,
    ]  # fmt: skip
    assert Image.open(tmp_path / "new" / "a.webp").size == (14, 14)


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.WEBP"])
def test_a_picture_is_written_without_loss(tmp_path, name):
    stream = torch.Generator().manual_seed(0)
    pixels_CHW = torch.randint(256, (3, 9, 9), generator=stream).to(torch.uint8)

    write_picture(tmp_path / name, pixels_CHW)

    found_HWC = torch.from_numpy(np.array(Image.open(tmp_path / name).convert("RGB")))
    assert torch.equal(found_HWC.permute(2, 0, 1), pixels_CHW)
