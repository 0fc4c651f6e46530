"""Measure a model of the family flux: reconstructions, and samples by captions.

    python benchmarks/flux_quality.py runs/flux_fashion/model.safetensors
    python benchmarks/flux_quality.py runs/letters/model.safetensors --dataset letters

What is measured is in `jemtrack.flux.evaluation.measure`. Letters are drawn by captions of a letter
and a font that are never together in training: one judge looks for the letter, another for the
font. The judges train on half of the images of these pairs, too: they are to know a letter in its
font, where the model has to find it. Their accuracy on the other half stands beside it; it has the
same glyphs, moved by two pixels at most, and many at the same place.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from jemtrack.data.images import PARTS, DataSplits, LabelledImages
from jemtrack.data.splits import prepare
from jemtrack.flux.evaluation.judge import trained_judge
from jemtrack.flux.evaluation.measure import (
    GUIDED,
    PLAIN,
    Evaluation,
    Measures,
    drawn,
    guided_and_plain,
    measured,
    spread,
)
from jemtrack.flux.networks.model_file import FluxFile
from jemtrack.flux.sampling.generate import FlowSampler
from jemtrack.flux.sampling.grid import load_flow
from jemtrack.shared.hardware import chosen_device


def by_word(data: DataSplits, first: int, last: int | None) -> DataSplits:
    """Take words of the captions, from `first` to `last`, as the classes of the images."""
    classes = [" ".join(caption.split()[first:last]) for caption in data.captions]
    names = [*dict.fromkeys(classes)]
    class_L = torch.tensor([names.index(each) for each in classes])
    parts = {
        name: LabelledImages(part.images_NCHW, class_L[part.labels_N])
        for name in PARTS
        if (part := getattr(data, name))
    }
    return replace(data, n_classes=len(names), captions=(), **parts)


def letters(
    file: FluxFile, data: DataSplits, n: int, judge_steps: int, sampler: FlowSampler
) -> Iterator[str]:
    """Yield the rows of the table of letters and fonts."""
    device = next(file.models["expander"].parameters()).device
    number_N = torch.arange(len(data.test))
    known, others = data.test[number_N[::2]], data.test[number_N[1::2]]
    data = replace(data, train=LabelledImages.joined([data.train, known]), test=others)
    test = data.test[spread(len(data.test), n)]
    captions = [data.captions[label] for label in test.labels_N.tolist()]
    samples = {
        name: drawn(file, captions, each, seed=1).images_NCHW
        for name, each in guided_and_plain(sampler).items()
    }
    yield "| judged by | held-out images | samples with guidance | without |\n|---|---|---|---|"
    # Captions are `a bold serif capital letter g`.
    for what, words in {"letter": (3, None), "font": (1, 3)}.items():
        classes = by_word(data, *words)
        judge = trained_judge(classes.train, classes.n_classes, judge_steps, 1, device)
        evaluation = Evaluation(file, classes, judge, n, 1)
        images = (evaluation.real_images, samples[GUIDED], samples[PLAIN])
        found = (f"{evaluation.measures(each).judged_right:.3f}" for each in images)
        yield f"| {what} | {' | '.join(found)} |"


def table(evaluation: Evaluation, sampler: FlowSampler, evaluations: list[int]) -> Iterator[str]:
    """Yield the rows of the table of real images, reconstructions and samples."""
    yield (
        "| images | judged right | distance | PSNR | evaluations | ms an image |\n"
        + "|---" * 6
        + "|"
    )
    findings = measured(evaluation, sampler, evaluations)
    found = dict(findings.measures)
    for row in findings.curve:
        name = f"{row.pop('solver')}, {row['evaluations']} evaluations"
        found[name] = Measures(**row)
    for name, each in found.items():
        cells = ["" if value is None else f"{value:.4g}" for value in each]
        yield f"| {name} | {' | '.join(cells)} |"
    apart = f"{findings.memorised:.2f}"
    yield f"\nsamples beside test images, distance from the nearest training image: {apart}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--dataset", default="fashion-mnist")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--n", type=int, default=2000, help="test images, and samples")
    parser.add_argument("--judge-steps", type=int, default=2000)
    parser.add_argument("--evaluations", type=int, nargs="*", default=[4, 8, 16, 32])
    parser.add_argument("--solver", default="euler")
    parser.add_argument("--n-steps", type=int, default=8)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = prepare(options.dataset, options.data_root, 10, 1000, 1)
    device = chosen_device(options.device)
    file = load_flow(options.model, device)
    sampler = FlowSampler(solver=options.solver, n_steps=options.n_steps, guidance=options.guidance)
    if data.captions:
        rows = letters(file, data, options.n, options.judge_steps, sampler)
    else:
        judge = trained_judge(data.train, data.n_classes, options.judge_steps, 1, device)
        evaluation = Evaluation(file, data, judge, options.n, 1)
        rows = table(evaluation, sampler, options.evaluations)
    for row in rows:
        print(row, flush=True)


if __name__ == "__main__":
    main()
