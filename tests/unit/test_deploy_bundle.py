"""A bundle answers as the model does, keeps its promises, and stands alone."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from deployed import material, outliers, some_data

import jemtrack
from jemtrack.deploy import bundle as bundles
from jemtrack.deploy.bundle import INT8, Exported, fitted_models, write_bundle
from jemtrack.deploy.figures import refuse_worse
from jemtrack.deploy.gradient import mass_differences
from jemtrack.deploy.int8 import quantised
from jemtrack.deploy.predict import MODEL, Model, open_session, rows
from jemtrack.errors import InputError
from jemtrack.jem.networks.inference import noisy_batches
from jemtrack.jem.scores import model_outputs

OUTPUTS = {"logits", "probabilities", "log_density", "mahalanobis", "refused"}
IMAGES = some_data().test.images_NCHW


@pytest.fixture(scope="module")
def bundle(deployed_once) -> Path:
    return deployed_once / "bundle"


@pytest.fixture
def exported(deployed_once) -> Exported:
    found: Exported = torch.load(deployed_once / "exported.pt", weights_only=False)
    return found


def equal(found: dict, expected: dict) -> bool:
    return all(np.array_equal(found[name], expected[name]) for name in OUTPUTS)


def test_it_answers_as_the_model_that_it_was_made_of(deployed_once, bundle):
    model = Model(bundle)
    answers = model(IMAGES.numpy())

    trained = jemtrack.load_model(
        deployed_once / "Trained" / "model.safetensors", temperature=model.about["temperature"]
    )
    probabilities, density = trained.predict(IMAGES).numpy(), trained.log_density(IMAGES).numpy()
    np.testing.assert_allclose(answers["probabilities"], probabilities, rtol=0, atol=1e-5)
    np.testing.assert_allclose(answers["log_density"], density, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(answers["refused"], answers["log_density"] < model.threshold)
    assert answers["mahalanobis"].std() > 1


def test_the_temperature_is_the_one_that_calibrates_the_validation_images(deployed_once, bundle):
    trained = jemtrack.load_model(deployed_once / "Trained" / "model.safetensors")
    valid = some_data().valid

    temperature = trained.calibrate(valid.images_NCHW, valid.labels_N)
    assert Model(bundle).about["temperature"] == pytest.approx(temperature, rel=1e-4)


@pytest.mark.parametrize("file", [MODEL, INT8])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_batch_answers_what_single_images_do_to_the_bit(bundle, file, threads):
    model = Model(bundle, file, threads=threads)
    images = IMAGES.numpy()
    singles = [model(images[n : n + 1]) for n in range(len(images))]

    for size in (3, 16, len(images)):
        parts = [model(images[start : start + size]) for start in range(0, len(images), size)]
        for name in OUTPUTS:
            batched = np.concatenate([part[name] for part in parts])
            np.testing.assert_array_equal(batched, np.concatenate([one[name] for one in singles]))


@pytest.mark.parametrize("file", [MODEL, INT8])
def test_of_the_validation_images_all_below_the_kth_are_refused(bundle, file):
    """N = 59, alpha = .05: k = floor(.05 * 60) = 3, and two of them are below the third."""
    valid = some_data().valid.images_NCHW.numpy()

    assert Model(bundle, file)(valid)["refused"].sum() == 2


def test_another_threshold_can_be_given_and_the_default_is_in_the_file(bundle):
    images = IMAGES.numpy()
    model = Model(bundle)
    assert Model(bundle, threshold=-1e30)(images)["refused"].sum() == 0
    assert Model(bundle, threshold=1e30)(images)["refused"].all()

    alone = open_session((bundle / MODEL).read_bytes())
    (refused,) = alone.run(["refused"], {"images": images})
    np.testing.assert_array_equal(refused, model(images)["refused"])
    notes = alone.get_modelmeta().custom_metadata_map
    assert float(notes["threshold"]) == model.threshold
    assert json.loads(notes["classes"]) == ["0", "1", "2", "3"]


def test_the_description_says_what_was_measured(bundle):
    found = Model(bundle).description
    images = IMAGES.numpy()
    answers = Model(bundle)(images)

    figures = found["models"][MODEL]["figures"]
    right = answers["probabilities"].argmax(1) == some_data().test.labels_N.numpy()
    chosen = answers["probabilities"][np.arange(len(images)), some_data().test.labels_N]
    assert figures["accuracy"] == pytest.approx(right.mean())
    assert figures["nll"] == pytest.approx(-np.log(chosen.astype(float)).mean(), rel=1e-4)
    assert figures["refused"] == pytest.approx(answers["refused"].mean())
    others = Model(bundle)(outliers()["uniform"].numpy())["log_density"]
    above = (answers["log_density"][:, None] > others).mean()
    assert figures["auroc"] == pytest.approx(above, abs=1e-6)
    assert found["models"][INT8]["bytes"] == (bundle / INT8).stat().st_size
    assert found["measured_on"]["n_valid"] == 59


def test_no_local_path_is_in_a_graph(bundle):
    for file in (MODEL, INT8):
        content = (bundle / file).read_bytes()
        for path in (str(Path.home()), str(Path(jemtrack.__file__).parents[2]), "site-packages"):
            assert path.encode() not in content


def test_the_same_inputs_give_the_same_bytes(exported, deployed_once, bundle, tmp_path):
    write_bundle(exported, material(deployed_once), tmp_path)

    names = sorted(path.name for path in bundle.iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir())
    for name in names:
        assert (tmp_path / name).read_bytes() == (bundle / name).read_bytes(), name


def test_a_graph_that_does_not_agree_with_pytorch_is_refused(exported, deployed_once, tmp_path):
    weight = next(each for each in exported.graph.graph.initializer if len(each.dims) == 4)
    values = onnx.numpy_helper.to_array(weight) * 1.001
    weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), weight.name))

    with pytest.raises(InputError, match=r"^Trained: model.onnx is refused: its \w+ must differ"):
        write_bundle(exported, material(deployed_once), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_an_int8_model_out_of_its_tolerance_is_refused_and_said_so(
    exported, deployed_once, tmp_path, monkeypatch
):
    def of_black_images(graph: onnx.ModelProto, images_NCHW: np.ndarray) -> onnx.ModelProto:
        return quantised(graph, 0 * images_NCHW)

    monkeypatch.setattr(bundles, "quantised", of_black_images)
    given = material(deployed_once)
    models, refused = fitted_models(exported, given)
    assert [*models] == [MODEL]
    assert refused.startswith(
        f"Trained: {INT8} is refused: its accuracy may be worse by at most 0.005, got"
    )

    (tmp_path / INT8).write_bytes(b"of an earlier bundle")
    write_bundle(exported, given, tmp_path)
    assert not (tmp_path / INT8).exists()
    assert refused in (tmp_path / "card.md").read_text()


@pytest.mark.parametrize(
    ("name", "better", "worse"), [("accuracy", 0.93, 0.89), ("nll", 0.87, 0.91), ("auroc", 1, 0)]
)
def test_a_figure_may_be_better_but_not_worse_than_its_bound(name, better, worse):
    refuse_worse("small", {name: better}, {name: 0.9}, {name: 0.005})
    for value in (worse, float("nan")):
        with pytest.raises(InputError, match=f"small is refused: its {name} may be worse by at"):
            refuse_worse("small", {name: value}, {name: 0.9}, {name: 0.005})


def test_int8_weights_leave_room_in_the_sums_of_processors_without_vnni(bundle):
    """They add two products in 16 bits, 2 * 255 * 64, and would cut off what is larger."""
    kernels = [
        onnx.numpy_helper.to_array(each)
        for each in onnx.load(bundle / INT8).graph.initializer
        if each.data_type == onnx.TensorProto.INT8 and len(each.dims) == 4
    ]
    assert kernels
    assert {int(np.abs(each.astype(int)).max()) for each in kernels} == {64}


def test_what_links_to_a_file_of_an_earlier_bundle_keeps_its_content(
    exported, deployed_once, bundle, tmp_path
):
    """As DVC's cache does, by either kind of link."""
    folder, cache = tmp_path / "bundle", tmp_path / "cache"
    shutil.copytree(bundle, cache)
    folder.mkdir()
    (folder / MODEL).symlink_to(cache / MODEL)
    for name in ("card.md", "bundle.json", INT8):
        (folder / name).hardlink_to(cache / name)
    write_bundle(exported, material(deployed_once, alpha=0.1, int8=False), folder)

    for name in (MODEL, "card.md", "bundle.json", INT8):
        assert (cache / name).read_bytes() == (bundle / name).read_bytes(), name
    assert Model(folder).description["alpha"] == 0.1
    assert not (folder / INT8).exists()


