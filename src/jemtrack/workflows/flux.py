"""The graph of images from words: PrepareData -> TrainFlux -> SampleFlux and EvaluateFlux."""

from collections.abc import Collection
from typing import Any

from jemtrack.data.class_names import class_names
from jemtrack.project import graph as files
from jemtrack.project.graph import ROOT, workflow_folder
from jemtrack.stages.evaluate_flux import EvaluateFlux
from jemtrack.stages.prepare_data import DataArgs, PrepareData
from jemtrack.stages.sample_flux import CaptionArgs, SampleFlux
from jemtrack.stages.stage import Stage
from jemtrack.stages.train_flux import FluxArgs, TrainFlux

FOLDER = "flux"
DATASET = "fashion-mnist"


def _chosen(**rates: float) -> dict[str, Any]:
    """Choose AdamW for each, at a rate that falls along half a cosine, batch by batch."""
    scheduler = {"type": "CosineAnnealingLR", "eta_min_factor": 0.02, "interval": "batch"}
    return {
        "optimizers": {
            name: {"type": "AdamW", "lr": lr, "clip_norm": 1.0} for name, lr in rates.items()
        },
        "schedulers": dict.fromkeys(rates, scheduler),
    }


# An autoencoder, the same against a discriminator, a flow: for images of 28x28 pixels. The recipe
# file recipes/flux_fashion.yaml has the same steps.
RECIPE: dict[str, Any] = {
    "defaults": {"kl_beta": 0.0005, "kl_warmup_steps": 500, "mse_weight": 2.0},
    "steps": [
        {
            "name": "vae_warmup",
            "n_epochs": 2,
            "train_vae": True,
            "optimization": _chosen(vae=0.003),
        },
        {
            "name": "vae_gan",
            "n_epochs": 1,
            "max_steps": 250,
            "train_vae": True,
            "gan_training": True,
            "lambda_adv": 0.1,
            "adv_warmup_steps": 50,
            "optimization": _chosen(vae=0.0003, discriminator=0.0005),
        },
        {
            "name": "flow_training",
            "n_epochs": 6,
            "max_steps": 760,
            "train_diff_full": True,
            "flow_time": "uniform",
            "cfg_dropout_prob": 0.05,
            "freeze": ["compressor", "expander"],
            "optimization": _chosen(flow=0.002, text_encoder=0.002),
        },
    ],
}


def nodes() -> list[Stage]:
    """Declare the stages with the parameters that they ship with."""
    data = DataArgs(dataset=DATASET, data_root=str(ROOT / "data"), n_valid=1000)
    prepared = PrepareData(params=data)
    trained = TrainFlux(
        data=prepared.images,
        params=FluxArgs(vae_dim=8, feature_maps_dim=64, n_samples=4),
        recipe=RECIPE,
    )
    captions = CaptionArgs(captions=class_names(DATASET, 10))
    return [
        prepared,
        trained,
        SampleFlux(model=trained.model, params=captions),
        EvaluateFlux(data=prepared.images, model=trained.model),
    ]


def write_graph(*, run: bool = False, skip: Collection[str] = ()) -> None:
    """Write the graph into `workflows/flux/`, from the project's root; `run` it if asked.

    What was changed in its files by hand stays. Stages named in `skip` do not run.
    """
    with workflow_folder(FOLDER):
        files.write_graph(nodes(), run=run, skip=skip)
