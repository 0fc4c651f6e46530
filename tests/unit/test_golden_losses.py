"""Five steps of each trainer: a change of the code that is meant to change nothing does not."""

import json
from pathlib import Path

import pytest
import torch
from fitting import fitted

from jemtrack.data.images import DataSplits, LabelledImages
from jemtrack.events.events import BatchEnd, Status
from jemtrack.shared.hardware import chosen_device
from jemtrack.stages.max_entropy_l1 import MaxEntropyL1
from jemtrack.stages.max_entropy_l2 import MaxEntropyL2
from jemtrack.stages.sampled_jem import SampledJEM
from jemtrack.stages.train_args import TrainArgs
from jemtrack.stages.x_entropy_augmented import XEntropyAugmented
from jemtrack.train.launch import Runtime

GOLDEN = Path(__file__).parents[1] / "golden" / "loss_traces.json"


def made_up_images(n: int, seed: int) -> LabelledImages:
    stream = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (n, 1, 8, 8), dtype=torch.uint8, generator=stream)
    return LabelledImages(images, torch.arange(n) % 10)


def loss_trace(trainer: type) -> list[dict[str, float]]:
    data = DataSplits("made-up", 10, False, 1, *(made_up_images(n, n) for n in (160, 20, 20)))
    params = TrainArgs(width=1, batch_size=32, lr=0.01, dropout_rate=0.1)
    training = trainer(data="unused", params=params).training(data, Runtime(chosen_device("auto")))
    (phase,) = training.phases
    training.state.enter(phase)
    fifth = lambda event, state: isinstance(event, BatchEnd) and state.step == 5  # noqa: E731
    events = fitted(training.state, phase, cut=fifth)
    return [
        {name: value for name, value in event.metrics.items() if "gradient_norm" not in name}
        for event in events
        if isinstance(event, BatchEnd) and event.status == Status.SUCCESS
    ]


@pytest.mark.parametrize("trainer", [XEntropyAugmented, MaxEntropyL1, MaxEntropyL2, SampledJEM])
def test_the_first_five_losses_are_those_on_record(trainer, update_golden):
    trace = loss_trace(trainer)

    if update_golden:
        record = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
        GOLDEN.write_text(json.dumps({**record, trainer.__name__: trace}, indent=2) + "\n")
    expected = json.loads(GOLDEN.read_text())[trainer.__name__]
    # Processors sum in different orders: 5 steps at this rate move that to the sixth digit.
    assert trace == [pytest.approx(step, rel=1e-4) for step in expected]
