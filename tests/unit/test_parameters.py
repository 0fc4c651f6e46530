"""What the parameter classes take and refuse, by way of params.yaml as its writers write it."""

import ast
import dataclasses
import io
import json
import math
import re

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from jemtrack.data.corruptions import CORRUPTIONS
from jemtrack.errors import InputError
from jemtrack.evaluation.measures.calibration_measures import CalibrationMeasures
from jemtrack.jem.objectives.cross_entropy import CrossEntropy
from jemtrack.jem.objectives.max_entropy_l1 import MaxEntropyL1Objective
from jemtrack.jem.objectives.max_entropy_l2 import MaxEntropyL2Objective
from jemtrack.parameters import build, parameters, problem_lines
from jemtrack.project.params import structure_problems
from jemtrack.stages.draw_samples import SampleArgs
from jemtrack.stages.evaluate_x import EvalArgs
from jemtrack.stages.measure_robustness import RobustnessArgs
from jemtrack.stages.prepare_data import DataArgs
from jemtrack.stages.prepare_outliers import OutlierArgs
from jemtrack.stages.summarise_runs import SummaryArgs
from jemtrack.stages.train_args import TrainArgs
from jemtrack.train.optimizers import (
    SGD,
    Adam,
    AdamW,
    CosineAnnealingLR,
    OneCycleLR,
    OwnOptimizer,
    OwnScheduler,
)

WHERE = "params.yaml: AnyStage.params"

# What YAML can give for a value, by kind.
TEXTS = st.text(max_size=8)
WHOLE = st.integers(-(10**9), 10**9)
OTHERS = st.none() | st.lists(WHOLE, max_size=2) | st.dictionaries(TEXTS, WHOLE, max_size=2)
NOT_FINITE = st.sampled_from([math.nan, math.inf, -math.inf])


def between(low, high, **options):
    """Give numbers of an interval, and what is none of them."""
    inside = st.floats(low, high, allow_nan=False, allow_infinity=False, **options)
    below = st.floats(max_value=low, exclude_max=not options.get("exclude_min"), allow_nan=False)
    outside = [below]
    if high is not None:
        edge = not options.get("exclude_max")
        outside.append(st.floats(min_value=high, exclude_min=edge, allow_nan=False))
    return inside, TEXTS | st.booleans() | OTHERS | NOT_FINITE | st.one_of(outside)


def whole(low, high=None):
    outside = st.integers(max_value=low - 1)
    if high is not None:
        outside |= st.integers(min_value=high + 1)
    return st.integers(low, high), TEXTS | st.booleans() | OTHERS | st.floats() | outside


def choice(*names):
    others = TEXTS.filter(lambda text: text not in names)
    return st.sampled_from(names), others | st.booleans() | OTHERS | WHOLE


def text(good, bad=None):
    not_text = st.booleans() | OTHERS | st.floats() | WHOLE
    return good, not_text if bad is None else not_text | bad


SWITCH = st.booleans(), TEXTS | OTHERS | st.floats() | WHOLE
NO_NAMES = [
    "",
    ".",
    "..",
    "a/b",
    "/",
    "a b",
    "ä",
    "a'",
    "a;b",
    "-a",
    ".a",
    "_a",
    "a.",
    "a\0",
    "NUL",
]
NAME = text(
    st.from_regex(r"[D-Zd-z0-9][A-Za-z0-9_-]{0,99}", fullmatch=True).filter(lambda n: len(n) > 4),
    st.sampled_from([*NO_NAMES, "a\0", "a" * 101]),
)
PATHS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=50)
PATH = text(PATHS, st.sampled_from(["", "a\0b", "a" * 256, "a/" * 2049]))
MAYBE_PATH = (
    st.none() | PATHS,
    st.sampled_from(["", "a\0b"])
    | st.booleans()
    | OTHERS.filter(lambda value: value is not None)
    | WHOLE,
)
LEVEL = between(0.0, 1.0, exclude_min=True, exclude_max=True)


def listed(kind):
    """Give lists of a kind, and what is no list."""
    none = st.none() | st.dictionaries(TEXTS, WHOLE, max_size=2)
    return st.lists(kind[0], max_size=3), TEXTS | st.booleans() | WHOLE | none


DEPTH = (
    st.integers(1, 50).map(lambda n: 6 * n + 4),
    TEXTS | st.booleans() | OTHERS | st.floats() | WHOLE.filter(lambda n: n % 6 != 4 or n < 10),
)


def named(*names):
    """Give names, and what is neither a name nor a mapping."""
    others = TEXTS.filter(lambda text: text not in names and "." not in text)
    return st.sampled_from(names), others | st.booleans() | st.none() | st.lists(WHOLE) | WHOLE


