"""The published quick start of the family flux, which names no data, trains as it stands."""

from pathlib import Path

from recipe_files import FLUX_SHORT

from jemtrack.commands.main import main
from jemtrack.data.sources.fetch import fetch
from jemtrack.flux.networks.model_file import load_models
from jemtrack.record.jsonl import read_record


def test_the_quick_start_trains_and_its_images_get_better(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fetch("digits", Path("data"))
    Path("quick.yaml").write_text(FLUX_SHORT)

    assert main(["train", "--config", "quick.yaml"]) == 0

    assert {*load_models(Path("runs/quick/model.safetensors")).models} == {
        "compressor", "expander", "discriminator",
    }  # fmt: skip
    epochs = read_record(Path("runs/quick/record")).epoch
    assert len(epochs) == 30
    psnr = [epochs[number]["valid_psnr"] for number in (1, 10, 30)]
    assert psnr[0] < psnr[1] < psnr[2]
