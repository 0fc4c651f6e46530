"""Evaluations of several revisions side by side: what changed, and by more than chance."""

from collections.abc import Sequence

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

from jemtrack.commands.show import table_console
from jemtrack.errors import InputError
from jemtrack.evaluation.models.comparison import compare_classifiers
from jemtrack.evaluation.models.model_outputs import StoredOutputs
from jemtrack.evaluation.models.results import SIGNIFICANT
from jemtrack.evaluation.statistics.paired_tests import with_correction
from jemtrack.project.revisions import Revision

SEED = 1


def compare(names: Sequence[str], console: Console | None = None) -> None:
    """Print what each revision's models are worth beside the first one's, the baseline.

    Of one name, the workspace is set beside it. Trainers are compared with those of their name.

    Raises:
        InputError: when a revision has no evaluation, or was evaluated on other images.
    """
    console = console or table_console()
    baseline, *others = [Revision(name) for name in names]
    changes = changes_since(baseline, others or [Revision()])
    for trainer, rows in changes.groupby("trainer", sort=False):
        console.print(_table(str(trainer), rows, str(baseline)))
    console.print(
        f"Intervals at 95%, paired by image; p-values corrected for {len(changes)} tests (Holm)."
    )


def changes_since(baseline: Revision, others: Sequence[Revision]) -> pd.DataFrame:
    """Give a row a trainer, measure and revision of `others`.

    Columns: `trainer`, `measure`, `revision`, `baseline` and `value` (of both), `difference`
    (value less baseline) with `low`, `high`, `p_value`, `p_corrected` and `test`, as in
    `jemtrack.evaluation.models.comparison`.

    Raises:
        InputError: when a revision has no evaluation, was evaluated on other images, or has no
            trainer of the baseline's.
    """
    before = baseline.outputs()
    rows = []
    for revision in others:
        after = revision.outputs()
        if not torch.equal(before.labels_N, after.labels_N):
            raise InputError(
                f"{revision} was evaluated on other images than {baseline}: only figures on the "
                "same images can be compared; `dvc metrics diff` shows both as they are"
            )
        shared = [trainer for trainer in before.outputs if trainer in after.outputs]
        if not shared:
            raise InputError(f"{revision} has no trainer that {baseline} has")
        for trainer in shared:
            rows += _changes(trainer, before, after, str(revision))
    return with_correction(rows)


def _changes(
    trainer: str, before: StoredOutputs, after: StoredOutputs, revision: str
) -> list[dict[str, float | str]]:
    logits = {
        "after": after.outputs[trainer].logits_NC,
        "before": before.outputs[trainer].logits_NC,
    }
    compared = compare_classifiers(logits, before.labels_N, seed=SEED)
    values = compared.figures.set_index(["model", "measure"])["value"]
    return [
        {
            **{"trainer": trainer, "measure": pair["measure"], "revision": revision},
            "baseline": float(values["before", pair["measure"]]),
            "value": float(values["after", pair["measure"]]),
            **{name: pair[name] for name in ("difference", "low", "high", "p_value", "test")},
        }
        for pair in compared.pairs.to_dict("records")
    ]


def _table(trainer: str, rows: pd.DataFrame, baseline: str) -> Table:
    table = Table(trainer, baseline, "revision", "value", "difference", "interval", "p, corrected")
    for row in rows.to_dict("records"):
        sure = row["p_corrected"] < SIGNIFICANT
        table.add_row(
            row["measure"],
            f"{row['baseline']:.4f}",
            row["revision"],
            f"{row['value']:.4f}",
            f"{row['difference']:+.4f}",
            f"{row['low']:+.4f} to {row['high']:+.4f}",
            f"{row['p_corrected']:.3f}{' *' if sure else ''}",
            style="bold" if sure else None,
        )
    return table
