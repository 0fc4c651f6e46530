"""Every parameter does something that can be seen, and no parameter undoes the reproducibility.

The stages are declared, written into the graph's files and run here, in this process.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from stage_runs import (
    N_CLASSES,
    SMALL,
    are_equal,
    final_metrics_in,
    history_in,
    metrics_in,
    model_in,
    prepared_file,
    ran,
    weights_in,
)
from torch import nn

from jemtrack.data.images import DataSplits, LabelledImages
from jemtrack.data.sources.fetch import fetch
from jemtrack.jem.networks.model_file import load_model
from jemtrack.jem.networks.norms import ActNorm
from jemtrack.jem.objectives.max_entropy_l1 import MaxEntropyL1Objective
from jemtrack.jem.objectives.sampled_jem import SampledJEMObjective
from jemtrack.jem.training.batches import Batch
from jemtrack.shared.hardware import chosen_device
from jemtrack.stages.draw_samples import SampleArgs
from jemtrack.stages.evaluate_x import EvalArgs, EvaluateX
from jemtrack.stages.max_entropy_l1 import MaxEntropyL1
from jemtrack.stages.max_entropy_l2 import MaxEntropyL2
from jemtrack.stages.measure_robustness import RobustnessArgs
from jemtrack.stages.prepare_data import DataArgs, PrepareData
from jemtrack.stages.prepare_outliers import OutlierArgs
from jemtrack.stages.sampled_jem import SampledJEM
from jemtrack.stages.train_args import TrainArgs
from jemtrack.stages.trainer import Trainer
from jemtrack.stages.x_entropy_augmented import XEntropyAugmented
from jemtrack.train.launch import Runtime
from jemtrack.workflows.default import write_graph

# fmt: off
OF_THE_SOURCE = [
    "norm", "load_path", "experiment", "dataset", "n_classes", "n_steps", "width", "depth", "sigma",
    "data_root", "seed", "lr", "clf_only", "labels_per_class", "batch_size", "n_epochs",
    "dropout_rate", "weight_decay", "save_dir", "ckpt_every", "eval_every", "print_every",
    "print_to_log", "n_valid",
]
# fmt: on


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, which everything here stands in."""
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(cls: type[Trainer] = XEntropyAugmented, **changed: Any) -> Path:
    own = {"objective": changed.pop("objective")} if "objective" in changed else {}
    params = TrainArgs(**{**SMALL, **changed})
    return ran(cls(data=prepared_file(), params=params, **own))


def prepared(**changed: Any) -> DataSplits:
    fetch("digits", Path(changed.get("data_root", "data")))
    return DataSplits.load(ran(PrepareData(params=DataArgs(**changed))) / "images.safetensors")


def test_the_24_fields_of_the_source_stand_in_one_stage_each():
    fields = Counter(
        field.name for cls in (DataArgs, TrainArgs, EvalArgs) for field in dataclasses.fields(cls)
    )

    assert len(OF_THE_SOURCE) == 24
    assert {name: fields[name] for name in OF_THE_SOURCE} == dict.fromkeys(OF_THE_SOURCE, 1)


def test_params_yaml_shows_every_field_under_its_stage_with_its_default():
    write_graph()

    shown = yaml.safe_load(Path("params.yaml").read_text())
    classes = {
        "PrepareData": DataArgs,
        "PrepareOutliers": OutlierArgs,
        "MeasureRobustness": RobustnessArgs,
        "DrawSamples": SampleArgs,
        "EvaluateX": EvalArgs,
    }
    assert len(shown) == 8
    for stage, values in shown.items():
        del values["params"]["_cls"]
        expected = classes.get(stage, TrainArgs)()
        assert values["params"] == dataclasses.asdict(expected)


@pytest.mark.parametrize(
    ("norm", "layer"),
    [
        ("none", nn.Identity),
        ("batch", nn.BatchNorm2d),
        ("instance", nn.InstanceNorm2d),
        ("layer", nn.GroupNorm),
        ("act", ActNorm),
    ],
)
def test_norm_is_the_saved_model_s(norm, layer):
    model = model_in(trained(norm=norm)).model

    assert type(model.trunk.norm) is layer
    assert all(type(block.norm1) is type(block.norm2) is layer for block in model.trunk.blocks)


