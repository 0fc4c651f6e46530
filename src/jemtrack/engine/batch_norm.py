"""Batch norm where several processes share a batch."""

from torch import device, nn
from torch.nn.modules.batchnorm import _BatchNorm

from jemtrack.engine.processes import n_processes
from jemtrack.errors import InputError


def join_batch_norms(models: dict[str, nn.Module], place: device) -> None:
    """Have batch norm see the whole batch, not a process's share of it.

    Raises:
        InputError: on a CPU, for which PyTorch has no such batch norm.
    """
    if n_processes() == 1:
        return
    for name, model in models.items():
        if not any(isinstance(part, _BatchNorm) for part in model.modules()):
            continue
        if place.type != "cuda":
            raise InputError(
                f"{name} has batch norm, which several processes can share on GPUs alone: "
                "take another norm, or one process"
            )
        models[name] = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