MAX_ENTROPY = {
    "entropy_weight": between(0.0, None),
    "entropy_reduction": choice("mean", "sum"),
}
FIELDS = {
    DataArgs: {
        "dataset": NAME,
        "data_root": PATH,
        "n_classes": whole(2),
        "n_valid": whole(0),
        "seed": whole(0, 2**32 - 1),
        "n_folds": whole(0),
        "fold": whole(0),
    },
    TrainArgs: {
        "experiment": NAME,
        "save_dir": PATH,
        "depth": DEPTH,
        "width": whole(1, 1000),
        "norm": choice("none", "batch", "instance", "layer", "act"),
        "dropout_rate": between(0.0, 1.0, exclude_max=True),
        "uncond": SWITCH,
        "load_path": MAYBE_PATH,
        "clf_only": SWITCH,
        "optimizer": named("Adam", "AdamW", "SGD", "RMSprop", "Lion", "torch.optim.Adagrad"),
        "lr": between(0.0, None, exclude_min=True),
        "warm_up_steps": whole(0),
        "schedule": named("constant", "cosine", "OneCycleLR", "none"),
        "weight_decay": between(0.0, None),
        "batch_size": whole(1),
        "n_epochs": whole(1),
        "sigma": between(0.0, None),
        "labels_per_class": whole(-1),
        "n_steps": whole(0),
        "ckpt_every": whole(0),
        "eval_every": whole(1),
        "print_every": whole(1),
        "print_to_log": SWITCH,
        "device": choice("auto", "cpu", "cuda"),
        "precision": choice("fp32", "bf16-mixed"),
        "processes": whole(1),
        "nodes": (st.just(1), whole(1)[1]),  # as many as divide the processes
        "strategy": (st.just("auto"), choice("auto", "ddp")[1]),  # ddp: only of several processes
        "threads": whole(1, 1024),
    },
    EvalArgs: {
        "split": choice("test", "train", "valid"),
        "noise": SWITCH,
        "images_per_pass": whole(1),
        "n_train_images": whole(1),
        "n_resamples": whole(100),
        "level": LEVEL,
        "device": choice("auto", "cpu", "cuda"),
        "threads": whole(1, 1024),
    },
    OutlierArgs: {
        "partners": listed(NAME),
        "n_images": whole(1),
        "data_root": PATH,
    },
    RobustnessArgs: {
        "n_images": whole(1),
        "corruptions": listed(choice(*CORRUPTIONS)),
        "linf_radii": listed(between(0.0, None, exclude_min=True)),
        "l2_radii": listed(between(0.0, None, exclude_min=True)),
        "n_attacked": whole(1),
        "n_steps": whole(1),
        "images_per_pass": whole(1),
        "device": choice("auto", "cpu", "cuda"),
        "threads": whole(1, 1024),
    },
    SampleArgs: {
        "n_per_class": whole(1),
        "start": choice("uniform", "class_gaussians"),
        "device": choice("auto", "cpu", "cuda"),
        "threads": whole(1, 1024),
    },
    SummaryArgs: {"runs": choice("seeds", "folds")},
    CalibrationMeasures: {"n_bins": whole(1), "top_k": whole(1)},
    CrossEntropy: {},
    MaxEntropyL1Objective: MAX_ENTROPY,
    MaxEntropyL2Objective: MAX_ENTROPY,
}
WITH_FIELDS = [cls for cls, fields in FIELDS.items() if fields]

valid_values = st.sampled_from([*FIELDS]).flatmap(
    lambda cls: st.tuples(
        st.just(cls), st.fixed_dictionaries({name: good for name, (good, _) in FIELDS[cls].items()})
    )
)


def some_bad(cls, names):
    """Give values for all fields of `cls`, those of `names` bad ones."""
    kinds = {name: FIELDS[cls][name][name in names] for name in FIELDS[cls]}
    return st.tuples(st.just(cls), st.just(names), st.fixed_dictionaries(kinds))


one_bad = st.sampled_from([(cls, name) for cls in WITH_FIELDS for name in FIELDS[cls]]).flatmap(
    lambda chosen: some_bad(chosen[0], {chosen[1]})
)
several_bad = st.sampled_from(WITH_FIELDS).flatmap(
    lambda cls: st.sets(st.sampled_from([*FIELDS[cls]])).flatmap(lambda names: some_bad(cls, names))
)


TOO_LONG = r"\.\.\.: no file has a name of \d+ bytes"  # after the first characters of a path
N_SHOWN = 100


def written_value(line):
    """Read the value that a message shows."""
    hints = "put it into quotes|leave out the quotes|did you mean .*|there are .*"
    written = re.search(rf", got (.*?)(; ({hints})|{TOO_LONG})?$", line)[1]
    return ast.literal_eval(written) if written[0] in "'\"" else json.loads(written)


