"""Images of the same shape that a model was not trained on, and the file that carries them.

Some are made from the data set's test images or from nothing (`MADE`), others are the test images
of another data set. Letters: `N` images, `C` channels, `H` rows, `W` columns, `P` pixels.
"""

import string
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jemtrack.data.images import DataSplits, LabelledImages
from jemtrack.data.sources.own import find_source
from jemtrack.data.sources.registry import read_source
from jemtrack.errors import ParameterError
from jemtrack.shared.random_streams import generator

# O, o, I, l and the like look like the digits 0 and 1.
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
_OVERSAMPLED = 256  # pixels of the larger side of a letter before it is scaled down
_SHOWN = 0.25  # of the range of brightness: what is brighter belongs to what an image shows


def draw_letters(like_NCHW: Tensor, n_images: int, stream: torch.Generator) -> Tensor:
    """Draw letters, bright on dark, uint8 (N, C, H, W) of the same C, H and W as `like_NCHW`.

    Each is a random letter of a random font, centred, as tall or wide as what the images of
    `like_NCHW` show: the median of the larger sides of their bounding boxes.
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
    """Return the distance from the first to the last pixel that is shown, (N,)."""
    length, shown_NL = shown_NL.shape[1], shown_NL.int()
    return (length - shown_NL.argmax(1) - shown_NL.flip(1).argmax(1)) * shown_NL.any(1)


def _glyph(letter: str, font: str, side: int) -> Tensor:
    """Draw a letter whose larger side has `side` pixels, uint8 (H, W)."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{font}.ttf")
    # The basic layout is built into Pillow; the other exists on some machines only.
    large = ImageFont.truetype(str(path), _OVERSAMPLED, layout_engine=ImageFont.Layout.BASIC)
    canvas = Image.new("L", (3 * _OVERSAMPLED, 3 * _OVERSAMPLED))
    ImageDraw.Draw(canvas).text((_OVERSAMPLED, _OVERSAMPLED), letter, font=large, fill=255)
    canvas = canvas.crop(canvas.getbbox())  # the box of the font is wider than what is drawn
    size = canvas.size
    scale = side / max(size)
    small = canvas.resize(
        (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))), Image.Resampling.BOX
    )
    return torch.from_numpy(np.array(small))


def permuted(images: LabelledImages, n_images: int, stream: torch.Generator) -> Tensor:
    """Shuffle the pixels of each image, all channels alike: the same brightness, no shape."""
    chosen_NCHW = _some(images.images_NCHW, n_images, stream)
    order_NP = torch.rand(len(chosen_NCHW), chosen_NCHW[0, 0].numel(), generator=stream).argsort(1)
    pixels_NCP = chosen_NCHW.flatten(2)
    shuffled_NCP = pixels_NCP.gather(2, order_NP[:, None].expand_as(pixels_NCP))
    return shuffled_NCP.view_as(chosen_NCHW)


def uniform(images: LabelledImages, n_images: int, stream: torch.Generator) -> Tensor:
    """Draw each value of each pixel independently from 0 to 255."""
    shape = (n_images, *images.images_NCHW.shape[1:])
    return torch.randint(256, shape, generator=stream, dtype=torch.uint8)


def interpolated(images: LabelledImages, n_images: int, stream: torch.Generator) -> Tensor:
    """Average pairs of images of different classes.

    Raises:
        ParameterError: if all images are of one class.
    """
    order_N = torch.randperm(len(images), generator=stream)
    labels = sorted({*images.labels_N.tolist()})
    by_class = [order_N[images.labels_N[order_N] == label] for label in labels]
    if len(by_class) < 2:
        raise ParameterError("partners: interpolated needs images of two classes, there is one")
    pairs = []
    for _ in range(n_images):
        one, other = torch.randperm(len(by_class), generator=stream)[:2].tolist()
        pairs.append([_any_of(by_class[one], stream), _any_of(by_class[other], stream)])
    of_pairs_N2CHW = images.images_NCHW[torch.tensor(pairs)]
    return of_pairs_N2CHW.float().mean(dim=1).round().to(torch.uint8)


def letters(images: LabelledImages, n_images: int, stream: torch.Generator) -> Tensor:
    """Draw Latin letters as tall as what the images show; see `jemtrack.data.outliers`."""
    return draw_letters(images.images_NCHW, n_images, stream)


Maker = Callable[[LabelledImages, int, torch.Generator], Tensor]
MADE: dict[str, Maker] = {
    maker.__name__: maker for maker in (letters, permuted, interpolated, uniform)
}


def make_outliers(
    data: DataSplits, partners: list[str], n_images: int, data_root: Path
) -> dict[str, Tensor]:
    """Return at most `n_images` of each partner, uint8 (N, C, H, W), drawn by the data's seed.

    The images of a partner do not depend on which others there are.

    Raises:
        ParameterError: if a partner is not known, or has images of another shape.
        InputError: if a file of another data set is missing or altered.
    """
    found = {}
    for name in partners:
        stream = generator(data.seed, f"outliers {name}")
        if name in MADE:
            found[name] = MADE[name](data.test, n_images, stream)
        else:
            found[name] = _some(_test_images(name, data, data_root), n_images, stream)
    return found


def check_partners(data: DataSplits, partners: list[str], data_root: Path) -> None:
    """Check what `make_outliers` does, without making any.

    Raises:
        ParameterError: if a partner is not known, or has images of another shape.
        InputError: if a file of another data set is missing or altered.
    """
    for name in partners:
        if name not in MADE:
            _test_images(name, data, data_root)


def _test_images(name: str, data: DataSplits, data_root: Path) -> Tensor:
    if name == data.dataset:
        raise ParameterError(f"partners must not be the data set itself, got {name!r}")
    try:
        source = find_source(name, data_root)
    except ParameterError as error:
        reason = str(error).removeprefix("dataset: ")
        raise ParameterError(
            f"partners must be of {', '.join(MADE)} or data sets: {reason}"
        ) from None
    images = read_source(source, data_root / name)
    of_partner, own = (images.test or images.train).images_NCHW, data.test.images_NCHW
    if of_partner.shape[1:] != own.shape[1:]:
        raise ParameterError(
            f"partners must have images of shape {tuple(own.shape[1:])} as {data.dataset} has, "
            f"got {name!r} of {tuple(of_partner.shape[1:])}"
        )
    return of_partner


def _some(images_NCHW: Tensor, n_images: int, stream: torch.Generator) -> Tensor:
    chosen = torch.randperm(len(images_NCHW), generator=stream)[:n_images]
    return images_NCHW[chosen]


def _any_of(indices_N: Tensor, stream: torch.Generator) -> int:
    return int(indices_N[torch.randint(len(indices_N), (1,), generator=stream)])
