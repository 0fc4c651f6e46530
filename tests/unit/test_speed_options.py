"""What makes training fast leaves its numbers as they are, to rounding."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, leaky_relu

from jemtrack.jem.networks.shape import WideResNetShape
from jemtrack.jem.networks.wide_resnet import NEGATIVE_SLOPE, build_model
from jemtrack.train.optimizers import SGD, Adam, AdamW


def network_of(norm="none", channels=3) -> nn.Module:
    torch.manual_seed(0)
    shape = WideResNetShape(depth=10, width=2, channels=channels, n_classes=10, norm=norm)
    return build_model(shape)


def images(n=8, channels=3) -> torch.Tensor:
    return torch.randn(n, channels, 16, 16, generator=torch.Generator().manual_seed(1))


def contiguous_logits(network, images_BCHW):
    """Compute what the network does, rows and columns last all the way."""
    trunk = network.trunk
    hidden_BCHW = trunk.stem(images_BCHW)
    assert hidden_BCHW.is_contiguous()
    features_BCHW = trunk.norm(trunk.blocks(hidden_BCHW))
    return network.class_head(leaky_relu(features_BCHW, NEGATIVE_SLOPE).mean((2, 3)))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("norm", ["none", "batch", "instance", "layer", "act"])
def test_the_memory_format_changes_neither_outputs_nor_gradients(norm, channels):
    found = []
    for forward in (contiguous_logits, lambda network, given: network(given)):
        network, given = network_of(norm, channels), images(channels=channels).requires_grad_()
        loss = cross_entropy(forward(network, given), torch.arange(8))
        weights = [*network.trunk.parameters(), *network.class_head.parameters(), given]
        found.append([loss, *torch.autograd.grad(loss, weights)])
    for plain, fast in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_network_computes_channels_last_and_its_weights_stay_as_they_are(channels):
    network, formats = network_of(channels=channels), []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(
                lambda module, inputs, output: formats.append(
                    output.is_contiguous(memory_format=torch.channels_last)
                )
            )
    network(images(channels=channels)).sum().backward()

    assert len(formats) > 6
    assert all(formats)
    for weight in network.trunk.parameters():
        assert weight.is_contiguous()
        assert weight.grad.is_contiguous()


@pytest.mark.parametrize(
    ("choice", "plain"),
    [
        (Adam(lr=0.01, weight_decay=0.1), torch.optim.Adam),
        (AdamW(lr=0.01), torch.optim.AdamW),
        (SGD(lr=0.01, momentum=0.9, nesterov=True), torch.optim.SGD),
    ],
)
def test_a_fused_optimizer_takes_the_steps_of_the_plain_one(choice, plain):
    # In float32, Adam's first steps carry an activation over leaky ReLU's kink by rounding alone.
    networks = network_of().double(), network_of().double()
    fused = choice.make(networks[0].parameters())
    options = {"momentum": 0.9, "nesterov": True} if plain is torch.optim.SGD else {}
    slow = plain(networks[1].parameters(), lr=0.01, weight_decay=choice.weight_decay, **options)
    assert fused.defaults["fused"]
    for _ in range(5):
        for network, optimizer in zip(networks, (fused, slow), strict=True):
            optimizer.zero_grad()
            cross_entropy(network(images().double()), torch.arange(8)).backward()
            optimizer.step()

    for mine, theirs in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_sums_over_classes_and_images_are_not_in_bfloat16():
    network = network_of()
    with torch.autocast("cpu", torch.bfloat16):
        logits, log_density = network.logits_and_log_density(images())
        hidden = network.trunk.stem(images())

    assert hidden.dtype == torch.bfloat16
    assert logits.dtype == log_density.dtype == torch.float32
    torch.testing.assert_close(log_density, logits.logsumexp(1))
