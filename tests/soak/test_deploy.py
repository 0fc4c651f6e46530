"""What a bundle promises, over norms, processes and all formats; each export takes a while."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from deployed import make, material, some_data

import jemtrack
from benchmarks.deploy import promises, trained_material
from jemtrack.commands.main import main
from jemtrack.data.images import to_unit_range
from jemtrack.data.sources.fetch import fetch
from jemtrack.deploy.bundle import INT8, Exported, write_bundle
from jemtrack.deploy.comparison import compare_formats
from jemtrack.deploy.formats import Source
from jemtrack.deploy.predict import MODEL, Model, read_description, self_test
from jemtrack.errors import InputError
from jemtrack.jem.networks.inference import noisy_batches
from jemtrack.jem.scores import model_outputs

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("norm", ["none", "batch", "instance", "layer", "act"])
def test_with_each_norm_it_agrees_with_pytorch_and_a_batch_with_single_images(tmp_path, norm):
    within = {"accuracy_within": 1, "nll_within": 1, "auroc_within": 1}
    given = material(tmp_path, norm, gradient=True, **within)
    exported = Exported.of(given)
    write_bundle(exported, given, tmp_path / "bundle")  # which checks the former

    images = some_data().test.images_NCHW.numpy()
    for file in (MODEL, INT8):
        for threads in (1, 2):
            model = Model(tmp_path / "bundle", file, threads=threads)
            batch = model(images)
            for n in range(len(images)):
                for name, values in model(images[n : n + 1]).items():
                    np.testing.assert_array_equal(values[0], batch[name][n])
    batches = noisy_batches(some_data().test.images_NCHW, 0.0, 0)
    outputs = model_outputs(exported.module.network, batches, lambda f_NF: f_NF[:, 0])
    expected = outputs.approximate_mass_N.numpy()
    np.testing.assert_allclose(model.approximate_mass(images), expected, rtol=1e-3)
    np.testing.assert_allclose(model.approximate_mass(images[:1]), expected[:1], rtol=1e-3)
    assert "mass.onnx: approximate_mass as stored, to the bit" in self_test(tmp_path / "bundle")


def test_two_processes_write_the_same_bytes(tmp_path):
    code = "import sys, pathlib, deployed; deployed.make(pathlib.Path(sys.argv[1]))"
    found = []
    for name in ("one", "other"):
        path = f"{TESTS / 'unit'}:{TESTS / 'integration'}"
        command = [sys.executable, "-c", code, str(tmp_path / name)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path})
        files = sorted((tmp_path / name / "bundle").iterdir())
        found.append({each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in files})

    assert found[0] == found[1]


def test_the_compiled_formats_answer_as_pytorch_does(tmp_path):
    make(tmp_path)
    exported = torch.load(tmp_path / "exported.pt", weights_only=False)
    source = Source(tmp_path / "bundle", read_description(tmp_path / "bundle"), exported)
    names = ["aotinductor", "torch.export"]
    rows = compare_formats(source, material(tmp_path, threads=1), names, tmp_path / "out", turns=2)

    for row in rows:
        assert not row.problem
        assert row.figures == pytest.approx(rows[0].figures, abs=1e-5)
        assert row.ms > 0


def test_the_command_writes_and_prints_what_was_asked_for(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = material(tmp_path)
    given.data.save(tmp_path / "images.safetensors")
    command = ["deploy", str(given.path), "--data", "images.safetensors", "--formats", "onnx"]

    assert main(command) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines() if "MB" in line] == ["pytorch", "onnx"]
    assert Model("deployed/bundle").description["name"] == "Trained"
    assert main([*command, "tensorrt"]) == 1
    assert "tensorrt is not available here, because" in capsys.readouterr().out
    assert main([*command, "other"]) == 1
    assert "--formats must be of onnx, int8, openvino" in capsys.readouterr().err


def test_a_model_is_exported_converted_profiled_and_asked_from_python(tmp_path):
    """The seed's pipeline, on a path, as the docs have it."""
    given = material(tmp_path)
    given.data.save(tmp_path / "images.safetensors")
    exporter = jemtrack.ModelExporter(given.path, tmp_path / "images.safetensors")

    path = exporter.export(tmp_path / "exported", format="onnx")
    assert path == tmp_path / "exported" / MODEL
    converted = jemtrack.FormatConverter(path).convert(target_format="openvino", precision="fp32")
    assert converted == tmp_path / "openvino.fp32.xml"
    with pytest.raises(InputError, match="tensorrt is not available here, because"):
        exporter.export(tmp_path / "exported", format="tensorrt", precision="fp16")
    metrics = jemtrack.PerformanceProfiler(path.parent).profile([1, 8], num_iterations=20)
    assert (metrics["per_second"] > 0).all()
    images = given.data.test.images_NCHW.numpy()
    answers = jemtrack.Predictor(path.parent).predict(images)
    np.testing.assert_array_equal(answers["refused"], Model(path.parent)(images)["refused"])


