"""`jemtrack bench` measures and says what it measured; the figures are held to nothing."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from benchmarks import machine
from benchmarks.rows import ROWS
from benchmarks.tables import Result, table_lines
from benchmarks.turns import Turn, Turns, take_turns
from jemtrack.commands.main import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _in_the_projects_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(ROOT)


def bench(*options):
    return main(["bench", "--tiny", "--threads", "1", *options])


def rows_of(text, first):
    """The cells of the table whose head begins with the cells `first`."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if re.match(rf"\| {first} +\|", line))
    table = [line for line in lines[start + 2 :] if line.startswith("|") or not line]
    end = table.index("") if "" in table else len(table)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[:end]]


def test_steps_are_shown_with_their_arithmetic(capsys):
    names = ["cross-entropy", "max-entropy", "sampled"]
    assert bench("--precision", "fp32", "--turns", "3", "--row", *names) == 0
    text = capsys.readouterr().out

    assert " 1 threads, " in text.splitlines()[0]
    rows = rows_of(text, "row")
    assert [row[:2] for row in rows] == [[name, "fp32"] for name in names]
    for name, _, reference, ours, unit, ratio, quartiles, bar in rows:
        assert re.fullmatch(r"\d+\.\d+ ms", reference)
        assert re.fullmatch(r"\d+\.\d+ ms", ours)
        assert (unit, bar) == ("step", f"{ROWS[name].bar:g}")
        low, high = map(float, quartiles.split(" to "))
        assert low <= float(ratio) <= high
    assert "GFLOP" in text


def test_a_row_that_needs_more_memory_than_there_is_says_so(capsys, monkeypatch):
    def too_large(place, options):
        raise torch.OutOfMemoryError("out of memory")

    row = dataclasses.replace(ROWS["cross-entropy"], make=too_large)
    monkeypatch.setitem(ROWS, "cross-entropy", row)

    assert bench("--precision", "fp32", "--row", "cross-entropy") == 0
    assert rows_of(capsys.readouterr().out, "row")[0][2] == "not measured: out of memory"


@pytest.mark.parametrize("name", ["evaluation", "augmentation"])
def test_other_rows_are_shown_in_fp32_alone(capsys, name):
    assert bench("--turns", "1", "--precision", "both", "--row", name) == 0
    [row] = rows_of(capsys.readouterr().out, "row")

    assert row[:2] == [name, "fp32"]
    assert row[6] == "one pair"


def test_steps_in_another_precision(capsys):
    names = ["cross-entropy", "augmentation"]
    assert bench("--turns", "1", "--precision", "bf16-mixed", "--row", *names) == 0
    steps, augmentation = rows_of(capsys.readouterr().out, "row")

    assert steps[:2] == ["cross-entropy", "bf16-mixed"]
    assert augmentation[:3] == ["augmentation", "", "not measured: fp32 only"]


def test_a_whole_training_says_what_both_have_learned(capsys):
    options = ["--row", "stage", "--images", "16", "--epochs", "1", "--turns", "2"]
    assert bench("--precision", "fp32", *options) == 0
    text = capsys.readouterr().out

    assert rows_of(text, "row")[0][0] == "stage"
    spread = r"\d+\.\d{4} \(\+- \d+\.\d{4}\)"
    learned = f"accuracy {spread}, NLL {spread}"
    assert re.search(
        "stage, fp32, result: 16 training images, 1 epochs, on the test images; "
        f"reference {learned}; jemtrack {learned}",
        text,
    )


def test_the_top_costs_of_a_step_are_named(capsys):
    assert bench("--profile", "--precision", "fp32", "--row", "max-entropy") == 0
    text = capsys.readouterr().out

    assert "per step without the profiler" in text
    costs = re.findall(r"^ *(\d+\.\d)% +(\d+\.\d+) ms +(\d+)  (\S+)", text, re.M)
    assert "aten::convolution_backward" in [name for *_, name in costs]
    shares = [float(share) for share, *_ in costs]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 100.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--row", "fast"], f"--row must be one of {', '.join(ROWS)}, got fast"),
        (["--turns", "0"], "--turns must be >= 1, got 0"),
        (["--precision", "fp64"], "--precision must be one of 'fp32', 'bf16-mixed' or 'both'"),
    ],
)
def test_what_does_not_fit_is_refused(capsys, options, message):
    assert bench(*options) == 1
    assert message in capsys.readouterr().err


def test_outside_of_a_checkout_it_says_so(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert bench() == 1
    assert "has no folder benchmarks/reference" in capsys.readouterr().err


def test_threads_are_given_back(capsys):
    before = torch.get_num_threads()
    main(["bench", "--tiny", "--threads", "2", "--turns", "1", "--row", "augmentation"])

    assert torch.get_num_threads() == before


def test_neither_side_is_always_the_first():
    order = []
    both = (lambda: order.append("r"), lambda: order.append("o"))
    turns = take_turns(both, 3, 2, torch.device("cpu"), lambda: order.append("y"))

    assert "".join(order) == "rrooy" + "oorry" + "rrooy"
    assert len(turns.turns) == 3


def test_ratios_are_those_of_pairs():
    turns = Turns([Turn(2, 1), Turn(9, 3), Turn(8, 2)], n_steps=2)

    assert (turns.reference, turns.ours, turns.ratio) == (4, 1, 3)
    assert turns.quartiles == (2, 4)


def test_the_floor_is_the_arithmetic_at_the_matrix_rate():
    # 10 GFLOP a step; the yardstick's 20 take .2 s, and in a turn that is disturbed 2 s.
    turns = Turns([Turn(0.8, 0.4, 0.2), Turn(0.8, 0.4, 0.2), Turn(8, 4, 2)], n_steps=2)
    result = Result("sampled", ROWS["sampled"], "fp32", turns, 10**10, 2 * 10**10)
    none = Result("gpu-sampled", ROWS["gpu-sampled"], none="not measured: no GPU")
    text = "\n".join(table_lines([result, none]))

    *_, arithmetic = text.split("\n\n")
    assert rows_of(arithmetic, "row") == [
        ["sampled", "fp32", "10.0", "100", "50%", "100.00 ms", "4.00"]
    ]
    assert rows_of(text, "row")[1][:3] == ["gpu-sampled", "", "not measured: no GPU"]


def test_the_arithmetic_of_a_convolution_is_counted():
    convolution, x = torch.nn.Conv2d(3, 5, 3, padding=1), torch.randn(2, 3, 8, 8)

    assert machine.arithmetic(lambda: convolution(x)) == 2 * (2 * 5 * 8 * 8) * (3 * 3 * 3)


def test_the_arithmetic_of_a_chain_is_counted():
    """A step of a chain needs the gradient of the image alone, as much as the forward pass."""
    layer, x = torch.nn.Linear(6, 4, bias=False), torch.randn(3, 6, requires_grad=True)
    forward = machine.arithmetic(lambda: layer(x))

    assert forward == 2 * 3 * 6 * 4
    assert machine.arithmetic(lambda: torch.autograd.grad(layer(x).sum(), [x])) == 2 * forward


def test_the_processor_is_told_with_its_threads():
    cpu = torch.device("cpu")

    assert f"{torch.get_num_threads()} threads" in machine.description(cpu)
    assert machine.MatrixProducts(cpu, torch.float32, side=32).rate() > 0
