"""The command line: `jemtrack COMMAND`."""

import argparse
import contextlib
import importlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jemtrack.commands.parser import build_parser
from jemtrack.errors import InputError, exit_status, problem_text
from jemtrack.files import find_root, find_source, search_source
from jemtrack.shared.waiting_threads import let_waiting_threads_sleep

# Each command imports what it needs when it runs: importing torch would delay `jemtrack --help`.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status: 0, 1 for wrong input, 130 after Ctrl-C."""
    options = build_parser().parse_args(arguments)
    let_waiting_threads_sleep()
    here = Path.cwd()
    root = find_root(here)
    if source := find_source(here):
        search_source(source)
    if root != here:
        _rebase(options, here, root)
    try:
        with contextlib.chdir(root):
            status: int = _COMMANDS[options.command](options) or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # as in `jemtrack show | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ModuleNotFoundError as error:
        if not (extra := _extra_of(error.name or "")):
            raise
        install = f"pip install 'jemtrack[{extra}]'"
        print(f"jemtrack: this needs {error.name}, not installed here: {install}", file=sys.stderr)
        return 1
    except (InputError, OSError) as error:
        print(f"jemtrack: {problem_text(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"jemtrack: {interrupt or 'interrupted'}", file=sys.stderr)
        return exit_status(interrupt)


def _extra_of(module: str) -> str | None:
    """Find the optional dependencies (extra) of jemtrack that contain the package of `module`."""
    from importlib.metadata import requires  # takes a while to import

    package = module.partition(".")[0]
    for requirement in requires("jemtrack") or ():
        found = re.match(r"([\w-]+).*; extra == .(\w+).", requirement)
        # dask_jobqueue is of dask-jobqueue, and ruamel of ruamel-yaml.
        if found and f"{found[1]}_".replace("-", "_").startswith(f"{package}_"):
            return found[2]
    return None


def _rebase(options: argparse.Namespace, here: Path, root: Path) -> None:
    """Let paths that were given in the folder `here` serve in the project's `root`."""

    def rebased(value: Any) -> Any:
        if isinstance(value, list):
            return [rebased(each) for each in value]
        return Path(os.path.relpath(here / value, root)) if isinstance(value, Path) else value

    vars(options).update({name: rebased(value) for name, value in vars(options).items()})


def _init(options: argparse.Namespace) -> None:
    from jemtrack.commands.init import init

    print(init(options.folder))


def _stage(options: argparse.Namespace) -> None:
    # First of all: a stage's code is read after the moment that this module records.
    importlib.import_module("jemtrack.stages")
    from zntrack.cli.cli import run

    # ZnTrack would read dvc.lock to record the inputs, and hang while DVC has it locked.
    run(options.node, name=options.name, save_lockfile=False)


def _data(options: argparse.Namespace) -> None:
    from jemtrack.commands.data import get_data

    root = options.root or Path("data")
    print(*get_data(options.name, root, options.given, options.side), sep="\n")


def _graph(options: argparse.Namespace) -> None:
    chosen: dict[str, Any] = {"run": options.run, "skip": options.skip}
    if options.workflow in {"seeds", "cross-validation"}:
        from jemtrack.workflows import repeated_runs

        repeated_runs.write_graph(options.workflow, options.runs, **chosen)
        return
    if options.workflow == "flux":
        from jemtrack.workflows import flux

        flux.write_graph(**chosen)
        return
    if options.workflow == "single-cell":
        from jemtrack.workflows import single_cell

        single_cell.write_graph(options.dataset, **chosen)
        return
    if options.workflow:
        from jemtrack.workflows import four_trainers

        four_trainers.write_graph(options.workflow, options.scale, **chosen)
        return
    from jemtrack.project.graph import declared_nodes, write_graph

    stages = declared_nodes()
    if options.deploy:
        from jemtrack.workflows.default import deployment

        stages.append(deployment(stages, options.deploy))
    write_graph(stages, **chosen)


def _run(options: argparse.Namespace) -> int:
    from jemtrack.commands.run import run

    return run(options.stages, options.workers, options.cluster)


def _sweep(options: argparse.Namespace) -> int:
    from jemtrack.commands.sweep import sweep
    from jemtrack.project.workers.sweep import Search

    search = Search(
        options.name,
        targets=tuple(options.stages),
        measure=options.metric or "",
        maximize=options.maximize,
        trials=options.trials,
    )
    return sweep(search, options.settings, options.seeds, options.workers, options.cluster)


def _check(options: argparse.Namespace) -> None:
    from jemtrack.commands.check import check

    print(check())


def _compare(options: argparse.Namespace) -> None:
    from jemtrack.commands.compare import compare

    compare(options.revisions)


def _exps(options: argparse.Namespace) -> None:
    from jemtrack.commands.exps import exps

    exps()


def _show(options: argparse.Namespace) -> None:
    from jemtrack.commands.show import show

    show(every=options.every, as_json=options.as_json, md=options.md)


def _validate(options: argparse.Namespace) -> int:
    from jemtrack.commands.validate import validated

    lines, count = validated(options.paths)
    print(*lines, sep="\n")
    return 1 if count else 0


def _train(options: argparse.Namespace) -> int:
    if options.validate_pipeline:
        options.paths = [options.config]
        return _validate(options)
    from jemtrack.commands.train import train
    from jemtrack.train.distributed import is_rank_zero

    out = train(options.config, options.out)
    if is_rank_zero():
        print(f"results: {out}")
    return 0


def _sample(options: argparse.Namespace) -> None:
    from jemtrack.commands.sample import sample

    names = ("solver", "n_steps", "guidance")
    chosen = {name: getattr(options, name) for name in names}
    sampler = {name: value for name, value in chosen.items() if value is not None}
    out = options.out or Path("samples.png")
    lines = sample(options.model, options.captions, options.n, options.seed, out, sampler)
    print(*lines, sep="\n")


def _components(options: argparse.Namespace) -> None:
    from jemtrack.commands.components import component_lines
    from jemtrack.commands.tables import table_console

    text = "\n".join(component_lines(options.word))
    # A terminal would break long lines within words; a pipe gets them whole.
    whole = not sys.stdout.isatty()
    table_console().print(text, highlight=False, markup=False, soft_wrap=whole)


def _scratch(options: argparse.Namespace) -> None:
    from jemtrack.commands.scratch import list_trainings

    list_trainings(keys=options.keys)


def _prune(options: argparse.Namespace) -> None:
    from jemtrack.commands.scratch import prune

    for line in prune(options.stages, options.every):
        print(line)


def _replay(options: argparse.Namespace) -> None:
    from jemtrack.commands.replay import replay_record

    for record in options.records:
        replay_record(record, options.config)


def _notebook(options: argparse.Namespace) -> None:
    from jemtrack.project.notebooks import export

    for notebook in options.paths:
        for path in export(notebook):
            print(path)


def _deploy(options: argparse.Namespace) -> int:
    from jemtrack.commands.deploy import deploy

    return deploy(
        options.model,
        options.out,
        data=options.data,
        outliers=options.outliers,
        formats=options.formats,
        threads=options.threads,
    )


def _profile(options: argparse.Namespace) -> None:
    from jemtrack.commands.bundle import profile

    profile(
        options.bundle,
        model=options.model,
        batch_sizes=options.batch_sizes,
        iterations=options.iterations,
        threads=options.threads,
    )


def _serve(options: argparse.Namespace) -> None:
    from jemtrack.commands.bundle import serve
    from jemtrack.deploy.batcher import Limits

    serve(
        options.bundle,
        model=options.model,
        host=options.host,
        port=options.port,
        threads=options.threads,
        workers=options.workers,
        limits=Limits(body=options.max_body, waiting=options.max_waiting),
    )


def _release(options: argparse.Namespace) -> None:
    from jemtrack.commands.release import release

    print(*release(options.name, options.version), sep="\n")


def _bench(options: argparse.Namespace) -> None:
    if not Path("benchmarks/reference").is_dir():
        raise InputError(
            f"{Path.cwd()} has no folder benchmarks/reference: run `jemtrack bench` in a checkout "
            "of jemtrack itself"
        )
    sys.path.insert(0, str(Path.cwd()))
    chosen = importlib.import_module("benchmarks.options").bench_options(vars(options))
    importlib.import_module("benchmarks.bench").bench(chosen)


def _completion(options: argparse.Namespace) -> None:
    import shtab

    print(shtab.complete(build_parser(), options.shell))


_COMMANDS = {
    "init": _init,
    "stage": _stage,
    "data": _data,
    "graph": _graph,
    "run": _run,
    "sweep": _sweep,
    "check": _check,
    "compare": _compare,
    "exps": _exps,
    "show": _show,
    "validate": _validate,
    "train": _train,
    "sample": _sample,
    "components": _components,
    "scratch": _scratch,
    "prune": _prune,
    "replay": _replay,
    "notebook": _notebook,
    "deploy": _deploy,
    "profile": _profile,
    "serve": _serve,
    "release": _release,
    "bench": _bench,
    "completion": _completion,
}