@pytest.mark.parametrize("cls", FIELDS)
def test_every_field_is_tested_here(cls):
    assert {field.name for field in dataclasses.fields(cls)} == FIELDS[cls].keys()


@given(chosen=valid_values)
def test_valid_values_come_back_from_the_file_as_they_were(chosen):
    cls, values = chosen

    read = yaml.safe_load(yaml.safe_dump(values))

    assert problem_lines(cls, read, WHERE) == []
    assert build(cls, read, WHERE) == cls(**values)
    assert dataclasses.asdict(build(cls, read, WHERE)) == values


@given(chosen=valid_values)
def test_numbers_and_switches_come_back_from_a_file_that_dvc_wrote(chosen):
    """Text does not always: DVC writes the text yes without quotes."""
    cls, values = chosen
    values = {name: value for name, value in values.items() if not isinstance(value, str)}
    file = io.StringIO()
    YAML().dump(values, file)

    assert build(cls, yaml.safe_load(file.getvalue()) or {}, WHERE) == cls(**values)


@given(chosen=one_bad)
def test_a_bad_value_is_told_in_one_line_by_its_path_and_itself(chosen):
    cls, (name,), values = chosen

    (line,) = problem_lines(cls, values, WHERE)

    assert line.startswith(f"{WHERE}.{name} must ")
    assert len(line.splitlines()) == 1
    shown = values[name][:N_SHOWN] if re.search(f"{TOO_LONG}$", line) else values[name]
    # repr, for nan is not equal to itself, and 1 is to True.
    assert repr(written_value(line)) == repr(shown)
    with pytest.raises(InputError, match=re.escape(line)):
        build(cls, values, WHERE)


def test_a_bad_entry_of_a_list_is_told_by_its_place():
    found = problem_lines(RobustnessArgs, {"l2_radii": [0.5, -1.0], "corruptions": [7]}, WHERE)

    assert found == [
        f"{WHERE}.corruptions.0 must be text, got 7; put it into quotes",
        f"{WHERE}.l2_radii.1 must be > 0, got -1.0",
    ]


@given(chosen=several_bad, unknown=st.none() | TEXTS.filter(str.isidentifier) | WHOLE)
def test_all_bad_values_and_names_are_told(chosen, unknown):
    cls, names, values = chosen
    assume(unknown not in values)
    if unknown is not None:
        values, names = {**values, unknown: 0}, names | {str(unknown)}

    found = problem_lines(cls, values, WHERE)

    paths = [line.split(" must ")[0].split(" is not a parameter ")[0] for line in found]
    assert sorted(paths) == sorted(f"{WHERE}.{name}" for name in names)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": -0.1}, "lr must be > 0, got -0.1"),
        ({"lr": "0.1"}, "lr must be a number, got '0.1'; leave out the quotes"),
        ({"lr": True}, "lr must be a number, got true"),
        ({"lr": None}, "lr must be a number, got null"),
        ({"n_epochs": "3"}, "n_epochs must be a whole number, got '3'; leave out the quotes"),
        ({"n_epochs": 2.0}, "n_epochs must be a whole number, got 2.0"),
        ({"experiment": 7}, "experiment must be text, got 7; put it into quotes"),
        ({"save_dir": ""}, "save_dir must not be empty, got ''"),
        ({"clf_only": 1}, "clf_only must be true or false, got 1"),
        ({"dropout_rate": 1.0}, "dropout_rate must be < 1, got 1.0"),
        ({"sigma": math.nan}, "sigma must be a finite number, got NaN"),
        ({"depth": 11}, "depth must be 6n + 4 with n >= 1: the nearest are 10 and 16, got 11"),
        (
            {"optimizer": "Adamm"},
            "optimizer must be an optimizer, got 'Adamm'; did you mean Adam?",
        ),
        ({"optimizer": {}}, "optimizer.type is missing"),
        (
            {"optimizer": {"type": "SGD", "momentum": 1}},
            "optimizer.momentum must be < 1, got 1",
        ),
        (
            {"optimizer": {"type": "SGD", "lr": 1}},
            "optimizer.lr is said by the parameter of this name, beside it",
        ),
        (
            {"optimizer": "mine.Sophia"},
            "optimizer must be the dotted path of a class, got 'mine.Sophia': there is no module "
            "'mine'",
        ),
        ({"schedule": {"type": "StepLR"}}, "schedule.step_size is missing"),
        ({"width_": 1}, "width_ is not a parameter of TrainArgs; did you mean width?"),
    ],
)
def test_messages_say_what_would_be_right(values, message):
    assert problem_lines(TrainArgs, values, WHERE) == [f"{WHERE}.{message}"]


