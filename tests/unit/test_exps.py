"""The five columns of `jemtrack exps`, of rows as `dvc.api.exp_show` returns them."""

from jemtrack.commands.exps import table_rows

STAGES = ["L1", "EvaluateX"]


def row(typ="baseline", name=None, state=None, lr=0.1, **nll):
    metrics = {
        key: value
        for model, value in nll.items()
        for key, value in (
            (f"nodes/{model}/metrics.json:valid_nll", value),
            (f"nodes/EvaluateX/metrics/{model}.json:accuracy", value and 0.5),
        )
    }
    # A digest of a file differs, too, and is no parameter.
    files = {"src/jemtrack/train": str(nll), "params.yaml": str(lr)}
    head = {"Experiment": name, "rev": "main", "typ": typ, "State": state}
    return {**head, **metrics, "L1.params.lr": lr, "EvaluateX.params.noise": True, **files}


def test_a_commit_has_all_its_models_and_an_experiment_those_that_it_changed():
    rows = [row(L1=1.0, L2=2.0), row("branch_base", "slow", lr=0.01, L1=1.5, L2=2.0)]

    assert [*table_rows(rows, STAGES)] == [
        ["main", "", "L1", "0.5000", "1.0000"],
        ["", "", "L2", "0.5000", "2.0000"],
        ["slow", "L1.params.lr=0.01", "L1", "0.5000", "1.5000"],
    ]


def test_what_has_no_metrics_yet_shows_its_state_and_what_changes_nothing_says_so():
    assert [*table_rows([row()], STAGES)] == [["main", "", "no results", "", ""]]
    rows = [
        row(L1=1.0),
        row("branch_base", "waits", state="Queued", lr=0.2, L1=None),
        row("branch_base", "same", L1=1.0),
    ]

    assert [*table_rows(rows, STAGES)][1:] == [
        ["waits", "L1.params.lr=0.2", "queued", "", ""],
        ["same", "", "unchanged", "", ""],
    ]


def test_the_metrics_of_a_graph_with_one_model_have_no_path_in_dvc_s_table():
    only = {"Experiment": "", "rev": "main", "typ": "baseline", "accuracy": 0.5, "valid_nll": 1.0}

    assert [*table_rows([only], STAGES)] == [["main", "", "", "0.5000", "1.0000"]]