def test_a_model_in_the_folder_that_one_is_in_has_its_name(deployed_once, monkeypatch):
    given = material(deployed_once)
    monkeypatch.chdir(deployed_once / "Trained")

    assert replace(given, path=Path("model.safetensors")).name == "Trained"


def test_outliers_of_another_shape_are_told(deployed_once):
    coloured = {"coloured": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}
    with pytest.raises(
        InputError, match=r"outliers 'coloured' must be images of \(1, 8, 8\), .* 8\)"
    ):
        replace(material(deployed_once), outliers=coloured)


def test_a_mass_that_does_not_agree_with_pytorch_is_refused(exported):
    network, images = exported.module.network, some_data().test.images_NCHW
    batches = noisy_batches(images, 0.0, 0)
    outputs = model_outputs(network, batches, lambda features_NF: features_NF[:, 0])
    mass_N = outputs.approximate_mass_N.numpy()

    assert mass_differences(network, images, mass_N) == {"difference": 0, "largest": 0}
    near = mass_differences(network, images, mass_N * 1.0005)
    assert near == pytest.approx({"difference": 0.0005, "largest": 0.0005})
    for wrong in (1.002, np.nan):
        with pytest.raises(InputError, match="approximate_mass is refused: it must differ by at"):
            mass_differences(network, images, mass_N * wrong)


