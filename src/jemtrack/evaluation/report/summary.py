"""The summary of an evaluation in words: which model is best at what, and how sure that is."""

from collections.abc import Callable, Sequence

import pandas as pd

from jemtrack.evaluation.models.results import SIGNIFICANT, EvaluationResults

LOWER_IS_BETTER = ("nll", "brier", "ece")
Verdict = tuple[str, str]  # a title, such as the best model, and the figures behind it


def verdicts(results: EvaluationResults, robustness: pd.DataFrame) -> list[Verdict]:
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
    return found + robustness_verdicts(robustness)


def best_model(figures: pd.DataFrame, measure: str) -> str:
    """Name the model with the best value of a measure; the first of equals."""
    rows = figures[figures["measure"] == measure].set_index("model")["value"]
    return str(rows.idxmin() if measure in LOWER_IS_BETTER else rows.idxmax())


def not_worse(figures: pd.DataFrame, tests: pd.DataFrame, lower: bool = False) -> set[str]:
    """Name the best model and all that are not significantly worse than it.

    Args:
        figures: a row a model, with `model` and `value`.
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

    Significant: a p-value, corrected for all tests of the comparison, below .05.
    """
    best = best_model(figures, measure)
    row = figures[(figures["measure"] == measure) & (figures["model"] == best)].iloc[0]
    value, low, high = (form(row[name]) for name in ("value", "low", "high"))
    name = "Accuracy" if measure == "accuracy" else measure.upper()
    involved = _tests_of(tests[tests["measure"] == measure], best)
    compared = ""
    beaten, others = (
        [*involved.loc[involved["significant"] == significant, "other"]]
        for significant in (True, False)
    )
    if beaten:
        compared += f" Significantly better than {_listed(beaten)}."
    if others:
        compared += f" Not significantly different from {_listed(others)}."
    return f"{title}: {best}.", f"{name} {value}, {low} to {high}.{compared}"


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
        where = f"on {_listed(above_all)}" if above_all else "on no kind of outliers"
        text += f" By this score it is significantly better than all other models {where}."
    return f"Best out-of-distribution detection: {best} by {score}.", text


def robustness_verdicts(curves: pd.DataFrame) -> list[Verdict]:
    """Name the most accurate model under corruptions, and under attacks."""
    found = []
    for group in ("corruption", "attack") if len(curves) else ():
        some = curves[(curves["group"] == group) & (curves["kind"] != "none")]
        if len(some):
            means = some.groupby("model")["accuracy"].mean().sort_values(ascending=False)
            figures = ", ".join(f"{model} {mean:.1%}" for model, mean in means.items())
            title = f"Most robust to {group}s: {means.index[0]}."
            found.append((title, f"Mean accuracy: {figures}."))
    return found


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
