"""The optimizer Lion, which PyTorch lacks."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer


class Lion(Optimizer):
    """Step by the sign of an interpolation between the gradient and its running mean.

    Chen et al. 2023 (https://arxiv.org/abs/2302.06675), algorithm 2.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change the weights once; return what `closure`, which computes the loss, returns."""
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            beta_1, beta_2 = group["betas"]
            for weight in (each for each in group["params"] if each.grad is not None):
                state = self.state[weight]
                mean = state["exp_avg"] if state else torch.zeros_like(weight)
                direction = mean.lerp(weight.grad, 1 - beta_1).sign_()
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.sub_(direction, alpha=group["lr"])
                state["exp_avg"] = mean.lerp_(weight.grad, 1 - beta_2)
        return loss
