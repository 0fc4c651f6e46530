"""The objective of inVAE: the evidence lower bound, whose divergence warms up.

Letters: B cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from jemtrack.data.cells.cells import UNKNOWN
from jemtrack.invae.batches import CellBatch
from jemtrack.invae.network import Condition, InVAE
from jemtrack.invae.options import NETWORK, KLOptions
from jemtrack.shared.metrics import declare_metric
from jemtrack.shared.random_streams import generator

RECONSTRUCTION = declare_metric("reconstruction")
KL_I = declare_metric("kl_i")
KL_S = declare_metric("kl_s")
KL_WEIGHT = declare_metric("kl_weight")


@dataclass(frozen=True)
class NegativeElbo:
    """The mean over cells of -log p(x given z) + w max(KL, free bits), for one draw of z.

    The weight w rises from `kl_start` to `kl_weight` over `warmup_steps`. With a probability of
    `label_dropout`, an encoder that sees labels is given none for a cell.
    """

    options: KLOptions
    warmup_steps: int = 0
    label_dropout: float = 0.0

    def __call__(self, models: Mapping[str, nn.Module], batch: CellBatch) -> dict[str, Tensor]:
        """Compute `loss`, and its parts, detached, for the record."""
        network = cast(InVAE, models[NETWORK])
        stream = generator(batch.seed, device=batch.condition.labels_B.device)
        seen = self._seen(batch.condition, stream)
        terms = network.terms(batch.counts, seen, batch.condition, stream)
        kl_B = (terms.kl_i_B + terms.kl_s_B).clamp_min(self.options.free_bits)
        weight = self.weight(batch.step)
        return {
            "loss": (weight * kl_B - terms.reconstruction_B).mean(),
            RECONSTRUCTION: terms.reconstruction_B.detach().mean(),
            KL_I: terms.kl_i_B.detach().mean(),
            KL_S: terms.kl_s_B.detach().mean(),
            KL_WEIGHT: torch.tensor(weight),
        }

    def weight(self, step: int) -> float:
        """Return the weight of the divergence after so many steps of the phase."""
        start, end = self.options.kl_start, self.options.kl_weight
        share = min(1.0, step / self.warmup_steps) if self.warmup_steps else 1.0
        return start + share * (end - start)

    def _seen(self, condition: Condition, stream: torch.Generator) -> Condition:
        if not self.label_dropout:
            return condition
        draws_B = torch.rand(
            condition.labels_B.shape, generator=stream, device=condition.labels_B.device
        )
        labels_B = condition.labels_B.masked_fill(draws_B < self.label_dropout, UNKNOWN)
        return condition.with_labels(labels_B)
