"""Solvers of the flow's differential equation dz/dt = v(z, t), from 0 (noise) to 1 (data)."""

from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]
Solver = Literal["euler", "midpoint", "heun"]
SOLVERS: tuple[str, ...] = get_args(Solver)


def integrate(velocity: Velocity, start: Tensor, solver: Solver, n_steps: int) -> Tensor:
    """Follow the velocity in `n_steps` equal steps.

    Euler's method is of first order and evaluates the velocity once a step; the midpoint method and
    Heun's are of second order and evaluate it twice.
    """
    z, width = start, 1 / n_steps
    for number in range(n_steps):
        time = number * width
        slope = velocity(z, time)
        if solver == "midpoint":
            slope = velocity(z + width / 2 * slope, time + width / 2)
        elif solver == "heun":
            slope = (slope + velocity(z + width * slope, time + width)) / 2
        z = z + width * slope
    return z


def evaluations(solver: Solver, n_steps: int) -> int:
    """Return how often the velocity is evaluated."""
    return n_steps * (1 if solver == "euler" else 2)
