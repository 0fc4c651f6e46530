"""Where a stage that trains nothing computes."""

import torch

from jemtrack.engine.hardware import DeviceName
from jemtrack.errors import InputError
from jemtrack.stages.parameter_file import PARAMS


def chosen_device(name: DeviceName, stage: str) -> torch.device:
    """Give the device that the parameters of `stage` name; auto is a GPU where there is one.

    Raises:
        InputError: when it is a GPU and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"{PARAMS}: {stage}.params.device must be cpu or auto, got 'cuda': PyTorch finds no "
            "GPU here"
        )
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
