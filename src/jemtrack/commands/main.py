"""The command line: `jemtrack COMMAND`."""

import argparse
import contextlib
import importlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jemtrack.errors import InputError, exit_status, problem_text
from jemtrack.files import find_root, path_problem

Commands = Any  # argparse has no public name for the class

# Each command imports what it needs when it runs: importing torch would delay `jemtrack --help`.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status: 0, 1 for wrong input, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    here = Path.cwd()
    root = find_root(here)
    if root != here:
        _rebase(options, here, root)
    try:
        with contextlib.chdir(root):
            status: int = options.command(options) or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # as in `jemtrack show | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (InputError, OSError) as error:
        print(f"jemtrack: {problem_text(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"jemtrack: {interrupt or 'interrupted'}", file=sys.stderr)
        return exit_status(interrupt)


def _rebase(options: argparse.Namespace, here: Path, root: Path) -> None:
    """Let paths that were given in the folder `here` serve in the project's `root`."""

    def rebased(value: Any) -> Any:
        if isinstance(value, list):
            return [rebased(each) for each in value]
        return Path(os.path.relpath(here / value, root)) if isinstance(value, Path) else value

    vars(options).update({name: rebased(value) for name, value in vars(options).items()})


def _path(text: str) -> Path:
    if problem := path_problem(text):
        raise argparse.ArgumentTypeError(problem)
    return Path(text)


def _revision(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("must be the name of a revision, got ''")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jemtrack", description="Joint energy models as reproducible DVC stages."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    for add in (_add_graph, _add_recipes, _add_trainings, _add_bench):
        add(commands)
    return parser


def _add_graph(commands: Commands) -> None:
    """Add the commands for data, stages and the graph."""
    data = commands.add_parser("data", help="get a data set and pin it in data.dvc")
    data.add_argument("name", metavar="NAME", help="digits, mnist5k, ..., or a name of your own")
    data.add_argument("--from", dest="given", type=_path, metavar="PATH", help="file or folder")
    data.add_argument("--root", type=_path, metavar="FOLDER", help="where to put it (data)")
    data.set_defaults(command=_data)

    graph = commands.add_parser("graph", help="write the graph into dvc.yaml and params.yaml")
    graph.add_argument("--run", action="store_true", help="also reproduce the stages")
    graph.add_argument(
        "--workflow",
        choices=("fashion-mnist", "mnist", "seeds", "cross-validation"),
        help="write another graph into workflows/: the four trainers on this data set, or the "
        "default graph over several seeds, or over the folds of a cross-validation",
    )
    graph.add_argument("--runs", type=int, default=5, help="number of seeds or folds (5)")
    graph.add_argument(
        "--scale", choices=("cpu", "gpu"), default="cpu", help="hardware of the four trainers (cpu)"
    )
    graph.set_defaults(command=_graph)

    check = commands.add_parser("check", help="check the parameters and the graph's files")
    check.set_defaults(command=_check)

    show = commands.add_parser(
        "show",
        help="show the models side by side",
        description="Show the main measures of each evaluation, a row for each model.",
        epilog="example: jemtrack show --md >> RESULTS.md",
    )
    form = show.add_mutually_exclusive_group()
    form.add_argument(
        "--all", dest="every", action="store_true", help="all measures, and each stage's costs"
    )
    form.add_argument("--json", dest="as_json", action="store_true", help="everything, as JSON")
    form.add_argument("--md", action="store_true", help="the main measures, as Markdown")
    show.set_defaults(command=_show)

    compare = commands.add_parser(
        "compare",
        help="compare the evaluations of revisions",
        description="Compare the evaluations of commits, branches, tags or experiments.",
        epilog="example: jemtrack compare HEAD~1",
    )
    compare.add_argument(
        "revisions",
        nargs="+",
        type=_revision,
        metavar="REV",
        help="the baseline first; a single one is compared with the workspace",
    )
    compare.set_defaults(command=_compare)

    exps = commands.add_parser(
        "exps",
        help="list the experiments of a commit in five columns",
        description="List the last commit and its experiments: what they changed, in which models.",
    )
    exps.set_defaults(command=_exps)

    notebook = commands.add_parser("notebook", help="export a notebook's cells to modules")
    notebook.add_argument("paths", nargs="+", type=_path, metavar="NOTEBOOK")
    notebook.set_defaults(command=_notebook)


def _add_recipes(commands: Commands) -> None:
    """Add the commands for recipe files."""
    validate = commands.add_parser("validate", help="check recipe files and summarise them")
    validate.add_argument("paths", nargs="+", type=_path, metavar="FILE")
    validate.set_defaults(command=_validate)

    train = commands.add_parser("train", help="train a recipe file outside of DVC, or resume it")
    train.add_argument("--config", type=_path, required=True, metavar="FILE")
    train.add_argument("--out", type=_path, metavar="FOLDER", help="for the results (runs/<name>)")
    train.add_argument(
        "--validate-pipeline", action="store_true", help="check the file without training"
    )
    train.set_defaults(command=_train)

    components = commands.add_parser("components", help="list callbacks, trackers, their options")
    components.set_defaults(command=_components)


def _add_trainings(commands: Commands) -> None:
    """Add the commands for unfinished and for recorded trainings."""
    scratch = commands.add_parser("scratch", help="list unfinished trainings, or remove some")
    scratch.add_argument("--keys", action="store_true", help="also list the trainings' keys")
    scratch.set_defaults(command=_scratch)
    prune = scratch.add_subparsers(metavar="prune").add_parser(
        "prune", help="remove those that are not resumable"
    )
    chosen = prune.add_mutually_exclusive_group()
    chosen.add_argument("--all", dest="every", action="store_true", help="remove all of them")
    chosen.add_argument(
        "stages", nargs="*", default=[], metavar="STAGE", help="remove all of these stages"
    )
    prune.set_defaults(command=_prune)

    replay = commands.add_parser("replay", help="send a record to the trackers of jemtrack.yaml")
    replay.add_argument("records", nargs="+", type=_path, metavar="RECORD")
    replay.add_argument(
        "--config", type=_path, metavar="FILE", help="send it to the trackers of this recipe file"
    )
    replay.set_defaults(command=_replay)


def _add_bench(commands: Commands) -> None:
    """Add the benchmarks, which only a checkout of the project has."""
    bench = commands.add_parser("bench", help="time jemtrack against plain reference loops")
    bench.add_argument("--row", dest="rows", nargs="+", action="extend", metavar="NAME")
    bench.add_argument("--precision", metavar="fp32|bf16-mixed|both", help="of jemtrack")
    bench.add_argument("--threads", type=int, metavar="N", help="of the CPU (2)")
    bench.add_argument("--turns", type=int, metavar="N", help="timed turns of each side")
    bench.add_argument("--images", type=int, metavar="N", help="training images of the row stage")
    bench.add_argument("--epochs", type=int, metavar="N", help="epochs of the row stage")
    bench.add_argument("--profile", action="store_true", help="print the top costs of a step")
    bench.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)  # for tests
    bench.set_defaults(command=_bench)


def _data(options: argparse.Namespace) -> None:
    from jemtrack.data.sources.fetch import fetch

    root = options.root or Path("data")
    for path in fetch(options.name, root, options.given):
        print(path)
    # The digest of the data is in data.dvc, which git tracks.
    command = [sys.executable, "-m", "dvc", "add", "--quiet", str(root)]
    if subprocess.run(command, check=False).returncode:
        raise InputError(f"`dvc add {root}` failed: see its messages above")


def _graph(options: argparse.Namespace) -> None:
    if options.workflow in {"seeds", "cross-validation"}:
        from jemtrack.workflows import repeated_runs

        repeated_runs.write_graph(options.workflow, options.runs, run=options.run)
        return
    if options.workflow:
        from jemtrack.workflows import four_trainers

        four_trainers.write_graph(options.workflow, options.scale, run=options.run)
        return
    from jemtrack.workflows.default import write_graph

    write_graph(run=options.run)


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


def _components(options: argparse.Namespace) -> None:
    from jemtrack.shared.components import component_lines

    print(*component_lines(), sep="\n")


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


def _bench(options: argparse.Namespace) -> None:
    if not Path("benchmarks/reference").is_dir():
        raise InputError(
            f"{Path.cwd()} has no folder benchmarks/reference: run `jemtrack bench` in a checkout "
            "of jemtrack itself"
        )
    sys.path.insert(0, str(Path.cwd()))
    chosen = importlib.import_module("benchmarks.options").bench_options(vars(options))
    importlib.import_module("benchmarks.bench").bench(chosen)
