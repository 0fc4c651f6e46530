"""A stage that trains in several processes, killed and gone on with under DVC."""

import json

from killing import killed, start, steps_saved, wait_for_steps
from project import Project

STAGE = "XEntropyAugmented"


def test_two_processes_train_a_stage_and_go_on_after_a_kill(whole_project: Project):
    project = whole_project
    for name, value in {"n_epochs": 2, "batch_size": 32, "processes": 2}.items():
        project.set(f"{STAGE}.params.{name}", value)
    project.commit("two processes")
    project.repro("PrepareData")

    with killed(start(project, "dvc", "repro", STAGE)) as process:
        wait_for_steps(project, 10, process)
    reached = steps_saved(project)
    said = project.run("dvc", "repro", STAGE)

    assert "resumes at phase train (1/1)" in said
    record = project.path / "nodes" / STAGE / "record"
    runs, steps = (
        [json.loads(line) for line in (record / name).read_text().splitlines()]
        for name in ("run.jsonl", "train.jsonl")
    )
    starts = [line["global_step"] for line in runs if line["event"] == "run_start"]
    assert starts == [0, reached]
    assert [line["global_step"] for line in steps] == [*range(1, 81)]
    assert len(project.read(f"nodes/{STAGE}/metrics.json")) > 0
