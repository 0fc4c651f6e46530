"""The profiler's percentiles, intervals and what it leaves out."""

import numpy as np
import pytest

import jemtrack
from jemtrack.commands.main import main
from jemtrack.deploy.profiler import percentile
from jemtrack.errors import InputError


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_the_interval_covers_the_true_percentile_as_often_as_it_says(share):
    stream, true = np.random.default_rng(0), -np.log(1 - share)
    found = [percentile(stream.exponential(size=100), share, "p") for _ in range(2000)]

    covered = np.mean([each["p_low"] <= true <= each["p_high"] for each in found])
    assert 0.945 <= covered <= 0.99  # at least .95, and what whole ranks add


def test_too_few_values_bound_nothing():
    assert percentile(np.arange(10.0), 0.95, "p")["p_high"] == np.inf


def test_it_times_each_batch_size_without_the_warm_up(deployed_once):
    found = jemtrack.PerformanceProfiler(deployed_once / "bundle").profile(
        [1, 16], num_iterations=40, warm_up=2
    )

    assert found["batch_size"].tolist() == [1, 16]
    assert (found["p50_ms_low"] <= found["p50_ms"]).all()
    assert (found["p50_ms"] <= found["p95_ms"]).all()
    np.testing.assert_allclose(found["per_second"], 1e3 * found["batch_size"] / found["p50_ms"])
    assert (found["peak_mib"] < 90).all()  # of the process that serves, not of this one


def test_the_command_prints_a_row_a_size_and_refuses_what_is_no_number(deployed_once, capsys):
    bundle = str(deployed_once / "bundle")
    assert main(["profile", bundle, "--batch-sizes", "3", "--iterations", "5"]) == 0
    assert len([line for line in capsys.readouterr().out.splitlines() if line.split()]) == 3

    assert main(["profile", bundle, "--batch-sizes", "0"]) == 1
    assert (
        capsys.readouterr().err
        == "jemtrack: batch sizes and iterations must be >= 1, got [0], 100\n"
    )
    with pytest.raises(InputError, match="has no model"):
        jemtrack.PerformanceProfiler(bundle, model="other.onnx")