def test_width_and_depth_are_the_saved_model_s():
    small, wide, deep = (
        model_in(trained(**{"width": 1, **c})).model for c in ({}, {"width": 2}, {"depth": 16})
    )

    assert [m.class_head.in_features for m in (small, wide, deep)] == [64, 128, 64]
    assert [len(m.trunk.blocks) for m in (small, wide, deep)] == [3, 3, 6]


def first_batch(data: DataSplits | None = None, **changed: Any) -> Batch:
    data = data or DataSplits.load(prepared_file())
    params = TrainArgs(**{**SMALL, **changed})
    (phase,) = (
        MaxEntropyL1(data="unused", params=params)
        .training(data, Runtime(chosen_device("auto")))
        .phases
    )
    return next(iter(phase.batches.epoch(0)))


def test_sigma_is_the_standard_deviation_of_the_noise():
    grey = LabelledImages(torch.full((200, 1, 8, 8), 51, dtype=torch.uint8), torch.arange(200) % 4)
    data = DataSplits("grey", N_CLASSES, False, 1, grey, grey, grey)

    noises = [
        (first_batch(data, sigma=sigma, batch_size=200).images_BCHW + 0.6).std(unbiased=False)
        for sigma in (0.0, 0.1, 0.5)
    ]

    # 12800 values: the standard deviation of a standard deviation is a 160th of it.
    assert noises[1:] == [pytest.approx(0.1, rel=0.03), pytest.approx(0.5, rel=0.03)]
    assert noises[0] < 1e-6
    assert model_in(trained(sigma=0.5)).metadata["sigma"] == "0.5"


def test_n_steps_is_the_length_of_the_chains():
    without, one, two = (final_metrics_in(trained(n_steps=n)) for n in (0, 1, 2))

    assert "chain_log_density" not in without
    # A step climbs the log density.
    assert two["chain_log_density"] > one["chain_log_density"]


def test_n_steps_is_the_length_of_the_chains_that_are_trained_on():
    buffer = {"objective": SampledJEMObjective(buffer_size=20)}
    one, two = (weights_in(trained(SampledJEM, n_steps=n, **buffer)) for n in (1, 2))
    assert not are_equal(one, two, "trunk.")
    with pytest.raises(SystemExit, match=r"^SampledJEM: params.yaml: .* n_steps must be >= 1"):
        trained(SampledJEM, n_steps=0, **buffer)


def test_the_first_trainer_says_what_the_objective_of_another_one_lacks():
    data = prepared_file()
    nodes = [each(data=data, params=TrainArgs(**SMALL)) for each in (MaxEntropyL2, SampledJEM)]

    message = "^MaxEntropyL2: params.yaml: SampledJEM: n_steps must be >= 1 for an objective with"
    with pytest.raises(SystemExit, match=message):
        ran(*nodes)


def test_uncond_takes_the_density_from_the_energy_head():
    with_head = trained(MaxEntropyL2, uncond=True)
    model, shape, _ = model_in(with_head)

    assert model.uncond
    assert shape.uncond
    start = weights_in(trained(MaxEntropyL2, uncond=True, lr=1e-30))
    assert not are_equal(start, model.state_dict(), "energy_head.weight")
    start = weights_in(trained(MaxEntropyL2, lr=1e-30))
    assert are_equal(start, weights_in(trained(MaxEntropyL2)), "energy_head.")


@pytest.mark.parametrize(
    "changed",
    [
        {"lr": 1e-4},
        {"optimizer": "Lion"},
        {"optimizer": {"type": "Adam", "betas": [0.5, 0.9]}},
        {"optimizer": "torch.optim.Adagrad"},
        {"schedule": "OneCycleLR"},
        {"warm_up_steps": 100},
        {"weight_decay": 0.1},
        {"batch_size": 8},
        {"n_epochs": 2},
        {"dropout_rate": 0.3},
        {"sigma": 0.2},
        {"labels_per_class": 1},
    ],
)
def test_what_steers_training_gives_other_weights(changed):
    assert not are_equal(weights_in(trained()), weights_in(trained(**changed)), "trunk.")


def test_a_cosine_lowers_the_rate_after_the_first_epoch():
    for n_epochs, equal in ((1, True), (2, False)):
        both = [weights_in(trained(n_epochs=n_epochs, schedule=s)) for s in ("constant", "cosine")]
        assert are_equal(*both, "trunk.") == equal


