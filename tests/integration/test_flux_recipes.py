"""`jemtrack train` on recipes of the family flux, in the form in which they are published."""

import re
from pathlib import Path

import pytest
from recipe_files import FLUX_COMPLETE

from jemtrack.commands.main import main
from jemtrack.data.sources.fetch import fetch
from jemtrack.flux.networks.model_file import load_models
from jemtrack.record.jsonl import read_lines

FLOW = """\
training:
  batch_size: 8
  threads: 1
  n_samples: 1
  pipeline:
    defaults:
      n_epochs: 1
      max_steps: 2
    steps:
      - {name: vae_warmup, train_vae: true}
      - {name: flow_training, train_diff_full: true, freeze: [compressor, expander]}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    fetch("digits", Path("data"))
    return tmp_path


def train(text: str) -> Path:
    Path("pipeline.yaml").write_text(text)
    assert main(["validate", "pipeline.yaml"]) == 0
    assert main(["train", "--config", "pipeline.yaml"]) == 0
    return Path("runs/pipeline")


def test_the_published_example_trains_as_it_stands(capsys):
    out = train(FLUX_COMPLETE)

    assert {*load_models(out / "model.safetensors").models} == {
        "compressor", "expander", "discriminator",
    }  # fmt: skip
    first, second = ([*read_lines(out / "record" / f"{n}.jsonl")] for n in ("vae_only", "vae_gan"))
    assert [(line["epoch"], line["batch"]) for line in second] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert [line["global_step"] for line in first + second] == [*range(1, 9)]
    for name in ("vae_loss", "kl_loss", "g_loss", "d_loss"):
        assert all(isinstance(line["metrics"][name], float) for line in second)
    assert {*first[0]} == {
        "timestamp", "session_id", "epoch", "batch", "global_step", "metrics",
    }  # fmt: skip
    shown = capsys.readouterr().err
    assert re.search(
        r"\[\d\d:\d\d:\d\d\] pipeline \| Phase vae_gan \(2/2\) \| Epoch 2/2 \| Batch 2/2 \| .*"
        r"train_vae_loss \d\.\d{4} .*s/batch",
        shown,
    )
    assert "created discriminator" in shown


def test_a_flow_is_trained_and_sampled_from_by_a_caption(capsys):
    out = train(FLOW)
    model = str(out / "model.safetensors")

    assert main(["sample", "--model", model, "--caption", "the digit seven", "--n", "4"]) == 0

    assert "samples.png: 4 images" in capsys.readouterr().out
    assert Path("samples.png").stat().st_size
    assert [*(out / "samples").glob("flow_training_002_001_*-caption.webp")]
