"""The benchmarks run and say what they measured; what they measured is held to nothing."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def told(*options: str, name: str = "engine_overhead") -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "benchmarks" / f"{name}.py", *options]
    # An installed jemtrack may be another checkout's.
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(
    ("case", "name"),
    [("digits", "WideResNet-10-2, 64x1x8x8"), ("alternating", "GAN of two perceptrons")],
)
def test_the_engines_overhead_is_shown_beside_both_bare_loops_and_in_parts(case, name):
    ended = told("--case", case, "--turns", "6", "--steps", "1")

    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[0].startswith(name)
    row = re.compile(r" +(bare.*?) +(wall|processor) +(\d+\.\d+) +\S+ to \S+ +\S+ / \S+")
    assert [row.fullmatch(line).groups()[:2] for line in lines[2:6]] == [
        (loop, clock) for loop in ("bare", "bare, guarded") for clock in ("wall", "processor")
    ]
    assert [line.strip().rpartition("  ")[0].strip() for line in lines[6:]] == [
        "reading the losses", "the gradient's norm", "a line of the record",
    ]  # fmt: skip


def test_too_few_turns_are_refused():
    ended = told("--turns", "2")

    assert (ended.returncode, ended.stdout) == (2, "")
    assert "--turns must be >= 6, got 2" in ended.stderr


def test_the_trackers_costs_are_shown_by_batch_and_sample():
    found = json.loads(told("--rounds", "1", "--steps", "20", "--json", name="trackers").stdout)

    assert [row["tracker"] for row in found] == [
        "jsonl, a batch", "performance, a sample", "performance light, a sample",
        "all trackers, a step", "their processes, a step",
    ]  # fmt: skip
    # That of all trackers together is a difference of two, which a busy machine can turn around.
    measured = [row for row in found if row["tracker"] != "all trackers, a step"]
    assert all(row["microseconds"] > 0 and row["percent"] > 0 for row in measured)


def test_nothing_is_lost_by_breaking_a_project_at_random():
    """What is lost of 200 and of broken files: make reliability."""
    ended = told("--kills", "3", "--workers", "1", "--no-inputs", name="reliability")

    assert ended.returncode == 0, ended.stderr
    assert "\n| **together** | **3** | **3** | **0** |\n" in ended.stdout
    assert "\n0 results lost, 0 hangs, 0 tracebacks.\n" in ended.stdout


def test_a_stages_start_is_shown_beside_its_imports_and_the_help_by_itself():
    ended = told("--stage", "PrepareData", "--processes", "2", name="start_up")

    assert ended.returncode == 0, ended.stderr
    _, *rows, help_ = ended.stdout.splitlines()
    row = re.compile(r"PrepareData +(wall|processor) +\d+\.\d+ +\S+ to \S+ +\S+ / \S+")
    assert [row.fullmatch(line)[1] for line in rows] == ["wall", "processor"]
    assert re.fullmatch(r"jemtrack --help: \d+\.\d+ s, quartiles \S+ to \S+", help_)


def test_what_a_gpu_is_tried_for_runs_on_a_cpu():
    ended = told("--device", "cpu", "--tiny", name="gpu")

    assert ended.returncode == 0, ended.stderr
    assert "| sampled_jem    | cpu    | fp32      |" in ended.stdout
    row = re.compile(r"\| cross entropy \| (\S+) +\| .* \| yes +\| at 15 of 30 \| yes +\|")
    assert row.findall(ended.stdout) == ["fp32", "bf16-mixed"]
    assert "at most 1e-04" in ended.stdout
