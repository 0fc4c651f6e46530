"""Latin letters of the fonts that come with matplotlib, drawn like small photographs of writing.

Letters: `N` images, `C` channels, `H` rows, `W` columns.
"""

import string
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

# O, o, I, l and their like cannot be told from the digits 0 and 1.
LETTERS = "".join(each for each in string.ascii_letters if each not in "OoIil")
FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
)
_OVERSAMPLED = 256  # the pixels of a letter's larger side before it is scaled down
_SHOWN = 0.25  # of the range of brightness: what is above it belongs to what an image shows


def draw_letters(like_NCHW: Tensor, n_images: int, stream: torch.Generator) -> Tensor:
    """Draw letters, bright on dark, uint8 (N, C, H, W) of the same C, H and W as `like_NCHW`.

    Each is a random letter of a random font, in the middle, as tall or wide as what the images
    of `like_NCHW` show: the median of the larger side of their bounding boxes.
    """
    channels, height, width = like_NCHW.shape[1:]
    side = min(_typical_side(like_NCHW), height, width)
    drawn = {}
    images_NHW = torch.zeros(n_images, height, width, dtype=torch.uint8)
    for image_HW in images_NHW:
        letter, font = (
            int(torch.randint(len(kind), (1,), generator=stream)) for kind in (LETTERS, FONTS)
        )
        if (letter, font) not in drawn:
            drawn[letter, font] = _glyph(LETTERS[letter], FONTS[font], side)
        glyph_HW = drawn[letter, font]
        top, left = ((a - b) // 2 for a, b in zip(image_HW.shape, glyph_HW.shape, strict=True))
        image_HW[top : top + glyph_HW.shape[0], left : left + glyph_HW.shape[1]] = glyph_HW
    return images_NHW[:, None].expand(-1, channels, -1, -1).contiguous()


def _typical_side(images_NCHW: Tensor) -> int:
    brightest_NHW = images_NCHW.amax(dim=1).float()
    low_N11 = brightest_NHW.flatten(1).amin(dim=1)[:, None, None]
    high_N11 = brightest_NHW.flatten(1).amax(dim=1)[:, None, None]
    shown_NHW = brightest_NHW > low_N11 + _SHOWN * (high_N11 - low_N11)
    sides = [_extent(shown_NHW.any(dim=other)) for other in (2, 1)]
    return max(1, int(torch.maximum(*sides).median()))


def _extent(shown_NL: Tensor) -> Tensor:
    """Give how far it is from the first to the last that is shown, (N,)."""
    length, shown_NL = shown_NL.shape[1], shown_NL.int()
    return (length - shown_NL.argmax(1) - shown_NL.flip(1).argmax(1)) * shown_NL.any(1)


def _glyph(letter: str, font: str, side: int) -> Tensor:
    """Draw a letter whose larger side has `side` pixels, uint8 (H, W)."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{font}.ttf")
    # The basic layout is Pillow's own; another one is there on some machines only.
    large = ImageFont.truetype(str(path), _OVERSAMPLED, layout_engine=ImageFont.Layout.BASIC)
    canvas = Image.new("L", (3 * _OVERSAMPLED, 3 * _OVERSAMPLED))
    ImageDraw.Draw(canvas).text((_OVERSAMPLED, _OVERSAMPLED), letter, font=large, fill=255)
    canvas = canvas.crop(canvas.getbbox())  # the font's own box is wider than what is drawn
    size = canvas.size
    scale = side / max(size)
    small = canvas.resize(
        (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))), Image.Resampling.BOX
    )
    return torch.from_numpy(np.array(small))
