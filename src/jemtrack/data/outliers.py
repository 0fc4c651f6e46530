"""Images of the same shape that a model was not trained on, and the file that carries them.

Some are made of the data set's own test images or of nothing (`MADE`), others are the test images
of another data set. Letters: `N` images, `C` channels, `H` rows, `W` columns, `P` pixels.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from jemtrack.data.images import DataSplits, LabelledImages
from jemtrack.data.letters import draw_letters
from jemtrack.data.own import find_source
from jemtrack.data.sources import read_source
from jemtrack.engine.seeds import generator
from jemtrack.errors import InputError, ParameterError


def permuted(images: LabelledImages, n_images: int, stream: torch.Generator) -> Tensor:
    """Shuffle each image's pixels, all channels alike: the same brightness, no shape."""
    chosen_NCHW = _some(images.images_NCHW, n_images, stream)
    order_NP = torch.rand(len(chosen_NCHW), chosen_NCHW[0, 0].numel(), generator=stream).argsort(1)
    pixels_NCP = chosen_NCHW.flatten(2)
    shuffled_NCP = pixels_NCP.gather(2, order_NP[:, None].expand_as(pixels_NCP))
    return shuffled_NCP.view_as(chosen_NCHW)


def uniform(images: LabelledImages, n_images: int, stream: torch.Generator) -> Tensor:
    """Draw each value of each pixel by itself, from 0 to 255."""
    shape = (n_images, *images.images_NCHW.shape[1:])
    return torch.randint(256, shape, generator=stream, dtype=torch.uint8)


def interpolated(images: LabelledImages, n_images: int, stream: torch.Generator) -> Tensor:
    """Lay two images of different classes over each other, half and half.

    Raises:
        ParameterError: when all images are of one class.
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
    """Draw Latin letters as tall as what the images show; see `jemtrack.data.letters`."""
    return draw_letters(images.images_NCHW, n_images, stream)


Maker = Callable[[LabelledImages, int, torch.Generator], Tensor]
MADE: dict[str, Maker] = {
    maker.__name__: maker for maker in (letters, permuted, interpolated, uniform)
}


def make_outliers(
    data: DataSplits, partners: list[str], n_images: int, data_root: Path
) -> dict[str, Tensor]:
    """Give at most `n_images` of each partner, uint8 (N, C, H, W); the data's seed draws them.

    A partner's images do not depend on which others there are.

    Raises:
        ParameterError: when a partner is not known, or has images of another shape.
        InputError: when a file of another data set is missing or altered.
    """
    found = {}
    for name in partners:
        stream = generator(data.seed, f"outliers {name}")
        if name in MADE:
            found[name] = MADE[name](data.test, n_images, stream)
        else:
            found[name] = _some(_test_images(name, data, data_root), n_images, stream)
    return found


def save_outliers(outliers: Mapping[str, Tensor], path: Path) -> None:
    """Write one safetensors file; equal images make equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(save({name: each.contiguous() for name, each in outliers.items()}))


def load_outliers(path: Path) -> dict[str, Tensor]:
    """Read what `save_outliers` wrote.

    Raises:
        InputError: when the file is missing or broken.
    """
    try:
        found: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: is no whole file of outliers ({error}); make it again with "
            f"`dvc repro {path.parent.name}`"
        ) from error
    return found


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
