"""`jemtrack.load_model`: what it computes is what the stages store."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from project import ROOT
from stage_runs import N_CLASSES, SMALL, metrics_in, prepared_file, ran

import jemtrack
from jemtrack.data.images import DataSplits, to_unit_range
from jemtrack.errors import InputError
from jemtrack.evaluation.models.model_outputs import load_outputs
from jemtrack.jem.sampling.langevin import LangevinSampler
from jemtrack.shared.pictures import grid
from jemtrack.stages.draw_samples import DrawSamples, SampleArgs
from jemtrack.stages.evaluate_x import EvalArgs, EvaluateX
from jemtrack.stages.max_entropy_l2 import MaxEntropyL2
from jemtrack.stages.train_args import TrainArgs


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with one trained model."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "src").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ran(MaxEntropyL2(data=prepared_file(), params=TrainArgs(**SMALL)))
        yield folder


@pytest.fixture
def data(project) -> DataSplits:
    return DataSplits.load(Path("images.safetensors"))


@pytest.fixture
def model(project) -> jemtrack.TrainedModel:
    return jemtrack.load_model("nodes/MaxEntropyL2/model.safetensors", device="cpu")


@pytest.mark.parametrize("noise", [True, False])
def test_it_computes_what_the_evaluation_stores(model, data, noise):
    params = EvalArgs(n_resamples=100, noise=noise, threads=1)
    path = Path("nodes/MaxEntropyL2/model.safetensors")
    folder = ran(EvaluateX(data=Path("images.safetensors"), models=[path], params=params))
    stored = load_outputs((folder / "outputs.safetensors").read_bytes(), "it")
    expected = stored.outputs["MaxEntropyL2"]
    images, seed = data.test.images_NCHW, data.seed if noise else None

    probabilities = model.predict(images, noise_seed=seed)
    torch.testing.assert_close(probabilities, expected.logits_NC.softmax(1), rtol=0, atol=1e-6)
    density = model.log_density(images, noise_seed=seed)
    torch.testing.assert_close(density, expected.log_density_N)
    for name in ("log_density", "max_probability", "negative_entropy", "approximate_mass"):
        score = model.score(images, name, noise_seed=seed)
        np.testing.assert_allclose(score, expected.scores()[name], rtol=1e-5)
    valid = data.valid
    temperature = model.calibrate(valid.images_NCHW, valid.labels_N, noise_seed=seed)
    assert temperature == pytest.approx(metrics_in(folder)["MaxEntropyL2"]["temperature"])
    scaled = (expected.logits_NC / temperature).softmax(1)
    torch.testing.assert_close(model.predict(images, noise_seed=seed), scaled, rtol=0, atol=1e-6)


def test_it_draws_what_the_stage_draws(model, data):
    path, sampler = Path("nodes/MaxEntropyL2/model.safetensors"), LangevinSampler(n_steps=4)
    files = {"data": Path("images.safetensors"), "models": [path], "features": path}
    folder = ran(DrawSamples(**files, params=SampleArgs(n_per_class=2, threads=1), sampler=sampler))

    labels = torch.arange(N_CLASSES).repeat_interleave(2)
    drawn = model.sample(labels, (8, 8), sampler=sampler, seed=data.seed)
    found = Image.open(folder / "grids" / "MaxEntropyL2.png").reduce(4)
    expected = grid(drawn, 2).expand(3, -1, -1).permute(1, 2, 0)
    np.testing.assert_array_equal(np.asarray(found), expected.numpy())
    in_turn = model.sample(3, (8, 8), sampler=sampler)
    assert in_turn.equal(model.sample(np.arange(3, dtype=np.int32), (8, 8), sampler=sampler))


def test_pixels_are_bytes_or_in_the_range_of_the_network(model, data):
    images = data.test.images_NCHW
    expected = model.predict(images)
    for same in (images.numpy(), to_unit_range(images), to_unit_range(images).double().numpy()):
        torch.testing.assert_close(model.predict(same), expected)
    flipped = images.flip(3)
    torch.testing.assert_close(model.predict(flipped), model.predict(images.numpy()[..., ::-1]))


def test_the_use_that_the_readme_shows_runs(project, data):
    readme = (ROOT / "README.md").read_text()
    code = re.search(r"```python\n(import jemtrack\n.*?)```", readme, re.S)[1]
    assert "images = ..." in code
    names = {"valid_images": data.valid.images_NCHW, "valid_labels": data.valid.labels_N}
    exec(
        code.replace("images = ...", "images = test_images"),
        names | {"test_images": data.test.images_NCHW},
    )


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 8, 8), r"images must be \(N, 1, H, W\), got shape \(2, 3, 8, 8\)"),
        (torch.zeros(8, 8), r"images must be \(N, 1, H, W\), got shape \(8, 8\)"),
        (torch.zeros(0, 1, 8, 8), r"images must have pixels, got shape \(0, 1, 8, 8\)"),
        (np.full((1, 1, 8, 8), 255.0), r"must be in \[-1, 1\]: pass 0 to 255 as uint8"),
        (torch.full((1, 1, 8, 8), torch.nan), r"must be in \[-1, 1\]"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.int64), r"must be uint8 or floats, got torch.int64"),
    ],
)
def test_other_images_are_refused(model, images, message):
    for compute in (model.predict, model.log_density, model.score):
        with pytest.raises(InputError, match=message):
            compute(images)


def test_what_does_not_fit_is_refused_by_its_name(model, data):
    with pytest.raises(InputError, match=r"by must be one of log_density, .*, got 'mahalanobis'"):
        model.score(data.test.images_NCHW, "mahalanobis")
    with pytest.raises(InputError, match="noise_seed is for uint8 images"):
        model.predict(to_unit_range(data.test.images_NCHW), noise_seed=1)
    for labels in (0, -1, [4], [-1], [0.5], [], [[0]]):
        with pytest.raises(InputError, match="labels must be N >= 1 or whole numbers from 0 to 3"):
            model.sample(labels, (8, 8))
    with pytest.raises(InputError, match=r"size must be \(H, W\), each >= 1"):
        model.sample(1, (0, 8))
    with pytest.raises(InputError, match="temperature must be > 0, got 0"):
        jemtrack.load_model("nodes/MaxEntropyL2/model.safetensors", temperature=0)
    with pytest.raises(InputError, match=r"is not a file; expected a model\.safetensors"):
        jemtrack.load_model("nodes/absent.safetensors")