def test_epochs_and_batches_are_as_many_as_were_asked_for():
    folder = trained(n_epochs=3, batch_size=20, print_every=1, print_to_log=True)

    assert history_in(folder).epoch.tolist() == [1, 2, 3]
    lines = Path("experiment/energy_model/XEntropyAugmented/train.log").read_text()
    assert re.findall(r"Batch (\d)/3 \| loss", lines) == ["1", "2", "3"] * 3


def test_weight_decay_pulls_the_weights_to_zero():
    plain, decayed = (weights_in(trained(weight_decay=w)) for w in (0.0, 0.5))

    assert decayed["class_head.weight"].norm() < plain["class_head.weight"].norm()


def test_load_path_is_where_training_starts_and_clf_only_trains_the_head_alone():
    start = trained(n_epochs=4, norm="batch").rename("start") / "model.safetensors"
    begun = load_model(start).model.state_dict()

    near = weights_in(trained(norm="batch", load_path=str(start), lr=1e-9))
    for name in begun:
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(near[name], begun[name], rtol=0, atol=1e-7)
    far = weights_in(trained(norm="batch", lr=1e-9))
    assert (far["trunk.stem.weight"] - begun["trunk.stem.weight"]).abs().max() > 1e-3

    head = weights_in(trained(norm="batch", load_path=str(start), clf_only=True, lr=0.01))
    # Running statistics too: a frozen trunk does not see the new images.
    assert are_equal(begun, head, "trunk.")
    assert are_equal(begun, head, "energy_head.")
    assert (head["class_head.weight"] - begun["class_head.weight"]).abs().min() > 0


def test_load_path_is_an_input_of_the_stage():
    start = trained().rename("start") / "model.safetensors"
    trained(load_path=str(start))

    stages = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]
    assert str(start) in stages["XEntropyAugmented"]["deps"]


def test_labels_per_class_hides_the_other_labels():
    data = DataSplits.load(prepared_file())

    few = first_batch(data, labels_per_class=2, batch_size=48)
    all_labelled = [first_batch(data, labels_per_class=n, batch_size=48) for n in (-1, 0)]

    assert few.labels_B.bincount().tolist() == [2] * N_CLASSES
    assert len(few.density_images_BCHW) == 48
    for batch in all_labelled:
        assert batch.labels_B.bincount().tolist() == [12] * N_CLASSES
        assert batch.density_images_BCHW is None


def test_experiment_and_save_dir_are_where_logs_and_checkpoints_go():
    trained(experiment="mine", save_dir="some/where", ckpt_every=2, n_epochs=5, print_to_log=True)

    folder = Path("some/where/mine/XEntropyAugmented")
    assert sorted(path.name for path in folder.iterdir()) == [
        "epoch_002.safetensors",
        "epoch_004.safetensors",
        "train.log",
    ]
    assert "mine/XEntropyAugmented | Epoch 5/5" in (folder / "train.log").read_text()
    load_model(folder / "epoch_002.safetensors")
    assert not Path("experiment").exists()


def test_without_ckpt_every_and_print_to_log_nothing_is_left_there(capfd):
    trained(print_every=2)

    assert not Path("experiment").exists()
    # 48 images in batches of 16.
    assert re.findall(r"Batch (\d)/3 \| loss", capfd.readouterr().err) == ["2"]


def test_eval_every_is_when_validation_is_looked_at():
    history = history_in(trained(eval_every=2, n_epochs=5))

    assert history.valid_accuracy.notna().tolist() == [False, True, False, True, True]
    assert history.train_loss.notna().all()


def test_n_valid_and_seed_are_the_split_s():
    first, again, seeded = prepared(), prepared(), prepared(seed=2)
    none, more = prepared(n_valid=0), prepared(n_valid=300)

    assert [len(data.valid) for data in (first, none, more)] == [180, 0, 300]
    assert [len(data.train) for data in (first, none, more)] == [1258, 1438, 1138]
    assert first.test.images_NCHW.equal(more.test.images_NCHW)
    for part in ("train", "valid", "test"):
        images, same, others = (getattr(d, part).images_NCHW for d in (first, again, seeded))
        assert images.equal(same)
        assert not images.equal(others)


def test_seed_gives_other_weights_and_the_trainers_know_it_from_the_data():
    params = TrainArgs(**{**SMALL, "lr": 1e-30})
    first, second = (
        weights_in(ran(XEntropyAugmented(data=prepared_file(seed), params=params)))
        for seed in (1, 2)
    )

    assert not are_equal(first, second, "trunk.stem.weight")


