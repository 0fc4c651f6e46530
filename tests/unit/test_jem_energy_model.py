import pytest
import torch

from jemtrack.jem.networks.shape import WideResNetShape
from jemtrack.jem.networks.wide_resnet import build_model


def model_of(width=1, **changes):
    torch.manual_seed(0)
    return build_model(WideResNetShape(depth=10, width=width, channels=1, n_classes=4, **changes))


def images_of():
    return torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_log_density_is_logsumexp_of_the_logits():
    model, images_BCHW = model_of().eval(), images_of()
    logits_BC = model.logits(images_BCHW)

    torch.testing.assert_close(model.log_density(images_BCHW), logits_BC.exp().sum(1).log())
    torch.testing.assert_close(model(images_BCHW), logits_BC, rtol=0, atol=0)


def test_uncond_takes_the_log_density_from_the_energy_head():
    model, images_BCHW = model_of(uncond=True).eval(), images_of()
    before_B = model.log_density(images_BCHW)
    with torch.no_grad():
        model.energy_head.bias += 2

    torch.testing.assert_close(model.log_density(images_BCHW), before_B + 2)
    assert not torch.allclose(before_B, model.logits(images_BCHW).logsumexp(1))


@pytest.mark.parametrize("uncond", [False, True])
def test_one_pass_gives_both(uncond):
    model, images_BCHW = model_of(uncond=uncond).eval(), images_of()
    passes = []
    model.trunk.register_forward_hook(lambda *_: passes.append(1))
    logits_BC, log_density_B = model.logits_and_log_density(images_BCHW)

    assert len(passes) == 1
    torch.testing.assert_close(logits_BC, model.logits(images_BCHW))
    torch.testing.assert_close(log_density_B, model.log_density(images_BCHW))


@pytest.mark.parametrize("norm", ["none", "batch", "instance", "layer", "act"])
@pytest.mark.parametrize("uncond", [False, True])
def test_gradients_reach_every_parameter_in_use(norm, uncond):
    model = model_of(norm=norm, uncond=uncond, width=2)
    logits_BC, log_density_B = model.logits_and_log_density(images_of())
    (logits_BC.square().sum() + log_density_B.square().sum()).backward()
    without = {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    }
    if norm in {"batch", "instance"}:
        # What a norm takes away again: the bias of the convolution just before it.
        without -= {name for name in without if name.endswith("conv1.bias")}

    assert without == (set() if uncond else {"energy_head.weight", "energy_head.bias"})
