"""The engine's optimizers are torch's own, without the import of torch's compiler."""

import copy
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import StepLR

from jemtrack.train.optimizers import eager_optimizer

CHOSEN = {
    "Adam": {"lr": 0.01, "weight_decay": 0.1},
    "AdamW": {"lr": 0.01, "betas": (0.8, 0.9)},
    "SGD": {"lr": 0.01, "momentum": 0.9, "nesterov": True},
    "RMSprop": {"lr": 0.01, "momentum": 0.5, "centered": True},
}
STEPS = """
import sys
import torch
from torch.optim.lr_scheduler import StepLR
from jemtrack.train.optimizers import eager_optimizer
for name in sys.argv[1:]:
    weight = torch.ones(3, requires_grad=True)
    optimizer = eager_optimizer(name, [weight], lr=0.1)
    scheduler = StepLR(optimizer, 1)
    for _ in range(2):
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
        scheduler.step()
    optimizer.load_state_dict(optimizer.state_dict())
    assert (weight < 1).all()
sys.exit(" ".join(name for name in ("torch._dynamo", "sympy") if name in sys.modules) or 0)
"""


def trained(make: partial[Optimizer]) -> tuple[list[Tensor], dict]:
    """Take five steps, with a schedule, another group of weights and a return to an old state."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    images = torch.randn(7, 5)
    optimizer = make(network[0].parameters())
    optimizer.add_param_group({"params": network[2].parameters(), "lr": 0.02})
    scheduler = StepLR(optimizer, 2, gamma=0.5)
    for number in range(5):
        optimizer.zero_grad()
        network(images).square().mean().backward()
        optimizer.step()
        scheduler.step()
        if number == 1:
            kept = copy.deepcopy(optimizer.state_dict())
    optimizer.load_state_dict(kept)
    optimizer.step()
    return [*network.parameters()], optimizer.state_dict()


@pytest.mark.parametrize("name", CHOSEN)
def test_the_steps_are_torch_s_own_bit_for_bit(name):
    weights, state = trained(partial(eager_optimizer, name, **CHOSEN[name]))
    expected, expected_state = trained(partial(getattr(torch.optim, name), **CHOSEN[name]))

    torch.testing.assert_close(weights, expected, rtol=0, atol=0)
    torch.testing.assert_close(state, expected_state, rtol=0, atol=0)
    assert all(weight.grad_fn is None for weight in weights)


@pytest.mark.parametrize("name", CHOSEN)
def test_it_is_shown_profiled_and_hooked_as_torch_s_own(name):
    weight = torch.ones(3, requires_grad=True)
    optimizer = eager_optimizer(name, [weight], lr=0.1)
    calls = []
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))

    loss = optimizer.step(lambda: weight.square().sum())
    optimizer.step()

    assert isinstance(optimizer, getattr(torch.optim, name))
    assert repr(optimizer) == repr(getattr(torch.optim, name)([weight], lr=0.1))
    assert loss.item() == 3
    assert calls == ["before", "after"] * 2


def test_torch_s_compiler_is_not_imported():
    """Its import takes as long as that of torch itself."""
    done = subprocess.run(
        [sys.executable, "-c", STEPS, *CHOSEN], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