def bring_own(root: str, n: int, n_classes: int = 3) -> None:
    rng = np.random.default_rng(n)
    images = rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    np.savez("own.npz", images=images, labels=np.arange(n) % n_classes)
    fetch("mine", Path(root), Path("own.npz"))


def test_dataset_data_root_and_n_classes_are_the_images_and_the_logits():
    bring_own("data", 30)
    bring_own("elsewhere", 60)
    bring_own("more", 60, n_classes=5)
    sizes, heads = [], []
    for root, n_classes in (("data", 3), ("elsewhere", 3), ("more", 5)):
        params = DataArgs(dataset="mine", data_root=root, n_classes=n_classes, n_valid=6)
        node = PrepareData(params=params)
        trainer = XEntropyAugmented(data=node.images, params=TrainArgs(**SMALL))
        folder = ran(node, trainer)
        data = DataSplits.load(node.images)
        sizes.append(sum(len(part) for part in (data.train, data.valid, data.test)))
        heads.append(model_in(folder).model.class_head.out_features)
        deps = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]["PrepareData"]["deps"]
        assert f"{root}/mine" in deps

    assert (sizes, heads) == ([30, 60, 60], [3, 3, 5])
    assert (data.dataset, data.train.images_NCHW.shape[1:]) == ("mine", (3, 8, 8))


@pytest.mark.parametrize("changed", [{"entropy_weight": 0.0}, {"entropy_reduction": "sum"}])
def test_the_objective_s_own_parameters_act(changed):
    plain = trained(MaxEntropyL1, objective=MaxEntropyL1Objective())
    weights = weights_in(plain)

    assert not are_equal(
        weights, weights_in(trained(MaxEntropyL1, objective=MaxEntropyL1Objective(**changed)))
    )


def evaluated(models: Iterable[Path], **changed: Any) -> dict[str, dict[str, float]]:
    params = EvalArgs(**{"threads": 1, **changed})
    return metrics_in(ran(EvaluateX(data=prepared_file(), models=[*models], params=params)))


def test_the_evaluation_s_parameters_act_but_for_the_images_per_pass():
    models = [trained(sigma=0.5) / "model.safetensors"]
    test, train, valid, quiet, one_by_one = (
        evaluated(models, **changed)["XEntropyAugmented"]
        for changed in (
            {},
            {"split": "train"},
            {"split": "valid"},
            {"noise": False},
            {"images_per_pass": 5},
        )
    )

    assert len({metrics["nll"] for metrics in (test, train, valid, quiet)}) == 4
    assert one_by_one == pytest.approx(test, rel=1e-4)


@pytest.mark.parametrize("cls", [XEntropyAugmented, MaxEntropyL1, MaxEntropyL2])
def test_equal_parameters_give_equal_bytes(cls):
    def outs() -> dict[str, bytes]:
        folder = trained(cls, n_epochs=2, n_steps=2, dropout_rate=0.2, labels_per_class=3)
        torch.rand(3)  # what happened before in the process does not matter
        names = ("model.safetensors", "metrics.json", "history.csv")
        return {name: (folder / name).read_bytes() for name in names}

    assert outs() == outs()


def test_the_trainers_start_from_the_same_weights_and_see_the_same_first_batch():
    folders = [
        trained(cls, lr=1e-30, batch_size=12)
        for cls in (XEntropyAugmented, MaxEntropyL1, MaxEntropyL2)
    ]

    # At such a rate no weight moves, so that the cross entropy is that of the start on the batches.
    starts = [weights_in(folder) for folder in folders]
    assert are_equal(starts[0], starts[1])
    assert are_equal(starts[0], starts[2])
    assert len({final_metrics_in(folder)["train_cross_entropy"] for folder in folders}) == 1


def test_precision_is_that_of_the_arithmetic():
    full, mixed = (
        history_in(trained(precision=name)).valid_nll.iloc[-1] for name in ("fp32", "bf16-mixed")
    )

    assert full != mixed
    assert full == pytest.approx(mixed, rel=0.02)
    weights = weights_in(Path("nodes/XEntropyAugmented"))
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(SystemExit, match=r"params\.device must be cpu or auto, got 'cuda'"):
        trained(device="cuda")
