"""The judge, what it measures, and the graph's recipe."""

import dataclasses
from itertools import chain
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from flux_models import networks, noise, sizes_of
from flux_runs import splits

from jemtrack.data.images import DataSplits, LabelledImages, to_unit_range
from jemtrack.errors import InputError
from jemtrack.flux.captions import HELD_OUT_TEMPLATES, TEMPLATES, unseen_captions, vocabulary_of
from jemtrack.flux.evaluation.judge import trained_judge
from jemtrack.flux.evaluation.measure import FLOOR, REAL, Evaluation, Measures, spread
from jemtrack.flux.evaluation.page import FluxPage, render
from jemtrack.flux.networks.model_file import FluxFile
from jemtrack.flux.sampling.generate import FlowSampler
from jemtrack.flux.training import psnr
from jemtrack.stages.evaluate_flux import EvaluateFlux
from jemtrack.workflows import flux

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]


def bright(n=90, seed=0) -> LabelledImages:
    """Make images of three classes by their brightness."""
    labels = torch.arange(n) % 3
    images = torch.randint(60, (n, 1, 8, 8), generator=torch.Generator().manual_seed(seed))
    return LabelledImages((images + 90 * labels[:, None, None, None]).to(torch.uint8), labels)


@pytest.fixture(scope="module")
def evaluation():
    data = DataSplits("three", 3, False, 1, bright(), bright(9, 1), bright(60, 2))
    judge = trained_judge(data.train, 3, 60, 1, CPU)
    words = vocabulary_of(chain.from_iterable(unseen_captions(data)))
    sizes = dataclasses.replace(sizes_of(), vocabulary=words)
    return Evaluation(FluxFile(networks(sizes), sizes, {}), data, judge, 60, 1)


def test_the_judge_learns_and_moves_no_random_stream():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, other = (trained_judge(bright(), 3, 40, seed, CPU) for seed in (1, 1, 2))

    predicted = first.judged(to_unit_range(bright(30, 3).images_NCHW))[1]
    assert (predicted == bright(30, 3).labels_N).double().mean() > 0.9
    assert torch.equal(first.head.weight, second.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)
    assert torch.equal(torch.get_rng_state(), before)


def test_real_images_are_near_and_noise_is_far(evaluation):
    found = evaluation.of_real_images()

    assert found[REAL].distance is None
    assert found[REAL].judged_right > 0.9
    one_class = evaluation.measures(torch.ones(60, 1, 8, 8))
    assert abs(found[FLOOR].distance) < one_class.distance
    assert one_class.judged_right == pytest.approx(1 / 3, abs=0.05)


def test_reconstructions_have_a_psnr(evaluation):
    real = evaluation.real_images
    assert evaluation.reconstructed().shape == real.shape

    found = evaluation.of_reconstructions(real + 0.2)

    assert found.psnr == pytest.approx(20.0, abs=1e-3)  # of 2 to 0.2
    assert psnr(torch.tensor([0.04])) == pytest.approx(20.0)


def test_samples_are_drawn_by_unseen_captions_and_cost_time(evaluation):
    sampler = FlowSampler(n_steps=2, guidance=2)
    drawn = evaluation.drawn(sampler)

    assert drawn.images_NCHW.shape == evaluation.real_images.shape
    assert drawn.milliseconds > 0
    found = evaluation.of_samples(sampler, drawn)
    assert (found.evaluations, found.milliseconds) == (4, drawn.milliseconds)
    assert unseen_captions(evaluation.data)[2][0] == "this is a small picture of class 2"
    assert not {*HELD_OUT_TEMPLATES} & {*TEMPLATES}


def test_the_curve_counts_the_evaluations_of_each_solver(evaluation):
    rows = [*evaluation.curve((2, 4))]

    assert [(row["solver"], row["evaluations"]) for row in rows] == [
        ("euler", 2), ("euler", 4), ("midpoint", 2), ("midpoint", 4),
    ]  # fmt: skip


def test_copies_of_training_images_are_found(evaluation):
    train = to_unit_range(evaluation.data.train.images_NCHW)
    shifted = train[[7, 3]].clone()
    shifted[0, 0, 0, 0] += 0.16

    nearest = evaluation.nearest(shifted)

    assert nearest.index_N.tolist() == [7, 3]
    assert nearest.apart_N[0] == pytest.approx(0.08 / 8, rel=1e-3)  # of 64 pixels, in [0, 1]
    assert evaluation.memorised(train[:20]) == pytest.approx(0, abs=1e-3)
    assert evaluation.memorised(noise(20, 1, 8, 8).tanh()) > 1


def test_images_are_spread_over_all():
    assert spread(10, 4).tolist() == [0, 3, 6, 9]
    assert spread(3, 10).tolist() == [0, 1, 2]


def test_a_page_shows_what_was_measured():
    curve = [{"solver": "euler", "evaluations": n, "judged_right": 0.5, "distance": 1.0,
              "milliseconds": 2.0} for n in (4, 8)]  # fmt: skip
    page = FluxPage(
        title="A <model>",
        n_images=3,
        sampler="euler",
        measures={REAL: Measures(0.9), "samples": Measures(0.8, 0.123, None, 8, 2.0)},
        memorised=1.25,
        curve=pd.DataFrame(curve),
        samples={"samples": b"png"},
        rows=["a bag"],
        pairs={"beside": b"png"},
        parameters={"n_images": "3"},
    )

    html = render(page)

    assert "A &lt;model&gt;" in html
    for text in ("0.123", "1.25 times", "a bag", "judged right", "data:image/png;base64,cG5n"):
        assert text in html
    assert html.count("<svg") == 3
    assert "<script" not in html


def test_data_with_captions_alone_have_no_classes_to_judge(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = dataclasses.replace(splits(), captions=tuple(f"picture {n}" for n in range(10)))
    data.save(Path("images.safetensors"))
    stage = EvaluateFlux(data=Path("images.safetensors"), model=Path("model.safetensors"))

    with pytest.raises(InputError, match="the judge finds classes, and digits has captions alone"):
        stage.compute()


def test_the_graph_s_recipe_is_that_of_the_example():
    example = yaml.safe_load((ROOT / "recipes" / "flux_fashion.yaml").read_text())
    _, trained, *_ = flux.nodes()

    assert example["training"]["pipeline"] == flux.RECIPE
    for section in ("model", "training"):
        given = {n: v for n, v in example[section].items() if n not in {"family", "pipeline"}}
        assert given.items() <= vars(trained.params).items()
