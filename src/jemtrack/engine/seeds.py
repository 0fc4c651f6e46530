"""Independent random streams, each found again from the seed and its name."""

import hashlib

import torch


def stream_seed(seed: int, *names: str | int) -> int:
    """Give the 63-bit seed of the stream that `names` name under `seed`."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Give a generator at the start of the stream that `names` name under `seed`."""
    return torch.Generator(device).manual_seed(stream_seed(seed, *names))
