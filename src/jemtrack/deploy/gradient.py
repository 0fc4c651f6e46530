"""Export the approximate mass -||d log p~(x) / dx||, which no exporter can by itself.

The backward pass is traced into a graph of its own, and what ONNX lacks in it is decomposed.
Letters: B batch, C channels, H height, W width, N images.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from jemtrack.data.images import to_unit_range
from jemtrack.deploy.onnx_file import export_module
from jemtrack.deploy.predict import INPUT, MASS
from jemtrack.errors import InputError
from jemtrack.jem.networks.energy_model import JointEnergyModel
from jemtrack.jem.networks.inference import noisy_batches
from jemtrack.jem.scores import model_outputs

BOUND = 1e-3  # of the difference to PyTorch, as a share of the mass
# Of the images. A leaky ReLU's slope jumps at 0, and with it the gradient of the few images that
# have an activation within rounding of it: PyTorch differs as much from itself in another batch.
_SHARE = 0.99
aten = torch.ops.aten


def export_mass(network: JointEnergyModel, image_shape: tuple[int, int, int]) -> onnx.ModelProto:
    """Export the graph from uint8 images (B, C, H, W) to the approximate mass (B,)."""
    network = _exportable(network)

    def mass(images_BCHW: Tensor) -> Tensor:
        pulled: Any = torch.func.vjp(network.log_density, to_unit_range(images_BCHW))
        log_density_B, pull_back = pulled
        gradient_BCHW: Tensor = pull_back(torch.ones_like(log_density_B))[0]
        return -gradient_BCHW.square().sum((1, 2, 3)).sqrt()

    example = torch.zeros((2, *image_shape), dtype=torch.uint8)
    with torch.inference_mode(False):
        traced = make_fx(
            mass,
            decomposition_table=_DECOMPOSITIONS,
            tracing_mode="symbolic",
            _allow_non_fake_inputs=True,  # the weights
        )(example)
    return export_module(traced, (example,), [INPUT], [MASS])


def mass_differences(
    network: JointEnergyModel, images_NCHW: Tensor, found_N: np.ndarray
) -> dict[str, float]:
    """Compute how far it is from what the evaluation's own code computes, as a share of the mass.

    Returns:
        `difference`, which 99% of the images do not exceed, and the `largest`.

    Raises:
        InputError: if the former is above `BOUND`.
    """
    batches = noisy_batches(images_NCHW, 0.0, 0)
    outputs = model_outputs(network, batches, lambda features_NF: features_NF[:, 0])
    expected_N = outputs.approximate_mass_N.numpy()
    smallest = np.finfo(np.float32).tiny  # where the density is flat, both are 0
    apart_N = np.abs(found_N - expected_N) / np.maximum(np.abs(expected_N), smallest)
    apart = float(np.quantile(apart_N, _SHARE, method="higher"))
    if not apart <= BOUND:
        raise InputError(f"{MASS} is refused: it must differ by at most {BOUND:g}, got {apart:.2g}")
    return {"difference": apart, "largest": float(apart_N.max())}


def _exportable(network: JointEnergyModel) -> JointEnergyModel:
    """Copy the network, with instance norms in a form whose backward pass can be exported."""
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for module in [*network.modules()]:
        for name, child in module.named_children():
            if isinstance(child, nn.InstanceNorm2d):
                channels = child.num_features
                same = nn.GroupNorm(channels, channels, child.eps)
                same.load_state_dict(child.state_dict())
                setattr(module, name, same.requires_grad_(False))
    return network


def _convolution_backward(
    gradient_BCHW: Tensor, input_BCHW: Tensor, weight: Tensor, _bias: Any, *options: Any
) -> tuple[Tensor, None, None]:
    """Compute the gradient of a convolution's input: the transposed convolution."""
    stride, padding, dilation, _transposed, _output_padding, groups, _wanted = options
    # A stride leaves rows and columns that no output depends on.
    missing = [
        input_BCHW.shape[2 + n]
        - (gradient_BCHW.shape[2 + n] - 1) * stride[n]
        + 2 * padding[n]
        - dilation[n] * (weight.shape[2 + n] - 1)
        - 1
        for n in range(2)
    ]
    arguments = (weight, None, stride, padding, dilation, True, missing, groups)
    return aten.convolution(gradient_BCHW, *arguments), None, None


def _leaky_relu_backward(
    gradient: Tensor, values: Tensor, slope: float, _of_output: bool
) -> Tensor:
    return torch.where(values > 0, gradient, gradient * slope)


_DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.convolution_backward.default: _convolution_backward,
    aten.leaky_relu_backward.default: _leaky_relu_backward,
}
