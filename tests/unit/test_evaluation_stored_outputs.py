"""What models said, in a file and back."""

import pytest
import torch

from jemtrack.errors import InputError
from jemtrack.evaluation.model_outputs import SCORES, ModelOutputs, load_outputs, save_outputs


def said(seed):
    stream = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 3, generator=stream)
    mass, distance = -torch.rand(2, 6, generator=stream)
    return ModelOutputs(logits, logits.logsumexp(1), mass, distance)


def test_a_file_gives_back_what_it_was_given(tmp_path):
    outputs, labels = {"two": said(2), "one": said(1)}, torch.arange(6) % 3
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


def test_what_is_broken_is_named(tmp_path):
    path = tmp_path / "outputs.safetensors"
    save_outputs({"one": said(1)}, torch.arange(6), path)

    with pytest.raises(InputError, match="HEAD: is no whole file of models' outputs"):
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
