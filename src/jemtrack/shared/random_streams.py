"""Random numbers: named streams, derived from the seed, and the state of the global generators.

A stream's numbers depend on the seed and the names alone, so any batch or noise can be drawn again
without drawing what came before it.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


def stream_seed(seed: int, *names: str | int) -> int:
    """Derive the 63-bit seed of the stream with these `names` from `seed`."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator at the start of the stream with these `names`."""
    return torch.Generator(device).manual_seed(stream_seed(seed, *names))


@dataclass(frozen=True)
class EpochSampler:
    """Split `n_items` into the batches of an epoch, in a random order.

    The order is a pure function of seed and epoch.
    """

    n_items: int
    batch_size: int
    seed: int

    def __len__(self) -> int:
        """Return the number of batches in an epoch; the last may be smaller than `batch_size`."""
        return -(-self.n_items // self.batch_size)

    def batch(self, epoch: int, index: int) -> Tensor:
        """Return the indices (int64, at most `batch_size`) of one batch."""
        first = index * self.batch_size
        return self._order(epoch)[first : first + self.batch_size]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
        """Yield the batches of an epoch from number `start` on, as indices (int64)."""
        yield from torch.split(self._order(epoch), self.batch_size)[start:]

    def _order(self, epoch: int) -> Tensor:
        return torch.randperm(self.n_items, generator=generator(self.seed, "order", epoch))


def random_state() -> dict[str, Any]:
    """Return the state of the global generators of PyTorch, NumPy and Python."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": (name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
        "python": random.getstate(),
    }
    # Only a GPU that is in use: to ask another for its state would take memory of it.
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Restore the state of the global generators from `random_state`."""
    torch.set_rng_state(state["torch"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    random.setstate(state["python"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])


def turn_random_state(turn: int) -> None:
    """Seed the global generators anew, as a function of their state and `turn`.

    After a divergence, repeating the same random numbers would repeat the divergence.
    """
    seed = stream_seed(int(torch.randint(2**31, ()).item()), "turn", turn)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)
