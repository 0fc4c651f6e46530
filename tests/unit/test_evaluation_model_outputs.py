"""The outputs of models: checked, scored against SciPy, in a file and back."""

import pytest
import torch
from hypothesis import given, settings
from scipy.stats import entropy
from stated import classified

from jemtrack.errors import InputError
from jemtrack.evaluation.models.model_outputs import (
    SCORES,
    ModelOutputs,
    load_outputs,
    save_outputs,
)


def outputs_of(seed):
    stream = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 3, generator=stream)
    mass, distance = -torch.rand(2, 6, generator=stream)
    return ModelOutputs(logits, logits.logsumexp(1), mass, distance)


def test_a_file_gives_back_what_it_was_given(tmp_path):
    outputs, labels = {"two": outputs_of(2), "one": outputs_of(1)}, torch.arange(6) % 3
    path = tmp_path / "outputs.safetensors"

    save_outputs(outputs, labels, path)

    found = load_outputs(path.read_bytes(), "x")
    assert [*found.outputs] == ["one", "two"]
    assert torch.equal(found.labels_N, labels)
    for name, expected in outputs.items():
        for one, other in zip(
            vars(found.outputs[name]).values(), vars(expected).values(), strict=True
        ):
            assert torch.equal(one, other)
            assert one.dtype == other.dtype


def test_what_is_broken_is_named(tmp_path):
    path = tmp_path / "outputs.safetensors"
    save_outputs({"one": outputs_of(1)}, torch.arange(6), path)

    with pytest.raises(InputError, match="HEAD: is not a whole file of models' outputs"):
        load_outputs(path.read_bytes()[:-8], "HEAD")


def test_scores_are_higher_for_what_is_more_alike():
    sure = ModelOutputs(
        torch.tensor([[9.0, 0.0], [0.1, 0.0]]),
        torch.tensor([9.0, 0.7]),
        torch.tensor([-0.1, -2.0]),
        torch.tensor([-8.0, -9.0]),
    )

    scores = sure.scores()

    assert tuple(scores) == SCORES
    assert all(each[0] > each[1] for each in scores.values())


@settings(max_examples=20)
@given(classified(limit=1000.0))
def test_scores_agree_with_scipy_and_lie_within_their_bounds(data):
    logits_NC, _ = data
    probabilities_NC, density_N = logits_NC.softmax(dim=1), logits_NC.logsumexp(1)
    n_classes = logits_NC.shape[1]

    found = ModelOutputs(logits_NC, density_N, -density_N, 2 * density_N).scores()

    assert (found["log_density"] == density_N.numpy()).all()
    assert (found["approximate_mass"] == -density_N.numpy()).all()
    assert (found["mahalanobis"] == 2 * density_N.numpy()).all()
    assert found["max_probability"] == pytest.approx(probabilities_NC.amax(1).numpy())
    expected = -entropy(probabilities_NC.numpy(), axis=1)
    assert found["negative_entropy"] == pytest.approx(expected, abs=1e-7)
    assert (found["max_probability"] >= 1 / n_classes - 1e-12).all()
    assert (found["negative_entropy"] <= 0).all()


def test_another_log_density_is_taken_as_it_is():
    """A model with an energy head has a density that is not the logits' own."""
    log_density_N = torch.tensor([3.0, -1.0])

    found = ModelOutputs(torch.zeros(2, 4), log_density_N, log_density_N, log_density_N).scores()

    assert found["log_density"].tolist() == [3.0, -1.0]
    assert found["max_probability"].tolist() == [0.25, 0.25]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"logits_NC": torch.zeros(2)}, "one row of scores an image"),
        ({"logits_NC": torch.zeros(0, 3)}, "no images"),
        ({"logits_NC": torch.full((2, 3), torch.nan)}, "2 of 2 images .* infinite or NaN"),
        ({"logits_NC": torch.full((2, 3), torch.inf)}, "the model has diverged"),
        ({"log_density_N": torch.zeros(3)}, r"log_density_N must be one number an image.* \(3,\)"),
        ({"log_density_N": torch.zeros(2, 1)}, "log_density_N must be one number an image"),
        ({"log_density_N": torch.tensor([0, torch.nan])}, "log_density_N must be numbers, got NaN"),
        ({"mahalanobis_N": torch.tensor([0, torch.nan])}, "mahalanobis_N must be numbers, got NaN"),
    ],
)
def test_what_does_not_fit_or_is_no_number_is_refused(changed, message):
    names = ("log_density_N", "approximate_mass_N", "mahalanobis_N")
    fields = {"logits_NC": torch.zeros(2, 3), **{name: torch.zeros(2) for name in names}}

    with pytest.raises(InputError, match=message):
        ModelOutputs(**{**fields, **changed})


def test_a_log_density_may_be_infinite():
    infinite_N = torch.tensor([torch.inf, -torch.inf])

    found = ModelOutputs(torch.zeros(2, 3), infinite_N, infinite_N, infinite_N)

    assert found.scores()["log_density"].tolist() == [torch.inf, -torch.inf]