def test_the_card_has_alpha_and_the_largest_differences(exported, deployed_once, tmp_path):
    given = material(deployed_once, alpha=0.0225, int8=False)
    found = write_bundle(exported, given, tmp_path)["models"][MODEL]["differences"]

    text = (tmp_path / "card.md").read_text()
    assert "at most 2.25% are refused" in text
    assert f"Mahalanobis score, as a share of it | {found['mahalanobis']:.4g} |" in text


def test_too_few_validation_images_are_told(deployed_once):
    with pytest.raises(InputError, match=r"alpha must be >= 1 / \(N \+ 1\) = 0.0167 .* got 0.01"):
        material(deployed_once, alpha=0.01)


# Prints the seconds until the first answer, and the peak memory in MiB. `ru_maxrss` would count the
# parent's, before the exec.
FIRST_ANSWER = """
import re, sys, time
started = time.perf_counter()
import numpy as np, predict
model = predict.Model(".")
model(np.load("samples.npz")["images"][:1])
seconds = time.perf_counter() - started
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
print(seconds, int(peak[1]) / 1024)
assert not {"torch", "jemtrack", "onnx", "pydantic", "PIL"} & {*sys.modules}
"""


@pytest.fixture
def alone(bundle, tmp_path) -> dict[str, str]:
    """Copy the bundle into tmp_path; the environment of a Python with two packages."""
    shutil.copytree(bundle, tmp_path / "copy")
    packages = Path(sysconfig.get_path("purelib"))
    (tmp_path / "only").mkdir()
    for name in ("numpy", "numpy.libs", "onnxruntime"):
        (tmp_path / "only" / name).symlink_to(packages / name)
    return {**os.environ, "PYTHONPATH": str(tmp_path / "only")}


def test_alone_with_numpy_and_onnxruntime_it_answers_with_the_stored_bits(alone, tmp_path):
    folder = tmp_path / "copy"

    def python(*arguments: str) -> str:
        command = [sys.executable, "-S", *arguments]
        ran = subprocess.run(command, cwd=folder, env=alone, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    lines = python("predict.py", "--self-test").splitlines()
    assert len(lines) == 2 * len(OUTPUTS)
    assert all(line.endswith("as stored, to the bit") for line in lines)
    np.save(folder / "some.npy", IMAGES[:3].numpy())
    printed = [json.loads(line) for line in python("predict.py", "some.npy").splitlines()]
    expected = rows(Model(folder)(IMAGES[:3].numpy()), ["0", "1", "2", "3"])
    assert printed == [{"image": "some.npy", **row} for row in expected]
    seconds, mib = map(float, python("-c", FIRST_ANSWER).split())
    print(f"first answer after {seconds:.2f} s, {mib:.0f} MiB")
    assert mib < 80