def test_the_seeds_pipelines_run(tmp_path, monkeypatch):
    """Its examples of a predictor, a deployment, and of all parts from one configuration."""
    monkeypatch.chdir(tmp_path)
    fetch("digits", Path("data"))
    step = {"name": "train", "n_epochs": 3, "objective": {"type": "max_entropy_l2"}}
    config = {
        "model": {"width": 1},
        "training": {"threads": 1, "n_steps": 0, "pipeline": {"steps": [step]}},
        "deploy": {"accuracy_within": 1, "nll_within": 1, "threads": 1},
    }
    model = jemtrack.create_model(config)
    dataloader = jemtrack.create_dataloader("train", config)
    trainer = jemtrack.create_trainer(model, config)
    evaluator = jemtrack.create_evaluator(model, config)
    deployment = jemtrack.create_deployment(model, config)
    trainer.fit(dataloader)
    assert evaluator.evaluate(dataloader)["accuracy"] > 0.3
    with pytest.raises(InputError, match="tensorrt is not available here, because"):
        deployment.deploy(model_path="models/production/", format="tensorrt", optimize=True)
    deployed = deployment.deploy(model_path="models/production/", format="int8", optimize=True)
    assert deployed == Path("models/production/model.int8.onnx")
    assert [*Model("models/production").description["models"]] == [MODEL, INT8]

    class CustomPredictor(jemtrack.Predictor):
        def __init__(self, model, bundle):
            super().__init__(bundle)
            self.optimized = jemtrack.optimize_for_inference(model)

        def export_model(self, path):
            return jemtrack.ModelExporter(model).export(path, format="onnx", optimize=False)

        def predict(self, image):
            processed = torch.from_numpy(self.preprocess(image))
            return self.optimized(to_unit_range(processed[None]))

    predictor = CustomPredictor(model, "models/production")
    exported_path = predictor.export_model("models/exported/")
    image = model.data.test.images_NCHW[0]
    logits = Model("models/exported")(image[None].numpy())["logits"]
    torch.testing.assert_close(predictor.predict(image.numpy()), torch.from_numpy(logits))
    converter = jemtrack.FormatConverter(exported_path)
    assert converter.convert(target_format="openvino", precision="fp16").exists()
    metrics = jemtrack.PerformanceProfiler(exported_path).profile([1, 8], num_iterations=20)
    assert (metrics["p50_ms"] > 0).all()


def test_a_trained_models_bundle_keeps_its_promises(tmp_path):
    """int8 is as good, the float32 graph agrees, and no more is refused than alpha allows."""
    given = trained_material("digits", tmp_path, 600)
    description = write_bundle(Exported.of(given), given, tmp_path / "bundle")

    assert description["models"][MODEL]["figures"]["accuracy"] > 0.8  # it has learned something
    found = [*promises(description)]
    assert len(found) == 9
    assert [str(bar) for bar in found if not bar.met] == []


def test_the_benchmark_of_the_server_prints_a_line_a_bar(deployed_once):
    command = [sys.executable, "-m", "benchmarks.serving", str(deployed_once / "bundle")]
    command += ["--no-litserve", "--turns", "2"]
    ended = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=True)

    bars = [line for line in ended.stdout.splitlines() if line.startswith(("ok ", "NO "))]
    assert [re.search(r"(\d+) client", bar)[1] for bar in bars] == ["1", "8", "32"]
