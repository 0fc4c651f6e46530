"""Evaluations of several revisions side by side: what changed, and by more than chance.

from jemtrack.commands.compare import changes

changes("HEAD~1")  # a DataFrame of the workspace beside it
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd
import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor

from jemtrack.commands.show import MEASURE_LABELS
from jemtrack.commands.tables import table_console
from jemtrack.errors import InputError
from jemtrack.evaluation.models.comparison import MEASURES, compare_classifiers
from jemtrack.evaluation.models.model_outputs import StoredOutputs
from jemtrack.evaluation.models.results import SIGNIFICANT
from jemtrack.evaluation.statistics.paired_tests import with_correction
from jemtrack.evaluation.statistics.resampling import N_RESAMPLES, enough_resamples
from jemtrack.project.revisions import Revision

SEED = 1
UNCHANGED = "unchanged"


def compare(names: Sequence[str], console: Console | None = None) -> None:
    """Print a table for each trainer that changed since the first revision; name the others.

    A single revision is compared with the workspace.

    Raises:
        InputError: if a revision has no evaluation, or was evaluated on other images.
    """
    console = console or table_console()
    rows = changes(*names)
    unchanged = rows["test"] == UNCHANGED
    for (trainer, revision), some in rows[~unchanged].groupby(["trainer", "revision"], sort=False):
        console.print(_table(f"{trainer}: {names[0]} → {revision}", some))
    for revision in rows.loc[unchanged, "revision"].unique():
        same = rows.loc[unchanged & (rows["revision"] == revision), "trainer"]
        console.print(f"{', '.join(same.unique())}: unchanged between {names[0]} and {revision}")
    if not unchanged.all():
        console.print(
            f"Paired by image. p: corrected for {(~unchanged).sum()} tests (Holm); "
            f"*: below {SIGNIFICANT}"
        )


def changes(*names: str) -> pd.DataFrame:
    """Compare revisions with the first one, or a single one with the workspace.

    Raises:
        InputError: as `changes_since`.
    """
    baseline, *others = [Revision(name) for name in names]
    return changes_since(baseline, others or [Revision()])


def changes_since(baseline: Revision, others: Sequence[Revision]) -> pd.DataFrame:
    """Compute a row for each trainer, measure and revision of `others`.

    Columns: `trainer`, `revision`, `measure`, `baseline` and `value` (of both), `difference`
    (value less baseline) with `low`, `high`, `p_value`, `p_corrected` and `test`, as in
    `jemtrack.evaluation.models.comparison`. A model whose logits are the same to the last bit has
    the test `unchanged`, no interval and no p-value, and does not count as tests that p-values are
    corrected for.

    Raises:
        InputError: if a revision has no evaluation, was evaluated on other images, or has no
            trainer of the baseline's.
    """
    before = baseline.outputs()
    pairs = [pair for other in others for pair in _pairs(baseline, before, other)]
    n_tests = len(MEASURES) * sum(pair.changed for pair in pairs)
    rows = [row for pair in pairs for row in pair.rows(before.labels_N, enough_resamples(n_tests))]
    return with_correction(rows)[_COLUMNS]


class _Pair(NamedTuple):
    """A trainer's logits before and after, (N, C) each."""

    trainer: str
    revision: str
    before_NC: Tensor
    after_NC: Tensor

    @property
    def changed(self) -> bool:
        """Whether they differ, so that there is something to test."""
        return not torch.equal(self.before_NC, self.after_NC)

    def rows(self, labels_N: Tensor, n_resamples: int) -> Iterator[dict[str, Any]]:
        """Compare both, a row for each measure."""
        logits = {"after": self.after_NC, "before": self.before_NC}
        n_resamples = max(n_resamples, N_RESAMPLES)
        compared = compare_classifiers(logits, labels_N, seed=SEED, n_resamples=n_resamples)
        values = compared.figures.set_index(["model", "measure"])["value"]
        for pair in compared.pairs.to_dict("records"):
            yield {
                **{"trainer": self.trainer, "measure": pair["measure"], "revision": self.revision},
                "baseline": float(values["before", pair["measure"]]),
                "value": float(values["after", pair["measure"]]),
                **({name: pair[name] for name in _TESTED} if self.changed else _UNCHANGED),
            }


_TESTED = ("difference", "low", "high", "p_value", "test")
_COLUMNS = ["trainer", "revision", "measure", "baseline", "value"]
_COLUMNS += ["difference", "low", "high", "p_value", "p_corrected", "test"]
_UNCHANGED = {
    **{"difference": 0.0, "test": UNCHANGED},
    **dict.fromkeys(("low", "high", "p_value"), math.nan),
}


def _pairs(baseline: Revision, before: StoredOutputs, revision: Revision) -> list[_Pair]:
    """Pair the models of a revision with those of the same trainers in the baseline."""
    after = revision.outputs()
    if not torch.equal(before.labels_N, after.labels_N):
        raise InputError(
            f"{revision} was evaluated on other images than {baseline}: only figures on the "
            "same images can be compared; `dvc metrics diff` shows both as they are"
        )
    shared = [trainer for trainer in before.outputs if trainer in after.outputs]
    if not shared:
        raise InputError(f"{revision} has no trainer that {baseline} has")
    return [
        _Pair(name, str(revision), before.outputs[name].logits_NC, after.outputs[name].logits_NC)
        for name in shared
    ]


def _table(title: str, rows: pd.DataFrame) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for name in ("", "before", "after", "difference", "95% interval", "p"):
        table.add_column(name, justify="right" if name else "left")
    for row in rows.to_dict("records"):
        significant = row["p_corrected"] < SIGNIFICANT
        table.add_row(
            MEASURE_LABELS[row["measure"]],
            f"{row['baseline']:.4f}",
            f"{row['value']:.4f}",
            f"{row['difference']:+.4f}",
            f"{row['low']:+.4f} to {row['high']:+.4f}",
            f"{row['p_corrected']:.3f} {'*' if significant else ' '}",
            style="bold" if significant else None,
        )
    return table
