"""The graph of images from words: real commands, and a training that is killed in its steps."""

import json
import random
from dataclasses import replace

import pytest
from killing import killed, start, training_of, wait_for_steps
from PIL import Image
from project import Project

STAGES = ["PrepareData", "TrainFlux", "SampleFlux", "EvaluateFlux"]
MODEL = "nodes/TrainFlux/model.safetensors"
SMALL = {
    "PrepareData.params.dataset": "digits",
    "PrepareData.params.n_valid": 100,
    "TrainFlux.params.feature_maps_dim": 8,
    "TrainFlux.params.text_embedding_dim": 8,
    "TrainFlux.params.n_samples": 0,
    "TrainFlux.params.threads": 1,
    "SampleFlux.params.captions": ["the digit seven", "the digit one"],
    "SampleFlux.params.n": 3,
    "SampleFlux.params.threads": 1,
    "EvaluateFlux.params.n_images": 60,
    "EvaluateFlux.params.judge_steps": 60,
    "EvaluateFlux.params.evaluations": [2, 4],
    "EvaluateFlux.params.threads": 1,
}


def write(graph: Project) -> None:
    replace(graph, path=graph.path.parents[1]).run("jemtrack", "graph", "--workflow", "flux")


@pytest.fixture
def graph(project: Project) -> Project:
    """Return the folder of the graph, on the digits, with small parameters."""
    project.run("jemtrack", "data", "digits")
    project.run("jemtrack", "graph", "--workflow", "flux")
    made = replace(project, path=project.path / "workflows" / "flux")
    for name, value in SMALL.items():
        made.set(name, value)
    recipe = made.read("params.yaml")["TrainFlux"]["recipe"]
    for step in recipe["steps"]:
        step["max_steps"] = 6
    made.set("TrainFlux.recipe", recipe)
    write(made)
    return made


def test_the_graph_trains_draws_and_measures(graph: Project):
    assert "4 stages" in graph.run("jemtrack", "check")
    assert graph.repro() == STAGES
    assert graph.repro() == []

    folder = graph.path / "nodes"
    metrics = json.loads((folder / "EvaluateFlux" / "metrics.json").read_text())
    assert metrics["test_images"]["judged_right"] > 0.3
    assert metrics["reconstructions"].keys() == {"judged_right", "distance", "psnr"}
    assert metrics["samples_with_guidance"]["evaluations"] == 16
    assert metrics["samples_without_guidance"]["evaluations"] == 8
    assert metrics["samples_without_guidance"]["memorised"] > 0
    assert (folder / "EvaluateFlux" / "curve.csv").read_text().count("\n") == 5
    report = (folder / "EvaluateFlux" / "report.html").read_text()
    assert report.count("<svg") == 3
    assert report.count("data:image/png") == 4
    assert Image.open(folder / "SampleFlux" / "samples.png").width == 8 * (3 * 9 + 1)
    graph.set("SampleFlux.sampler.n_steps", 3)
    assert graph.repro() == ["SampleFlux"]
    # A training may start from the model of another, whose sizes are its own.
    (graph.path / "start.safetensors").write_bytes((graph.path / MODEL).read_bytes())
    graph.set("TrainFlux.params.load_path", "start.safetensors")
    graph.set("TrainFlux.params.feature_maps_dim", 16)
    write(graph)
    refused = graph.run("dvc", "repro", "TrainFlux", fails=True)
    assert "load_path must be a model of the sizes of this training, but feature_maps" in refused
    graph.set("TrainFlux.params.feature_maps_dim", 8)
    assert graph.repro("TrainFlux") == ["TrainFlux"]


@pytest.mark.soak
@pytest.mark.parametrize("processes", [1, 2])
def test_a_recipe_killed_in_each_of_its_steps_ends_with_the_same_bytes(
    graph: Project, processes: int
):
    graph.set("TrainFlux.params.processes", processes)
    graph.set("TrainFlux.params.batch_size", 33)  # shards of unequal length
    recipe = graph.read("params.yaml")["TrainFlux"]["recipe"]
    recipe["steps"][-1]["n_epochs"] *= 3  # a busy machine may see the last goal late
    graph.set("TrainFlux.recipe", recipe)
    graph.repro("TrainFlux")
    whole = (graph.path / MODEL).read_bytes()
    steps = sorted(random.Random(processes).sample(range(1, 47), 6))
    command = "dvc", "repro", "--force", "--single-item", "TrainFlux"
    for step in steps:
        with killed(start(graph, *command)) as process:
            wait_for_steps(graph, step, process)
            training_of(graph).kill()
            process.wait()
        assert not (graph.path / MODEL).exists()

    assert "resum" in graph.run(*command)
    assert (graph.path / MODEL).read_bytes() == whole
