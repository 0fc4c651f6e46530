"""From a trainer's parameters to the network and the phase that the engine trains."""

from functools import partial
from pathlib import Path

import torch

from jemtrack.data.augment import Augmentation, crop_padding
from jemtrack.data.images import DataSplits, LabelledImages
from jemtrack.engine.phase import Models, Objective, Phase, Validation
from jemtrack.jem.batches import TrainingBatches, pick_labelled
from jemtrack.jem.energy_model import JointEnergyModel
from jemtrack.jem.inference import predict, validation_metrics
from jemtrack.jem.model_file import load_weights_into
from jemtrack.jem.wide_resnet import WideResNetShape
from jemtrack.stages.train_args import TrainArgs


def network_shape(params: TrainArgs, data: DataSplits) -> WideResNetShape:
    """Describe the network that fits the parameters and the images."""
    return WideResNetShape(
        depth=params.depth,
        width=params.width,
        norm=params.norm,
        dropout_rate=params.dropout_rate,
        channels=data.train.images_NCHW.shape[1],  # type: ignore[arg-type]
        n_classes=data.n_classes,
    )


def initial_network(params: TrainArgs, shape: WideResNetShape) -> JointEnergyModel:
    """Make the network on the device to train on, from the file `load_path` or afresh."""
    network = shape.build_model()
    if params.load_path:
        load_weights_into(network, shape, Path(params.load_path))
    return network.to(best_device())


def ordinary_phase(params: TrainArgs, objective: Objective, data: DataSplits) -> Phase:
    """Describe an ordinary training: a single phase."""
    return Phase(
        name="train",
        objective=objective,
        batches=_batches(params, data),
        n_epochs=params.n_epochs,
        optimizers={
            "network": partial(torch.optim.Adam, lr=params.lr, weight_decay=params.weight_decay)
        },
        frozen=("network.trunk", "network.energy_head") if params.clf_only else (),
        validation=_validation(params, data),
    )


def best_device() -> torch.device:
    """Give the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _batches(params: TrainArgs, data: DataSplits) -> TrainingBatches:
    few, device = params.labels_per_class, best_device()
    side = data.train.images_NCHW.shape[-1]
    return TrainingBatches(
        images=LabelledImages(data.train.images_NCHW.to(device), data.train.labels_N.to(device)),
        augmentation=Augmentation(sigma=params.sigma, flip=data.flip, pad=crop_padding(side)),
        batch_size=params.batch_size,
        seed=data.seed,
        labelled_M=pick_labelled(data.train.labels_N, few, data.seed) if few > 0 else None,
    )


def _validation(params: TrainArgs, data: DataSplits) -> Validation | None:
    if len(data.valid) == 0:
        return None

    def measure(models: Models) -> dict[str, float]:
        network = models["network"]
        assert isinstance(network, JointEnergyModel)
        predictions = predict(network, data.valid, sigma=params.sigma, seed=data.seed)
        return validation_metrics(predictions, data.valid.labels_N)

    return Validation(measure, params.eval_every)
