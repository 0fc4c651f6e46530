"""Each format answers as PyTorch does, or says why it cannot."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from deployed import material, outliers, some_data
from torch import nn

import jemtrack
from jemtrack.commands.main import main
from jemtrack.deploy import formats
from jemtrack.deploy.bundle import Exported
from jemtrack.deploy.comparison import compare_formats
from jemtrack.deploy.formats import FORMATS, Source, written
from jemtrack.deploy.predict import Model, read_description
from jemtrack.errors import InputError


@pytest.fixture(scope="module")
def source(deployed_once) -> Source:
    exported: Exported = torch.load(deployed_once / "exported.pt", weights_only=False)
    bundle = deployed_once / "bundle"
    return Source(bundle, read_description(bundle), exported)


def test_the_table_has_a_row_a_format_with_what_it_answers_or_why_not(
    source, deployed_once, tmp_path
):
    names = ["onnx", "int8", "openvino", "executorch", "tensorrt"]
    rows = compare_formats(source, material(deployed_once, threads=1), names, tmp_path, turns=2)

    found = {row.name: row for row in rows}
    assert [*found] == ["pytorch", *names]
    for name in ("onnx", "int8", "openvino"):
        row = found[name]
        assert not row.problem
        assert row.path.exists()
        assert row.size >= row.path.stat().st_size
        assert row.ms > 0
        assert row.per_second > 0
    assert found["int8"].size < found["onnx"].size
    assert found["openvino"].differences["probabilities"] < 1e-5
    models = source.description["models"]
    assert found["int8"].differences == pytest.approx(models["model.int8.onnx"]["differences"])
    assert found["openvino"].figures == pytest.approx(found["pytorch"].figures, abs=1e-5)
    why = "tensorrt is not available here, because it needs TensorRT and a GPU"
    assert found["tensorrt"].problem.startswith(why)
    assert not found["tensorrt"].refused
    assert np.isnan(found["tensorrt"].ms)
    assert "executorch is not available here, because" in found["executorch"].problem


def test_a_format_out_of_its_tolerance_is_refused_and_removed(
    source, deployed_once, tmp_path, monkeypatch
):
    """As OpenVINO is at the precision that it takes by itself, where the processor has bfloat16."""

    def off(path, threads):
        run = FORMATS["openvino"].open(path, threads)
        return lambda images: {
            name: values + 1e-3 if name == "log_density" else values
            for name, values in run(images).items()
        }

    monkeypatch.setitem(formats.FORMATS, "off", replace(FORMATS["openvino"], open=off))
    monkeypatch.setattr(formats, "NAMES", ("off",))
    rows = compare_formats(source, material(deployed_once), ["off"], tmp_path, turns=1)

    assert rows[1].refused
    assert rows[1].problem.startswith("off is refused: its log_density must differ by at most 0.00")
    assert not [*tmp_path.iterdir()]


def test_a_format_that_fails_is_a_row_and_leaves_no_file_of_an_earlier_call(
    source, deployed_once, tmp_path, monkeypatch
):
    def fail(source, path, precision):
        raise RuntimeError("C++ compile error\n\nCommand:\ng++ of an old kind")

    monkeypatch.setitem(FORMATS, "aotinductor", replace(FORMATS["aotinductor"], write=fail))
    refused = {"refused": "its nll is too large", "models": dict(source.description["models"])}
    del refused["models"]["model.int8.onnx"]
    alone = replace(source, description={**source.description, **refused})
    for name in ("aotinductor.pt2", "model.int8.onnx"):
        (tmp_path / name).write_bytes(b"of an earlier call")
    names = ["aotinductor", "int8", "onnx"]
    rows = compare_formats(alone, material(deployed_once), names, tmp_path, turns=1)

    assert [row.refused for row in rows] == [False, True, True, False]
    assert rows[1].problem == "aotinductor failed: C++ compile error Command: g++ of an old kind"
    assert rows[2].problem == "its nll is too large"
    assert rows[3].ms > 0
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_bundle_alone_is_converted_at_a_named_precision(deployed_once, tmp_path):
    converter = jemtrack.FormatConverter(deployed_once / "bundle" / "model.onnx")
    path = converter.convert("openvino", "fp16", tmp_path)

    images = some_data().test.images_NCHW.numpy()
    half = FORMATS["openvino"].open(path, 1)(images)
    expected = Model(deployed_once / "bundle")(images)
    np.testing.assert_allclose(half["probabilities"], expected["probabilities"], atol=0.02)
    assert path.with_suffix(".bin").stat().st_size < 0.6 * expected_size(deployed_once)
    for target, precision, message in [
        ("tensorrt", "fp16", "tensorrt is not available here, because it needs"),
        ("onnx", "fp16", "onnx is not available at fp16, because it is made at fp32 alone"),
        ("aotinductor", None, "^aotinductor is made of the PyTorch model, not of a bundle"),
        ("openvino", "bf16", "openvino is not available at bf16, because it is made at fp32 or"),
        ("other", None, "format must be one of onnx, int8, .*, got 'other'"),
    ]:
        with pytest.raises(InputError, match=message):
            converter.convert(target, precision, tmp_path)


def expected_size(folder) -> int:
    return (folder / "bundle" / "model.onnx").stat().st_size


def test_what_is_no_bundle_is_not_converted(tmp_path):
    with pytest.raises(InputError, match="is not a bundle of jemtrack"):
        jemtrack.FormatConverter(tmp_path)


def test_a_damaged_model_is_not_converted(deployed_once, tmp_path):
    bundle = Path(shutil.copytree(deployed_once / "bundle", tmp_path / "bundle"))
    content = (bundle / "model.onnx").read_bytes()
    (bundle / "model.onnx").write_bytes(content[:-1] + b"x")

    with pytest.raises(InputError, match=r"model\.onnx is damaged or altered"):
        jemtrack.FormatConverter(bundle)


def test_a_format_that_cannot_be_made_is_refused_before_a_bundle_is(deployed_once, tmp_path):
    exporter = jemtrack.ModelExporter(
        deployed_once / "Trained" / "model.safetensors", some_data(), outliers()
    )
    for name, precision in (("other", None), ("tensorrt", "fp16"), ("openvino", "int8")):
        with pytest.raises(InputError):
            exporter.export(tmp_path / "bundle", name, precision)
    assert not (tmp_path / "bundle").exists()


def test_what_is_missing_is_named(source, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="because the package openvino is not installed"):
        written("openvino", source, tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="because there is no C\\+\\+ compiler"):
        written("aotinductor", source, tmp_path)


def test_optimising_for_inference_keeps_the_outputs():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    norm(torch.randn(64, 4, 6, 6) * 3 + 1)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    optimized = jemtrack.optimize_for_inference(module, torch.randn(1, 1, 8, 8))

    assert all(each.training for each in module.modules())
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)
    module.eval()
    for size in (1, 5, 64):
        batch = torch.randn(size, 1, 8, 8)
        torch.testing.assert_close(optimized(batch), module(batch), rtol=1e-4, atol=1e-5)


def test_a_command_that_cannot_be_followed_says_why(deployed_once, tmp_path, capsys):
    some_data().save(tmp_path / "images.safetensors")
    model = str(deployed_once / "Trained" / "model.safetensors")
    for arguments, message in [
        ([model, "--formats", "other"], "--formats must be of onnx, int8, openvino"),
        ([model, "--data", "absent", "--out", str(tmp_path)], "absent"),
        (
            [model, "--data", str(tmp_path / "images.safetensors"), "--threads", "0"],
            "deploy.threads must be >= 1, got 0",
        ),
    ]:
        assert main(["deploy", *arguments]) == 1
        assert capsys.readouterr().err.startswith(f"jemtrack: {message}")
