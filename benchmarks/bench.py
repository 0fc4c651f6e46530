"""Time the engine's steps against those of the reference: `jemtrack bench`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from benchmarks.engine_steps import runtime_for
from benchmarks.machine import CPU, MatrixProducts, arithmetic, description, has_bf16
from benchmarks.options import BenchOptions
from benchmarks.rows import BOTH, Row, chosen_rows
from benchmarks.step_profile import profile_lines
from benchmarks.tables import Result, table_lines
from benchmarks.turns import take_turns
from jemtrack.shared.hardware import Precision

_DTYPES = {"fp32": torch.float32, "bf16-mixed": torch.bfloat16}


def bench(options: BenchOptions) -> None:
    """Measure the chosen rows and print the tables, or the profile of each.

    Raises:
        InputError: if there is no row of a chosen name.
    """
    rows = chosen_rows(options)
    with _threads(options.threads):
        devices = [CPU, *([torch.device("cuda")] if torch.cuda.is_available() else [])]
        print(*map(description, devices), sep="\n", flush=True)
        if options.profile:
            _profile(rows, options)
        else:
            print(*table_lines(_results(rows, options)), sep="\n")


@dataclass(frozen=True)
class Chosen:
    """A row to measure in one precision on one device."""

    name: str
    row: Row
    precision: Precision
    device: torch.device

    def products(self, options: BenchOptions) -> MatrixProducts | None:
        """Return the yardstick of a step: matrix products in the number format of its precision."""
        if not self.row.counted:
            return None
        side = 64 if options.tiny else None
        return MatrixProducts(self.device, _DTYPES[self.precision], side)


def _results(rows: dict[str, Row], options: BenchOptions) -> list[Result]:
    results = []
    for name, row in rows.items():
        chosen = list(_chosen(name, row, options))
        results += [_measured_where_it_fits(each, options) for each in chosen]
        if not chosen:
            no_gpu = row.on_gpu and not torch.cuda.is_available()
            why = "no GPU" if no_gpu else f"{', '.join(row.precisions)} only"
            results.append(Result(name, row, none=f"not measured: {why}"))
    return results


def _chosen(name: str, row: Row, options: BenchOptions) -> Iterator[Chosen]:
    """Yield the row in each of its precisions; nothing if it needs a GPU and there is none."""
    if row.on_gpu and not torch.cuda.is_available():
        return
    device = torch.device("cuda") if row.on_gpu else CPU
    wanted = {None: BOTH if has_bf16(device) else BOTH[:1], "both": BOTH}
    for precision in wanted.get(options.precision, (options.precision,)):
        if precision in row.precisions:
            yield Chosen(name, row, precision, device)


def _measured_where_it_fits(chosen: Chosen, options: BenchOptions) -> Result:
    try:
        return _measured(chosen, options)
    except torch.OutOfMemoryError:
        none = "not measured: out of memory"
        return Result(chosen.name, chosen.row, chosen.precision, none=none)


def _measured(chosen: Chosen, options: BenchOptions) -> Result:
    row, device = chosen.row, chosen.device
    print(f"measuring {chosen.name}, {chosen.precision} ...", file=sys.stderr, flush=True)
    made = row.make(runtime_for(device, chosen.precision), options)
    both, products = (made.reference, made.ours), chosen.products(options)
    counted = arithmetic(made.ours) if products else None
    if row.warms_up:
        take_turns(both, 1, row.n_steps, device, products)
    turns = take_turns(both, options.turns or row.turns, row.n_steps, device, products)
    flop = products.flop if products else None
    return Result(chosen.name, row, chosen.precision, turns, counted, flop, made.note())


def _profile(rows: dict[str, Row], options: BenchOptions) -> None:
    for name, row in rows.items():
        for chosen in _chosen(name, row, options):
            ours = row.make(runtime_for(chosen.device, chosen.precision), options).ours
            products = chosen.products(options)
            counted = arithmetic(ours) if products else None
            rate = products.rate() if products else None
            print(f"\n{name}, {chosen.precision}: {row.what}")
            print(*profile_lines(ours, chosen.device, counted, rate), sep="\n", flush=True)


@contextmanager
def _threads(n_threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
