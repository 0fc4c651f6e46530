"""What the figures say in words: which model for what, and how sure that is."""

from collections.abc import Callable

import pandas as pd

from jemtrack.evaluation.comparison import Comparison, rows_of
from jemtrack.evaluation.statistics.paired_tests import SIGNIFICANT

LOWER_IS_BETTER = ("nll", "brier", "ece")


def best_model(figures: pd.DataFrame, measure: str) -> str:
    """Name the model with the best value of a measure; the first of equals."""
    rows = figures[figures["measure"] == measure].set_index("model")["value"]
    return str(rows.idxmin() if measure in LOWER_IS_BETTER else rows.idxmax())


def verdict(comparison: Comparison, measure: str, use: str, form: Callable[[float], str]) -> str:
    """Say which model is best for a `use`, by a measure, and which of the others it surely beats.

    A difference counts as sure where its p-value, corrected for all tests of the comparison, is
    below .05. What stands between asterisks is to be set in bold.
    """
    best = best_model(comparison.figures, measure)
    figures = comparison.figures
    (row,) = rows_of(figures[(figures["measure"] == measure) & (figures["model"] == best)])
    figure = f"{measure} {form(row['value'])}, {form(row['low'])} to {form(row['high'])}"
    said = f"*{use}: {best}* ({figure})"
    pairs = comparison.pairs[comparison.pairs["measure"] == measure]
    return f"{said}{_beaten(pairs, best)}"


def detection_verdict(figures: pd.DataFrame, pairs: pd.DataFrame) -> str:
    """Say which model notices outliers best by which score, on the mean over the partners."""
    means = figures.groupby(["model", "score"], sort=False, as_index=False)[["auroc"]].mean()
    top = rows_of(means.sort_values("auroc", ascending=False, kind="stable"))[0]
    best, score = top["model"], top["score"]
    of_best = figures[(figures["model"] == best) & (figures["score"] == score)]
    worst = rows_of(of_best.sort_values("auroc", kind="stable"))[0]
    said = (
        f"*Noticing what it has never seen: {best}* by {score} (AUROC {top['auroc']:.3f} on "
        f"average over {len(of_best)} kinds of outliers, and {worst['auroc']:.3f} for the hardest, "
        f"{worst['partner']})"
    )
    lines = []
    for partner in of_best["partner"]:
        some = pairs[(pairs["partner"] == partner) & (pairs["score"] == score)]
        involved = some[(some["first"] == best) | (some["second"] == best)]
        ahead = involved["difference"].where(involved["first"] == best, -involved["difference"])
        if len(involved) and ((involved["p_corrected"] < SIGNIFICANT) & (ahead > 0)).all():
            lines.append(str(partner))
    if not len(pairs):
        return f"{said}."
    if not lines:
        return f"{said}. By this score, on no kind of outliers is it surely better than all others."
    return f"{said}. By this score it is surely better than all others on {_listed(lines)}."


def robustness_verdicts(curves: pd.DataFrame) -> list[str]:
    """Say which model is right most often under corruptions, and which under attacks."""
    lines = []
    uses = {"corruption": "Seeing through corruptions", "attack": "Withstanding attacks"}
    for group, use in uses.items():
        if not len(curves):
            continue
        some = curves[(curves["group"] == group) & (curves["kind"] != "none")]
        if len(some):
            means = some.groupby("model")["accuracy"].mean()
            figures = ", ".join(
                f"{model} {mean:.1%}" for model, mean in means.sort_values(ascending=False).items()
            )
            lines.append(f"*{use}: {means.idxmax()}* (mean accuracy: {figures}).")
    return lines


def _beaten(pairs: pd.DataFrame, best: str) -> str:
    involved = pairs[(pairs["first"] == best) | (pairs["second"] == best)]
    if not len(involved):
        return "."
    others = involved["first"].where(involved["first"] != best, involved["second"])
    sure = involved["p_corrected"] < SIGNIFICANT
    beaten, open_ = [*others[sure]], [*others[~sure]]
    if not beaten:
        return f". These images do not tell it from {_listed(open_)}."
    surely = f". It is surely better than {_listed(beaten)}"
    return f"{surely}, but is not told from {_listed(open_)}." if open_ else f"{surely}."


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
