"""The processes of one training: rank, world size, and what they exchange; free with one process.

Each process has the whole model and a shard of every batch. An objective that is not a mean over
the images of a batch, such as one that compares an image with the mean of its batch, takes
`all_gather` of what its network gives: the loss, and the mean of the processes' gradients, are
then those of one process with the whole batch.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from jemtrack.errors import InputError

T = TypeVar("T")


def world_size() -> int:
    """Return the number of processes that train together."""
    return distributed.get_world_size() if _several() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return distributed.get_rank() if _several() else 0


def is_rank_zero() -> bool:
    """Tell whether this is the process that writes files and prints."""
    return rank() == 0


def local_shard(batch: T) -> T:
    """Cut this process's shard from the first dimension of every tensor in `batch`.

    `batch` is a tensor, or a dataclass, mapping or sequence of batches. Numbers and text stay
    as they are.
    """
    return batch if world_size() == 1 else _share(batch)


def all_gather(local: Tensor) -> Tensor:
    """Concatenate the shards (b, ...) of all processes, in the order of the batch, to (B, ...).

    Gradients flow back into each process's own shard. All processes must compute the same loss
    from the result and average their gradients afterwards.
    """
    if world_size() == 1:
        return local
    whole: Tensor = _WholeBatch.apply(local)  # type: ignore[no-untyped-call]
    return whole


def global_batch_size(local: Tensor) -> int:
    """Return the sum of the lengths of all shards of a batch."""
    if world_size() == 1:
        return len(local)
    size = torch.tensor(len(local), device=local.device)
    distributed.all_reduce(size)
    return int(size.item())


def all_reduce_mean(values: Tensor) -> Tensor:
    """Average tensors of one shape over the processes."""
    if world_size() == 1:
        return values
    values = values.clone()
    distributed.all_reduce(values)
    return values / world_size()


@torch.no_grad()
def all_reduce_gradients(weights: Sequence[Tensor]) -> None:
    """Replace the gradient of each weight by its mean over the processes."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    if world_size() == 1 or not gradients:
        return
    # One message for all gradients: the cost of a message hardly depends on its length.
    means = all_reduce_mean(torch.cat([gradient.flatten() for gradient in gradients]))
    sizes = [gradient.numel() for gradient in gradients]
    for gradient, mean in zip(gradients, torch.split(means, sizes), strict=True):
        gradient.copy_(mean.view_as(gradient))


def all_reduce_max(number: int, device: torch.device) -> int:
    """Return the largest number of any process."""
    if world_size() == 1:
        return number
    shared = torch.tensor(number, device=device)
    distributed.all_reduce(shared, distributed.ReduceOp.MAX)
    return int(shared.item())


def broadcast(value: T) -> T:
    """Return the value that rank zero has; the values of the others are ignored."""
    if world_size() == 1:
        return value
    shared: list[Any] = [value]
    distributed.broadcast_object_list(shared)
    return shared[0]  # type: ignore[no-any-return]


def gather_to_rank_zero(value: Any) -> list[Any]:
    """Collect the values of all processes, by rank, on rank zero; the others get an empty list."""
    if world_size() == 1:
        return [value]
    found: list[Any] | None = [None] * world_size() if is_rank_zero() else None
    distributed.gather_object(value, found)
    return found or []


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _share(batch: Any) -> Any:
    if isinstance(batch, Tensor):
        return batch.tensor_split(world_size())[rank()]
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        fields = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
        return dataclasses.replace(batch, **_share(fields))
    if isinstance(batch, Mapping):
        return {name: _share(part) for name, part in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(_share(part) for part in batch)
    return batch


class _WholeBatch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        shared = torch.zeros(world_size(), dtype=torch.int64, device=local.device)
        shared[rank()] = len(local)
        distributed.all_reduce(shared)
        sizes = shared.tolist()
        ctx.first = sum(sizes[: rank()])
        ctx.size = len(local)
        whole = local.new_zeros(sum(sizes), *local.shape[1:])
        whole[ctx.first : ctx.first + ctx.size] = local
        distributed.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].contiguous().clone()
        distributed.all_reduce(gradient)
        return gradient[ctx.first : ctx.first + ctx.size]


def synchronize_batch_norms(models: dict[str, nn.Module], device: torch.device) -> None:
    """Replace batch norms by SyncBatchNorm, which sees the whole batch and not one shard.

    Raises:
        InputError: on CPUs, for which PyTorch has no SyncBatchNorm.
    """
    if world_size() == 1:
        return
    for name, model in models.items():
        if not any(isinstance(part, _BatchNorm) for part in model.modules()):
            continue
        if device.type != "cuda":
            raise InputError(
                f"{name} has batch norm, which several processes can share on GPUs alone: "
                "take another norm, or one process"
            )
        models[name] = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