def test_unknown_names_are_met_with_the_known_ones():
    (line,) = problem_lines(TrainArgs, {"learning_rate": 1.0}, WHERE)
    assert line.startswith(f"{WHERE}.learning_rate is not a parameter of TrainArgs; it has ")
    assert all(name in line for name in FIELDS[TrainArgs])

    (line,) = problem_lines(CrossEntropy, {"entropy_weight": 1.0}, WHERE)
    assert line == f"{WHERE}.entropy_weight is not a parameter of CrossEntropy; it has none"


def test_a_value_without_default_may_not_be_left_out():
    @parameters
    class Needs:
        what: int

    assert problem_lines(Needs, {}, WHERE) == [f"{WHERE}.what is missing"]


@pytest.mark.parametrize("number", ["1e-5", "1e-05", "2E+3", "-1.5e3", "1.e3", "1e3"])
def test_numbers_are_those_of_dvc(number):
    """PyYAML alone takes these for text; DVC reads numbers, and `dvc exp run -S` writes them."""
    assert yaml.safe_load(f"lr: {number}") == {"lr": float(number)}
    assert YAML(typ="safe").load(f"lr: {number}") == {"lr": float(number)}
    assert yaml.safe_load(f"lr: '{number}'") == {"lr": number}


@pytest.mark.parametrize("word", ["e5", "1e", "1e5x", "0x1e", "1e-", "v1e5"])
def test_other_words_are_no_numbers(word):
    assert type(yaml.safe_load(word)) is type(YAML(typ="safe").load(word)) is not float


def test_parameters_are_named_and_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainArgs().lr = 1.0
    with pytest.raises(ValueError, match="positional"):
        DataArgs("digits")


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ({"Stage": {"params": {"lr": 1.0}, "scale": 2}}, []),
        ({}, ["Stage is missing: `jemtrack graph` writes it"]),
        ({"Stage": None}, ["Stage must hold the stage's params, scale, got null"]),
        (
            {"Stage": {"params": {"lr": 1.0}}},
            ["Stage.scale is missing: `jemtrack graph` writes it"],
        ),
        (
            {"Stage": {"params": {}, "scale": 2}},
            ["Stage.params must hold names and values, got {}"],
        ),
        (
            {"Stage": {"params": 3, "scale": 2}},
            ["Stage.params must hold names and values, got 3"],
        ),
        (
            {"Stage": {"params": {"lr": 1.0}, "scale": 2, "scales": 3, 4: 5}},
            [
                "Stage.scales is not a field of the stage; did you mean scale?",
                "Stage.4 is not a field of the stage; it has params, scale",
            ],
        ),
    ],
)
def test_the_form_of_a_stage_is_that_which_the_graph_wrote(values, lines):
    written = {"params": {"_cls": "module.Class", "lr": 0.1}, "scale": 1.0}

    found = structure_problems("Stage", written, values)

    assert found == [f"params.yaml: {line}" for line in lines]


@pytest.mark.parametrize(
    ("values", "optimizer", "schedulers"),
    [
        ({}, Adam(lr=1e-3), {}),
        (
            {"lr": 0.1, "weight_decay": 0.2, "warm_up_steps": 5, "schedule": "cosine"},
            Adam(lr=0.1, weight_decay=0.2, warm_up_steps=5),
            {"network": CosineAnnealingLR()},
        ),
        ({"optimizer": "AdamW"}, AdamW(lr=1e-3, weight_decay=0.0), {}),
        (
            {"optimizer": {"type": "SGD", "momentum": 0.9, "nesterov": True}, "lr": 0.1},
            SGD(lr=0.1, momentum=0.9, nesterov=True),
            {},
        ),
        ({"schedule": "OneCycleLR"}, Adam(lr=1e-3), {"network": OneCycleLR()}),
        (
            {
                "optimizer": {"type": "torch.optim.Adagrad", "lr_decay": 0.1, "clip_norm": 1.0},
                "schedule": {"type": "torch.optim.lr_scheduler.PolynomialLR", "total_iters": 4},
            },
            OwnOptimizer(
                type="torch.optim.Adagrad", options={"lr_decay": 0.1, "lr": 1e-3}, clip_norm=1.0
            ),
            {
                "network": OwnScheduler(
                    type="torch.optim.lr_scheduler.PolynomialLR", options={"total_iters": 4}
                )
            },
        ),
    ],
)
def test_the_ordinary_training_has_the_optimizer_and_schedule_of_the_parameters(
    values, optimizer, schedulers
):
    """They come back from a file as they were written, and make the one step of the training."""
    params = build(TrainArgs, yaml.safe_load(yaml.safe_dump(values)), WHERE)
    step = params.ordinary_step()

    assert {name: getattr(params, name) for name in values} == values
    assert step.optimizers == {"network": optimizer}
    assert step.schedulers == schedulers
