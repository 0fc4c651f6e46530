"""The summary of an evaluation in words: which model is best at what, and how sure that is."""

from collections.abc import Callable, Sequence

import pandas as pd

from jemtrack.evaluation.models.results import SIGNIFICANT, EvaluationResults
from jemtrack.evaluation.report.content import Robustness
from jemtrack.evaluation.report.labels import score_label

LOWER_IS_BETTER = ("nll", "brier", "ece")
_IN_WORDS = {"accuracy": "Accuracy", "corruption": "Mean accuracy", "attack": "Mean accuracy"}
Verdict = tuple[str, str]  # a title, such as the best model, and the figures behind it


def verdicts(results: EvaluationResults, robustness: Robustness) -> list[Verdict]:
    """Name the best model by accuracy, likelihood, calibration, detection and robustness."""
    figures, tests = results.tables["figures"], results.tables["tests"]
    found = [
        verdict(figures, tests, "accuracy", "Most accurate", "{:.1%}".format),
        verdict(figures, tests, "nll", "Most likely labels", "{:.4f}".format),
        verdict(figures, tests, "ece", "Best calibrated", "{:.4f}".format),
    ]
    if "outliers" in results.tables:
        found.append(
            detection_verdict(results.tables["outliers"], results.tables["tests_outliers"])
        )
    for group in robustness.curves["group"].unique() if len(robustness.figures) else ():
        title = f"Most robust to {group}s"
        found.append(verdict(robustness.figures, robustness.tests, group, title, "{:.1%}".format))
    return found


def best_model(figures: pd.DataFrame, measure: str) -> str:
    """Name the model with the best value of a measure; the first of equals."""
    rows = figures[figures["measure"] == measure].set_index("model")["value"]
    return str(rows.idxmin() if measure in LOWER_IS_BETTER else rows.idxmax())


def not_worse(figures: pd.DataFrame, tests: pd.DataFrame, lower: bool = False) -> set[str]:
    """Name the best model and all that are not significantly worse than it.

    Args:
        figures: a row for each model, with `model` and `value`.
        tests: of these models by this measure, as in `Comparison.pairs`.
        lower: whether a lower value is better.
    """
    values = figures.set_index("model")["value"]
    best = str(values.idxmin() if lower else values.idxmax())
    involved = _tests_of(tests, best)
    return {*map(str, values.index)} - {*involved.loc[involved["significant"], "other"]}


def verdict(
    figures: pd.DataFrame,
    tests: pd.DataFrame,
    measure: str,
    title: str,
    form: Callable[[float], str],
) -> Verdict:
    """Name the best model by a measure, and the others that it is significantly better than.

    If there are none, the title says so, for chance alone makes one model the first.
    Significant: a p-value, corrected for all tests of the comparison, below .05.
    """
    best = best_model(figures, measure)
    row = figures[(figures["measure"] == measure) & (figures["model"] == best)].iloc[0]
    value, low, high = (form(row[name]) for name in ("value", "low", "high"))
    name = _IN_WORDS.get(measure, measure.upper())
    involved = _tests_of(tests[tests["measure"] == measure], best)
    compared, winner = "", best
    beaten, others = (
        [*involved.loc[involved["significant"] == significant, "other"]]
        for significant in (True, False)
    )
    if beaten:
        compared += f" Significantly better than {_listed(beaten)}."
    if others:
        compared += f" Not significantly different from {_listed(others)}."
    if others and not beaten:
        winner, name = "no significant difference", f"{best}: {name}"
    return f"{title}: {winner}.", f"{name} {value}, {low} to {high}.{compared}"


def detection_verdict(figures: pd.DataFrame, tests: pd.DataFrame) -> Verdict:
    """Name the model and score that detect outliers best, by mean AUROC over the partners."""
    means = figures.groupby(["model", "score"], sort=False, as_index=False)[["auroc"]].mean()
    best, score, auroc = means.sort_values("auroc", ascending=False, kind="stable").iloc[0]
    rows = figures[(figures["model"] == best) & (figures["score"] == score)]
    hardest = rows.loc[rows["auroc"].idxmin()]
    text = (
        f"AUROC {auroc:.3f} on average over {len(rows)} kinds of outliers, "
        f"{hardest['auroc']:.3f} on the hardest, {hardest['partner']}."
    )
    involved = _tests_of(tests[tests["score"] == score], best) if len(tests) else tests
    if len(involved):
        ahead = (involved["significant"] & (involved["ahead"] > 0)).groupby(involved["partner"])
        above_all = [partner for partner in rows["partner"] if ahead.all()[partner]]
        text += (
            f" Significantly better than all other models by this score on {_listed(above_all)}."
            if above_all
            else " By this score, not significantly better than all other models on any of them."
        )
    return f"Best OOD detection: {best} by {score_label(score)}.", text


def _tests_of(tests: pd.DataFrame, model: str) -> pd.DataFrame:
    """Select a model's tests, with the `other` model, how far `ahead` it is and `significant`."""
    involved = tests[(tests["first"] == model) | (tests["second"] == model)]
    is_first = involved["first"] == model
    return involved.assign(
        other=involved["second"].where(is_first, involved["first"]),
        ahead=involved["difference"].where(is_first, -involved["difference"]),
        significant=involved["p_corrected"] < SIGNIFICANT,
    )


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
