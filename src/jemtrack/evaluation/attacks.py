"""Accuracy under attack: projected gradient descent by the Adversarial Robustness Toolbox.

Radii are in units of pixels from 0 to 1, whatever the range that a model takes: 8/255 is what the
field calls 8.

Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (2018), for the
attack; Nicolae et al., "Adversarial Robustness Toolbox v1.0.0" (2018). Letters: N images, C
channels, H rows, W columns, B batch.
"""

import importlib.util
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from jemtrack.data.images import LARGEST_PIXEL
from jemtrack.errors import InputError
from jemtrack.evaluation.measures.inputs import LabelledLogits

if TYPE_CHECKING:
    from art.attacks import EvasionAttack
    from art.estimators.classification import PyTorchClassifier

Norm = Literal["linf", "l2"]
_ORDERS = {"linf": np.inf, "l2": 2}


def check_toolbox() -> None:
    """Check that the toolbox, an extra of this project, is installed.

    Raises:
        InputError: with the command that installs it, if it is not.
    """
    if importlib.util.find_spec("art") is None:
        raise InputError(
            "attacks need the Adversarial Robustness Toolbox: type `pip install "
            "'jemtrack[attacks]'`, or let linf_radii and l2_radii be []"
        )


class UnitRangeClassifier(nn.Module):
    """The logits of images in [0, 1] by a model that takes them in [-1, 1]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Compute the logits, (B, classes)."""
        logits: Tensor = self.model(2 * images_BCHW - 1)
        return logits


def correct_under_attack(
    model: nn.Module,
    images_NCHW: Tensor,
    labels_N: Tensor,
    right_N: np.ndarray,
    *,
    n_classes: int,
    norm: Norm,
    radius: float,
    n_steps: int,
    seed: int,
    batch_size: int = 500,
) -> np.ndarray:
    """Attack images, and return which of all the model still classifies right, bool (N,).

    `images_NCHW` are uint8; the model maps images in [-1, 1] to logits, and is in evaluation
    mode. The attack knows the labels, starts at a random point within the radius and takes
    `n_steps` steps of 2.5 radii altogether. It adds no noise to the images. Those of `right_N` are
    attacked, bool (N,): what an attack within a smaller radius has found is within this one, too.
    """
    still_right_N = right_N.copy()
    if not right_N.any():
        return still_right_N
    attacked_N = torch.from_numpy(right_N)
    images_NCHW, labels_N = images_NCHW[attacked_N], labels_N[attacked_N]
    classify, device = UnitRangeClassifier(model), next(model.parameters()).device
    attack = _projected_gradient_descent(
        _for_toolbox(classify, tuple(images_NCHW.shape[1:]), n_classes, device),
        *(norm, radius, n_steps, batch_size),
    )
    pixels_NCHW = images_NCHW.cpu().numpy().astype(np.float32) / LARGEST_PIXEL
    # The toolbox draws its starts from NumPy's and PyTorch's own generators.
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)
    attacked_NCHW = torch.from_numpy(attack.generate(pixels_NCHW, y=labels_N.cpu().numpy()))
    with torch.inference_mode():
        logits = [
            classify(part.to(device)).cpu() for part in torch.split(attacked_NCHW, batch_size)
        ]
    still_right_N[right_N] = LabelledLogits(torch.cat(logits), labels_N).correct_N
    return still_right_N


def _for_toolbox(
    classify: nn.Module, image_shape: tuple[int, ...], n_classes: int, device: torch.device
) -> "PyTorchClassifier":
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        model=classify,
        loss=nn.CrossEntropyLoss(),
        input_shape=image_shape,
        nb_classes=n_classes,
        clip_values=(0.0, 1.0),
        device_type="gpu" if device.type == "cuda" else "cpu",
    )


def _projected_gradient_descent(
    classifier: "PyTorchClassifier", norm: Norm, radius: float, n_steps: int, batch_size: int
) -> "EvasionAttack":
    from art.attacks.evasion import ProjectedGradientDescentPyTorch

    return ProjectedGradientDescentPyTorch(
        classifier,
        norm=_ORDERS[norm],
        eps=radius,
        eps_step=2.5 * radius / n_steps,
        max_iter=n_steps,
        num_random_init=1,
        batch_size=batch_size,
        verbose=False,
    )
