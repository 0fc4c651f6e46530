"""Train a small classifier of scikit-learn's digits with the engine.

    python examples/simple_classifier.py runs/classifier

Training ends when the validation loss has not improved for three epochs; then the weights of the
best epoch are restored. If the program is killed, it resumes when it is started again.

Letters: B batch, C classes, F features, N images.
"""

import logging
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from jemtrack.callbacks.best_weights import BestWeights
from jemtrack.callbacks.early_stopping import EarlyStopping
from jemtrack.record.jsonl import JsonLines
from jemtrack.shared.random_streams import EpochSampler
from jemtrack.trackers.console import Lines
from jemtrack.train.checkpoint import Checkpoints
from jemtrack.train.optimizers import AdamW
from jemtrack.train.phase import Phase, Validation
from jemtrack.train.recipe import Step
from jemtrack.train.run import Run
from jemtrack.train.state import TrainState

IMAGES_NF, LABELS_N = (torch.from_numpy(each) for each in load_digits(return_X_y=True))
IMAGES_NF = IMAGES_NF.float() / 8 - 1
N_TRAIN, BATCH_SIZE, LR = 1400, 64, 0.003


class DigitBatches:
    """Batches of digits; the images of a batch are a function of its epoch and number."""

    sampler = EpochSampler(N_TRAIN, BATCH_SIZE, seed=1)

    def __len__(self):
        """Return the number of batches in an epoch."""
        return len(self.sampler)

    def epoch(self, epoch, start=0, retry=0):
        """Yield the batches of an epoch from number `start` on."""
        for rows_B in self.sampler.epoch(epoch, start):
            yield IMAGES_NF[rows_B], LABELS_N[rows_B]


def losses(models, batch):
    """Compute the loss, and the accuracy for the record."""
    logits_BC, labels_B = models["classifier"](batch[0]), batch[1]
    accuracy = (logits_BC.argmax(1) == labels_B).float().mean()
    return {"loss": cross_entropy(logits_BC, labels_B), "accuracy": accuracy}


@torch.no_grad()
def validate(models):
    """Compute loss and accuracy on images that are not used for training."""
    found = losses(models, (IMAGES_NF[N_TRAIN:], LABELS_N[N_TRAIN:]))
    return {f"valid_{name}": value.item() for name, value in found.items()}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(0)
    folder = Path(sys.argv[1] if sys.argv[1:] else "runs/classifier")
    classifier = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    step = Step(name="train", n_epochs=60, optimizers={"classifier": AdamW(lr=LR)})
    phase = Phase(step, losses, DigitBatches(), Validation(validate))
    metrics = Run(
        "simple classifier", {"lr": LR}, TrainState({"classifier": classifier}), [phase],
        trackers=[Lines(), JsonLines(folder=str(folder / "record"))],
        callbacks=[EarlyStopping(metric="valid_loss", patience=3),
                   BestWeights(metric="valid_loss", restore=True)],
        checkpoints=Checkpoints(folder / "checkpoints"), folder=folder,
        save_weights=lambda path, models: save_file(models["classifier"].state_dict(), path),
    ).train()  # fmt: skip
    print(f"accuracy {metrics['valid_accuracy']:.3f}; weights in {folder}/best.safetensors")
