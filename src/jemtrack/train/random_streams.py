"""Random numbers: streams found again from the seed and their names, and the global generators."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


def stream_seed(seed: int, *names: str | int) -> int:
    """Give the 63-bit seed of the stream that `names` name under `seed`."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Give a generator at the start of the stream that `names` name under `seed`."""
    return torch.Generator(device).manual_seed(stream_seed(seed, *names))


@dataclass(frozen=True)
class EpochSampler:
    """Visits each of `n_items` once an epoch, in an order that (seed, epoch) alone decides.

    Any batch can therefore be found again without drawing the ones before it.
    """

    n_items: int
    batch_size: int
    seed: int

    def __len__(self) -> int:
        """Count the batches of an epoch; the last may be smaller than `batch_size`."""
        return -(-self.n_items // self.batch_size)

    def batch(self, epoch: int, index: int) -> Tensor:
        """Give the item numbers (int64, at most `batch_size`) of one batch."""
        first = index * self.batch_size
        return self._order(epoch)[first : first + self.batch_size]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
        """Give the batches of an epoch from the one numbered `start` on."""
        yield from torch.split(self._order(epoch), self.batch_size)[start:]

    def _order(self, epoch: int) -> Tensor:
        return torch.randperm(self.n_items, generator=generator(self.seed, "order", epoch))


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
