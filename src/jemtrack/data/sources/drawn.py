"""Data sets with captions that are drawn from fonts: letters by name and font, and emoji.

Some captions are of test images alone, though each of their words is in others: what a model makes
of them shows whether words compose.
"""

import re
import string
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from jemtrack.data.images import LabelledImages, SourceImages
from jemtrack.documents import read_text
from jemtrack.errors import InputError
from jemtrack.shared.random_streams import generator

# Each pair of words is a font of matplotlib's.
LETTER_FONTS: Mapping[str, str] = {
    "plain sans": "DejaVuSans",
    "bold sans": "DejaVuSans-Bold",
    "slanted sans": "DejaVuSans-Oblique",
    "plain typewriter": "DejaVuSansMono",
    "bold typewriter": "DejaVuSansMono-Bold",
    "slanted typewriter": "DejaVuSansMono-Oblique",
    "plain serif": "DejaVuSerif",
    "bold serif": "DejaVuSerif-Bold",
    "slanted serif": "DejaVuSerif-Italic",
}
_LETTER_SIDE, _LETTER_COPIES = 28, 40
EMOJI_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
EMOJI_NAMES = Path("/usr/share/unicode/emoji/emoji-test.txt")
_EMOJI_SIZE = 109  # pixels, the only size that the font has
_EMOJI_SIDE, _EMOJI_COPIES = 32, 4
_MOVED = 2  # pixels by which a copy is moved at most
_TONES = ("light", "medium-light", "medium", "medium-dark", "dark")


class _Glyph(NamedTuple):
    """A caption, its image (C, H, W) in the middle of a frame, and whether it is held out."""

    caption: str
    image_CHW: Tensor
    is_held_out: bool


def draw_letters() -> SourceImages:
    """Draw the letters of the Latin alphabet in nine fonts, bright on dark, moved a little.

    The caption is `a bold serif capital letter g`. Of each letter one font is held out.
    """
    return _data_set(_letters(), _LETTER_COPIES, "letters")


def letter_caption(letter: str, font: str) -> str:
    """Write the caption of a letter in a font."""
    size = "capital" if letter.isupper() else "small"
    return f"a {font} {size} letter {letter.lower()}"


def _letters() -> Iterator[_Glyph]:
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    large = 4 * _LETTER_SIDE  # scaled down, for smooth edges
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    for at, (words, file) in enumerate(LETTER_FONTS.items()):
        # The basic layout is built into Pillow; the other exists on some machines only.
        layout = ImageFont.Layout.BASIC
        font = ImageFont.truetype(str(folder / f"{file}.ttf"), large * 4 // 5, layout_engine=layout)
        for number, letter in enumerate(string.ascii_letters):
            canvas = Image.new("L", (large, large))
            middle = large // 2
            ImageDraw.Draw(canvas).text((middle, middle), letter, 255, font, anchor="mm")
            small = canvas.resize((_LETTER_SIDE, _LETTER_SIDE), Image.Resampling.BOX)
            image_CHW = torch.from_numpy(np.array(small))[None]
            yield _Glyph(letter_caption(letter, words), image_CHW, number % len(LETTER_FONTS) == at)


def draw_emoji() -> SourceImages:
    """Draw the emoji of Unicode's list that Noto's font has, on white, moved a little.

    The caption is the English name. Of each second emoji that has them one skin tone is held out.

    Raises:
        InputError: if Debian's packages of the font and of the names are missing.
    """
    for path, package in (
        (EMOJI_FONT, "fonts-noto-color-emoji"),
        (EMOJI_NAMES, "unicode-data"),
    ):
        if not path.is_file():
            raise InputError(f"{path} is missing: apt install {package}")
    return _data_set(_emoji(), _EMOJI_COPIES, "emoji")


def emoji_names(text: str) -> dict[str, str]:
    """Read the fully qualified emoji of Unicode's emoji-test.txt, with their names."""
    line = re.compile(r"^([0-9A-F ]+); fully-qualified\s+# \S+ E[\d.]+ (.+)$", re.MULTILINE)
    return {
        "".join(chr(int(code, 16)) for code in codes.split()): name
        for codes, name in line.findall(text)
    }


def _emoji() -> Iterator[_Glyph]:
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    font = ImageFont.truetype(str(EMOJI_FONT), _EMOJI_SIZE)
    people: dict[str, int] = {}
    for emoji, name in emoji_names(read_text(EMOJI_NAMES)).items():
        left, top, right, bottom = (round(each) for each in font.getbbox(emoji))
        # A sequence that the font lacks is drawn as several emoji side by side.
        if not 0 < right - left < 1.5 * _EMOJI_SIZE:
            continue
        canvas = Image.new("RGB", (right - left, bottom - top), "white")
        ImageDraw.Draw(canvas).text((-left, -top), emoji, font=font, embedded_color=True)
        inner = _EMOJI_SIDE - 2 * _MOVED
        square = ImageOps.pad(canvas, (inner, inner), color="white")
        framed = ImageOps.expand(square, border=_MOVED, fill="white")
        image_CHW = torch.from_numpy(np.array(framed)).permute(2, 0, 1)
        yield _Glyph(name, image_CHW, _is_held_out(name, people))


def _is_held_out(name: str, people: dict[str, int]) -> bool:
    """Hold out one tone, each in turn, of every second emoji that has tones alone of five."""
    person, _, tone = name.partition(": ")
    if tone.removesuffix(" skin tone") not in _TONES:
        return False
    number = people.setdefault(person, len(people))
    held_out = _TONES[number // 2 % len(_TONES)] if number % 2 else None
    return tone.removesuffix(" skin tone") == held_out


def _data_set(glyphs: Iterator[_Glyph], copies: int, name: str) -> SourceImages:
    """Copy each glyph, moved a little; what is held out is for testing."""
    stream = generator(0, name)
    parts: dict[bool, tuple[list[Tensor], list[int]]] = {True: ([], []), False: ([], [])}
    captions: dict[str, int] = {}
    for glyph in glyphs:
        label = captions.setdefault(glyph.caption, len(captions))
        images, labels = parts[glyph.is_held_out]
        for _ in range(copies):
            right, down = torch.randint(-_MOVED, _MOVED + 1, (2,), generator=stream).tolist()
            images.append(glyph.image_CHW.roll((down, right), (1, 2)))
            labels.append(label)
    train, test = (
        LabelledImages(torch.stack(parts[held][0]), torch.tensor(parts[held][1]))
        for held in (False, True)
    )
    return SourceImages(train, test, captions=tuple(captions))


DRAWN: Mapping[str, Callable[[], SourceImages]] = {"letters": draw_letters, "emoji": draw_emoji}
