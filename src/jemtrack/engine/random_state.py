"""The global random streams, taken and given back."""

import random
from typing import Any

import numpy as np
import torch

from jemtrack.engine.seeds import stream_seed


def random_state() -> dict[str, Any]:
    """Give the state of PyTorch's, NumPy's and Python's global generators."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": (name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
        "python": random.getstate(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Put the global generators where `random_state` found them."""
    torch.set_rng_state(state["torch"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    random.setstate(state["python"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def turn_random_state(turn: int) -> None:
    """Put the global generators where they have not been, as their state and `turn` decide."""
    seed = stream_seed(int(torch.randint(2**31, ()).item()), "turn", turn)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)
