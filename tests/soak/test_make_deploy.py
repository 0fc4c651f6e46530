"""What `make deploy` does after `make repro`, command by command, up to a released version."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import httpx
from project import ROOT, Project


def deploy_commands() -> list[str]:
    recipe = re.search(r"^deploy:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    assert recipe
    return [line.strip().replace("$(TRAINER)", "MaxEntropyL2") for line in recipe[1].splitlines()]


def test_make_deploy_bundles_compares_serves_and_what_it_made_is_released(
    whole_reproduced, tmp_path
):
    project: Project = whole_reproduced
    *commands, serve = deploy_commands()
    # `jemtrack deploy` fails if it refuses a format, as int8 of a model that has hardly trained.
    said = {command: project.run("sh", "-c", f"{command} || true") for command in commands}
    assert "Running stage 'Deploy'" in said["dvc repro Deploy"]
    table = said["jemtrack deploy nodes/MaxEntropyL2/model.safetensors"]
    rows = [line.split()[0] for line in table.splitlines() if " MB " in line]
    assert {"pytorch", "onnx", "torch.export"} <= {*rows}
    assert "tensorrt is not available here, because" in table
    card = (project.path / "nodes" / "Deploy" / "bundle" / "card.md").read_text()
    assert "## By the evaluation, beside the other models" in card

    command = [*shlex.split(serve), "--port", "0"]
    started = {"cwd": project.path, "env": project.environment, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **started) as process:
        found = (re.search(r"running on (http://\S+)", line) for line in process.stderr)
        address = next(match[1] for match in found if match)
        assert "Drop a PNG" in httpx.get(address).text
        assert httpx.get(f"{address}/ready").json() == {"status": "ready"}
        process.terminate()

    # No stage is stale but the report, which shows all parameters.
    assert project.repro() == ["Report"]
    project.commit("a bundle")
    project.run("jemtrack", "release", "deploy", "v1.0.0")
    (tmp_path / "clean").mkdir()
    clean = Project(tmp_path / "clean")
    clean.run("dvc", "artifacts", "get", str(project.path), "deploy", "--rev", "v1.0.0")
    tested = clean.run(sys.executable, "bundle/predict.py", "--self-test")
    assert all(line.endswith("to the bit") for line in tested.splitlines())
    description = json.loads(Path(tmp_path, "clean", "bundle", "bundle.json").read_text())
    assert description["name"] == "MaxEntropyL2"
