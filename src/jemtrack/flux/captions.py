"""Captions of images that have classes, and the words and tokens of captions.

Letters: L classes, N captions, P captions of a class, T tokens.
"""

import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from jemtrack.data.class_names import class_names
from jemtrack.data.images import DataSplits
from jemtrack.flux.networks.shape import MAX_TOKENS, PAD, UNKNOWN

# `{}` is the name of the class. Of six templates that all ended with it, a text encoder learned
# little about other captions: samples by those held out were of other classes for some seeds.
TEMPLATES = (
    "{}",
    "an image of {}",
    "a picture of {}",
    "a small image of {}",
    "this is {}",
    "this picture is {}",
    "image: {}",
    "a picture: {}",
    "small, {}",
    "{}, small",
    "{} in a small image",
    "{} is in this picture",
    "this image is of {}",
    "in this picture is {}",
    "a small picture, this is {}",
    "this small image is a picture of {}",
)
# For tests of what was learned: words that a training has seen, in an order that it has not.
HELD_OUT_TEMPLATES = ("this is a small picture of {}", "an image, small: {}")

_WORD = re.compile(r"\w+")
_FIRST_WORD = UNKNOWN + 1


def captions_of(data: DataSplits, templates: Sequence[str] = TEMPLATES) -> list[list[str]]:
    """Return the captions of each label: the data's own, or by templates of its class's name."""
    if data.captions:
        return [[caption] for caption in data.captions]
    names = class_names(data.dataset, data.n_classes)
    return [[template.format(name) for template in templates] for name in names]


def unseen_captions(data: DataSplits) -> list[list[str]]:
    """Return captions of each label by templates that no training has seen, or the data's own."""
    return captions_of(data, HELD_OUT_TEMPLATES)


def words(caption: str) -> list[str]:
    """Split a caption into words, in lower case."""
    return _WORD.findall(caption.lower())


def vocabulary_of(captions: Iterable[str]) -> tuple[str, ...]:
    """List the words of captions, sorted."""
    return tuple(sorted({word for caption in captions for word in words(caption)}))


def unknown_words(captions: Iterable[str], vocabulary: Sequence[str]) -> list[str]:
    """List the words of captions that the vocabulary lacks."""
    return sorted({*vocabulary_of(captions)} - {*vocabulary})


def tokenise(captions: Sequence[str], vocabulary: Sequence[str]) -> Tensor:
    """Turn captions into tokens (N, T), int64; what is longer than T words is cut."""
    number = {word: index for index, word in enumerate(vocabulary, _FIRST_WORD)}
    tokens_NT = torch.full((len(captions), MAX_TOKENS), PAD)
    for row_T, caption in zip(tokens_NT, captions, strict=True):
        found = [number.get(word, UNKNOWN) for word in words(caption)[:MAX_TOKENS]]
        row_T[: len(found)] = torch.tensor(found, dtype=torch.int64)
    return tokens_NT


def tokenise_classes(captions: Sequence[Sequence[str]], vocabulary: Sequence[str]) -> Tensor:
    """Turn the captions of each class into tokens (L, P, T), T the words of the longest."""
    tokens_LPT = torch.stack([tokenise(of_class, vocabulary) for of_class in captions])
    return tokens_LPT[..., : int((tokens_LPT != PAD).sum(dim=2).max())]
