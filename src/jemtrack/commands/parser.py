"""What the command line takes: `jemtrack COMMAND`, with its options and its help."""

import argparse
import re
import textwrap
from pathlib import Path
from typing import Any

import jemtrack
from jemtrack.files import path_problem

Commands = Any  # argparse has no public name for the class


def _path(text: str) -> Path:
    if problem := path_problem(text):
        raise argparse.ArgumentTypeError(problem)
    return Path(text)


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, got {text!r}")
    return int(text)


def _measure(text: str) -> str:
    file, _, key = text.rpartition(":")
    if not file or not key:
        raise argparse.ArgumentTypeError(f"must be FILE:KEY, got {text!r}")
    return text


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", text):
        raise argparse.ArgumentTypeError(f"must be letters, digits, _ and -, got {text!r}")
    return text


def _revision(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("must be the name of a revision, got ''")
    return text


class _Version(argparse.Action):
    """Print the version, which takes a while to look up, and exit."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"jemtrack {jemtrack.__version__}")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """Declare all commands; `command` of what it parses is the name of the one that was called."""
    parser = argparse.ArgumentParser(
        prog="jemtrack", description="Joint energy-based models as reproducible DVC stages."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")

    for add in (
        _add_project,
        _add_data,
        _add_graph,
        _add_run,
        _add_check,
        _add_evaluation,
        _add_recipes,
        _add_sample,
        _add_trainings,
        _add_deployment,
        _add_bundle,
        _add_bench,
        _add_completion,
    ):
        add(commands)
    return parser


def _add(
    commands: Commands, name: str, summary: str, description: str, examples: str
) -> argparse.ArgumentParser:
    """Add a command, with `examples` at the end of its help."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description="\n".join(textwrap.wrap(description, 78)),
        epilog="examples:\n" + textwrap.indent(examples, "  "),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _add_project(commands: Commands) -> None:
    """Add the commands to make a project, and to run its stages."""
    init = _add(
        commands,
        "init",
        "make a new project, which uses jemtrack as a library",
        "Make a project with a package for your own penalties, stages and graph: a git and DVC "
        "repository with the default data, in a folder that does not exist or is empty.",
        "jemtrack init my-study",
    )
    init.add_argument("folder", type=_path, metavar="FOLDER", help="its name is the project's")

    stage = _add(
        commands,
        "stage",
        "run a stage, as dvc.yaml has it",
        "Run a stage, whose class and objective may be in the project's own src/. `dvc repro` "
        "calls this for each stage that is stale.",
        "jemtrack stage my_study.stages.MaxEntropyHuber --name MaxEntropyHuber",
    )
    stage.add_argument("node", metavar="CLASS", help="the dotted path of the stage's class")
    stage.add_argument("--name", required=True, help="the stage's name in dvc.yaml")


def _add_data(commands: Commands) -> None:
    data = _add(
        commands,
        "data",
        "get a data set and pin it in data.dvc",
        "Download a data set, or copy it from files that you have; check it, and pin it in "
        "data.dvc.",
        "jemtrack data digits\njemtrack data mine --from images.npz\n"
        "jemtrack data cells --from cells.h5ad\njemtrack data emoji\n"
        "jemtrack data photos --from FOLDER --side 64",
    )
    data.add_argument("name", metavar="NAME", help="digits, baron, ..., or a name of your own")
    data.add_argument(
        "--from",
        dest="given",
        type=_path,
        metavar="PATH",
        help="the file or folder that has it already",
    )
    data.add_argument("--root", type=_path, metavar="FOLDER", help="where to put it (data)")
    data.add_argument(
        "--side",
        type=int,
        choices=range(8, 257),
        default=32,
        metavar="PIXELS",
        help="of the images of a folder with captions (32)",
    )


def _add_graph(commands: Commands) -> None:
    graph = _add(
        commands,
        "graph",
        "write the graph into dvc.yaml and params.yaml",
        "Write the stages into dvc.yaml, params.yaml, zntrack.json and versions.yaml. What was "
        "changed there by hand is kept.",
        "jemtrack graph\njemtrack graph --workflow seeds --runs 3",
    )
    graph.add_argument("--run", action="store_true", help="also reproduce the stages")
    graph.add_argument(
        "--skip",
        nargs="+",
        default=(),
        metavar="STAGE",
        help="with --run: stages that do not run; those after them take what they made earlier",
    )
    graph.add_argument(
        "--workflow",
        choices=("fashion-mnist", "mnist", "seeds", "cross-validation", "single-cell", "flux"),
        metavar="NAME",
        help="write another graph into workflows/: the four trainers on fashion-mnist or mnist, "
        "or the default graph over several seeds, or over the folds of a cross-validation; or "
        "inVAE on single cells: single-cell; or images from words: flux",
    )
    graph.add_argument(
        "--dataset",
        default="synthetic",
        metavar="NAME",
        help="the cells of single-cell, which `jemtrack data` brings (synthetic)",
    )
    graph.add_argument("--runs", type=int, default=5, help="number of seeds or folds (5)")
    graph.add_argument(
        "--scale", choices=("cpu", "gpu"), default="cpu", help="hardware of the four trainers (cpu)"
    )
    graph.add_argument(
        "--deploy",
        nargs="?",
        const="MaxEntropyL2",
        metavar="TRAINER",
        help="add the stage Deploy, which bundles this trainer's model (MaxEntropyL2)",
    )


def _add_run(commands: Commands) -> None:
    run = _add(
        commands,
        "run",
        "run what is stale on several workers",
        "Run the stages that are stale, and what follows from them, side by side: each in a clone "
        "of the project as it is now, edits included. What `dvc repro` would restore is restored; "
        "in the end the project has every result, as after `dvc repro`.",
        "jemtrack run\njemtrack run EvaluateX --workers 3\njemtrack run --on slurm",
    )
    _add_workers(run, "stages")

    sweep = _add(
        commands,
        "sweep",
        "try parameters side by side, as experiments",
        "Try values of parameters on several workers. Each trial is an experiment of DVC, which "
        "`dvc exp show` lists. By default each combination of the values is tried; with --trials, "
        "Optuna chooses, and ends trials whose validation is worse than usual. The same command "
        "resumes a sweep.",
        "jemtrack sweep --seeds 5\n"
        "jemtrack sweep -S MaxEntropyL2.params.width=1,2 -S MaxEntropyL2.params.lr=1e-3\n"
        "jemtrack sweep MaxEntropyL2 --trials 20 \\\n"
        "  --metric nodes/MaxEntropyL2/metrics.json:valid_nll \\\n"
        "  -S 'MaxEntropyL2.params.lr=tag(log,interval(1e-4,1e-2))'",
    )
    _add_workers(sweep, "trials")
    sweep.add_argument(
        "-S", "--set", dest="settings", action="append", default=[], metavar="KEY=VALUES",
        help="a parameter and what to try, in Hydra's grammar: 1,2 or range(1,4), and with "
        "--trials interval(0.1,0.9), of a log scale tag(log,interval(1e-4,1e-2))",
    )  # fmt: skip
    sweep.add_argument("--seeds", type=_count, metavar="N", help="try the seeds 1 to N")
    sweep.add_argument(
        "--trials",
        type=_count,
        metavar="N",
        help="try so many, chosen by Optuna, those before included",
    )
    sweep.add_argument(
        "--metric",
        type=_measure,
        metavar="FILE:KEY",
        help="what is compared: the smaller, the better",
    )
    sweep.add_argument("--maximize", action="store_true", help="the larger, the better")
    sweep.add_argument(
        "--name", type=_name, default="sweep", metavar="NAME", help="of the sweep (sweep)"
    )


def _add_workers(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument(
        "stages", nargs="*", metavar="STAGE", help="with those before it (all of this folder)"
    )
    where = command.add_mutually_exclusive_group()
    where.add_argument(
        "--workers",
        type=_count,
        metavar="N",
        help=f"{what} at a time (as many as have the threads of their parameters on this machine)",
    )
    where.add_argument(
        "--on", dest="cluster", metavar="NAME", help="run them on this cluster of jemtrack.yaml"
    )


def _add_check(commands: Commands) -> None:
    """Add the commands that check files, and write the modules of notebooks."""
    _add(
        commands,
        "check",
        "check the parameters and the graph's files",
        "Check params.yaml and the data that it names, dvc.yaml, versions.yaml and jemtrack.yaml, "
        "without running anything. The exit status is 1 if there are problems.",
        "jemtrack check && dvc repro",
    )

    notebook = _add(
        commands,
        "notebook",
        "export a notebook's cells to modules",
        "Write the cells that a notebook marks for export into modules, so that stages can be made "
        "of their classes.",
        "jemtrack notebook notebooks/01_author_a_trainer.ipynb",
    )
    notebook.add_argument("paths", nargs="+", type=_path, metavar="NOTEBOOK")


def _add_evaluation(commands: Commands) -> None:
    """Add the commands that show and compare results."""
    show = _add(
        commands,
        "show",
        "show the models side by side",
        "Show the main measures of each evaluation, a row for each model.",
        "jemtrack show --md >> RESULTS.md",
    )
    form = show.add_mutually_exclusive_group()
    form.add_argument(
        "--all", dest="every", action="store_true", help="all measures, and each stage's costs"
    )
    form.add_argument("--json", dest="as_json", action="store_true", help="everything, as JSON")
    form.add_argument("--md", action="store_true", help="the main measures, as Markdown")

    compare = _add(
        commands,
        "compare",
        "compare the evaluations of revisions",
        "Compare the evaluations of commits, branches, tags or experiments.",
        "jemtrack compare HEAD~1",
    )
    compare.add_argument(
        "revisions",
        nargs="+",
        type=_revision,
        metavar="REV",
        help="the baseline first; a single one is compared with the workspace",
    )

    _add(
        commands,
        "exps",
        "list the experiments of a commit in five columns",
        "List the last commit and its experiments: what they changed, in which models.",
        "dvc exp run -S XEntropyAugmented.params.lr=0.002 && jemtrack exps",
    )


def _add_recipes(commands: Commands) -> None:
    """Add the commands for recipe files."""
    validate = _add(
        commands,
        "validate",
        "check recipe files and summarise them",
        "Check recipe files, and print each problem with its line, or what the recipe will train.",
        "jemtrack validate recipes/two_phase.yaml",
    )
    validate.add_argument("paths", nargs="+", type=_path, metavar="FILE")

    train = _add(
        commands,
        "train",
        "train a recipe file outside of DVC, or resume it",
        "Train by a recipe file, outside of DVC. If the training is interrupted, the same command "
        "resumes it.",
        "jemtrack train --config recipes/two_phase.yaml",
    )
    train.add_argument(
        "--config", type=_path, required=True, metavar="FILE", help="the recipe file"
    )
    train.add_argument("--out", type=_path, metavar="FOLDER", help="for the results (runs/<name>)")
    train.add_argument(
        "--validate-pipeline", action="store_true", help="check the file without training"
    )

    components = _add(
        commands,
        "components",
        "list what a recipe can name, with its options",
        "List the callbacks, trackers, objectives, optimizers and schedulers that a recipe can "
        "name by their `type`, each with its options.",
        "jemtrack components ema\njemtrack components optimizer",
    )
    components.add_argument(
        "word", nargs="?", default="", metavar="WORD", help="list only those with this in the name"
    )


def _add_sample(commands: Commands) -> None:
    sample = _add(
        commands,
        "sample",
        "draw images by captions",
        "Draw images by captions, of a model of the family flux, and write them as a grid with a "
        "row for each caption.",
        'jemtrack sample --model model.safetensors --caption "an ankle boot" --n 4',
    )
    sample.add_argument(
        "--model", type=_path, required=True, metavar="FILE", help="the model's file"
    )
    sample.add_argument(
        "--caption", dest="captions", action="append", required=True, metavar="TEXT",
        help="what to draw; may be given several times",
    )  # fmt: skip
    sample.add_argument("--n", type=int, default=16, metavar="N", help="images of each (16)")
    sample.add_argument("--out", type=_path, metavar="FILE", help="the picture (samples.png)")
    sample.add_argument("--seed", type=int, default=0, metavar="N", help="of the noise (0)")
    sample.add_argument(
        "--solver", metavar="NAME", help="euler, midpoint, heun or mean_flow (euler)"
    )
    sample.add_argument("--steps", dest="n_steps", type=int, metavar="N", help="of the solver (8)")
    sample.add_argument("--guidance", type=float, metavar="W", help="strength of captions (2)")


def _add_trainings(commands: Commands) -> None:
    """Add the commands for unfinished and for recorded trainings."""
    scratch = _add(
        commands,
        "scratch",
        "list unfinished trainings, or remove some",
        "List the trainings that were interrupted: how far they have come, and "
        "whether `dvc repro` resumes them.",
        "jemtrack scratch\njemtrack scratch prune",
    )
    scratch.add_argument("--keys", action="store_true", help="also list the trainings' keys")
    prune = _add(
        scratch.add_subparsers(metavar="[COMMAND]"),
        "prune",
        "remove those that are not resumable",
        "Remove the unfinished trainings that are not resumable. One that is running is left.",
        "jemtrack scratch prune\njemtrack scratch prune MaxEntropyL1",
    )
    chosen = prune.add_mutually_exclusive_group()
    chosen.add_argument("--all", dest="every", action="store_true", help="remove all of them")
    chosen.add_argument(
        "stages", nargs="*", default=[], metavar="STAGE", help="remove all of these stages"
    )
    prune.set_defaults(command="prune")

    replay = _add(
        commands,
        "replay",
        "send a record to the trackers of jemtrack.yaml",
        "Send the recorded events of a finished run to trackers, as if it ran again.",
        "jemtrack replay nodes/MaxEntropyL1/record",
    )
    replay.add_argument("records", nargs="+", type=_path, metavar="RECORD")
    replay.add_argument(
        "--config", type=_path, metavar="FILE", help="send it to the trackers of this recipe file"
    )


def _add_deployment(commands: Commands) -> None:
    """Add the commands that export a model, and release what was made."""
    deploy = _add(
        commands,
        "deploy",
        "export a model to a bundle and other formats",
        "Export a trained model to a bundle, which needs neither PyTorch nor jemtrack, and to "
        "other formats; check each against PyTorch and print them in one table. A format that "
        "misses its tolerance is refused. In the graph, the stage Deploy writes the bundle: "
        "`jemtrack graph --deploy`.",
        "jemtrack deploy nodes/MaxEntropyL2/model.safetensors\n"
        "jemtrack deploy nodes/MaxEntropyL2/model.safetensors --formats onnx int8",
    )
    deploy.add_argument("model", type=_path, metavar="MODEL", help="a model.safetensors")
    deploy.add_argument(
        "--data", type=_path, metavar="FILE", help="the prepared images (those of PrepareData)"
    )
    deploy.add_argument(
        "--outliers", type=_path, metavar="FILE", help="images unlike them (of PrepareOutliers)"
    )
    deploy.add_argument(
        "--out", type=_path, default=Path("deployed"), metavar="FOLDER", help="(deployed)"
    )
    deploy.add_argument(
        "--formats", nargs="+", default=[], metavar="NAME", help="onnx, int8, openvino, ... (all)"
    )

    _add_threads(deploy)

    release = _add(
        commands,
        "release",
        "tag a version of an artifact of dvc.yaml",
        "Tag the last commit as a version of an artifact of dvc.yaml, such as a bundle, if all of "
        "it is committed and can be read. The tag is GTO's: `dvc artifacts get` and `gto show` "
        "know it.",
        "jemtrack release deploy v1.0.0\n"
        "dvc artifacts get REPOSITORY deploy --rev v1.0.0  # anywhere",
    )
    release.add_argument("name", metavar="NAME", help="in dvc.yaml: deploy, max-entropy-l2, ...")
    release.add_argument("version", metavar="VERSION", help="such as v1.0.0")


def _add_bundle(commands: Commands) -> None:
    """Add the commands that profile and serve a bundle."""
    profile = _add(
        commands,
        "profile",
        "time a bundle by batch size",
        "Time a bundle's model in a process of its own: latency with intervals, throughput and "
        "memory.",
        "jemtrack profile nodes/Deploy/bundle --batch-sizes 1 8 64",
    )
    profile.add_argument(
        "--batch-sizes", type=int, nargs="+", default=[1, 8, 64], metavar="N", help="(1 8 64)"
    )
    profile.add_argument("--iterations", type=int, default=100, metavar="N", help="(100)")

    serve = _add(
        commands,
        "serve",
        "serve a bundle over HTTP",
        "Serve a bundle's model: POST a PNG, an npy or raw pixels to /predict; /health, /ready, "
        "/metadata, /metrics and /docs; and a page to drop an image on.",
        "jemtrack serve nodes/Deploy/bundle --port 8000",
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    serve.add_argument(
        "--port", type=int, default=8000, metavar="N", help="0 for a free one (8000)"
    )
    serve.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that run the model (one a core, up to 8)",
    )
    serve.add_argument(
        "--max-body", type=int, default=2**24, metavar="BYTES", help="of a request (16777216)"
    )
    serve.add_argument(
        "--max-waiting", type=int, default=1024, metavar="N", help="images that wait (1024)"
    )
    for command in (profile, serve):
        command.add_argument("bundle", type=_path, metavar="BUNDLE", help="the folder")
        command.add_argument(
            "--model", default="model.onnx", metavar="FILE", help="of the bundle (model.onnx)"
        )
        _add_threads(command)


def _add_threads(command: argparse.ArgumentParser) -> None:
    command.add_argument("--threads", type=int, default=1, metavar="N", help="of the CPU (1)")


def _add_bench(commands: Commands) -> None:
    """Add the benchmarks, which only a checkout of the project has."""
    bench = _add(
        commands,
        "bench",
        "time jemtrack against plain reference loops",
        "Time jemtrack and plain PyTorch loops in turns: a benchmark per row of the printed table.",
        "jemtrack bench --row stage --images 2000 --epochs 2",
    )
    bench.add_argument(
        "--row",
        dest="rows",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="run only the benchmarks with these names in the table's first column (all)",
    )
    bench.add_argument("--precision", metavar="fp32|bf16-mixed|both", help="of jemtrack's side")
    bench.add_argument("--threads", type=int, metavar="N", help="threads of the CPU (2)")
    bench.add_argument("--turns", type=int, metavar="N", help="timed turns of each side")
    bench.add_argument(
        "--images", type=int, metavar="N", help="training images of the benchmark `stage`"
    )
    bench.add_argument("--epochs", type=int, metavar="N", help="epochs of the benchmark `stage`")
    bench.add_argument("--profile", action="store_true", help="print the top costs of a step")
    bench.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)  # for tests


def _add_completion(commands: Commands) -> None:
    completion = _add(
        commands,
        "completion",
        "print the script that completes commands in a shell",
        "Print the script by which a shell completes the commands and options of jemtrack.",
        "jemtrack completion bash > ~/.local/share/bash-completion/completions/jemtrack",
    )
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"))
