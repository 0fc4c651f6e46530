from pathlib import Path

import pytest

from jemtrack.project.scratch import persistent_output
from jemtrack.train.checkpoint import Checkpoints


def write(out: Path, text: str, checkpoints: Checkpoints | None) -> None:
    with persistent_output(out, checkpoints) as folder:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "file").open("a") as file:
            file.write(text)
        if "!" in text:
            raise KeyboardInterrupt


def test_what_is_written_into_an_out_survives_its_removal(tmp_path):
    out, checkpoints = tmp_path / "nodes" / "record", Checkpoints(tmp_path / "scratch")

    with pytest.raises(KeyboardInterrupt):
        write(out, "half!", checkpoints)
    assert (out / "file").read_text() == "half!"
    (out / "file").write_text("of no use")
    write(out, " whole", checkpoints)

    assert (out / "file").read_text() == "half! whole"
    assert (tmp_path / "scratch" / "record" / "file").exists()


def test_without_a_scratch_folder_the_out_itself_is_written(tmp_path):
    write(tmp_path / "record", "whole", None)

    assert (tmp_path / "record" / "file").read_text() == "whole"


def test_where_nothing_was_written_there_is_no_out(tmp_path):
    with persistent_output(tmp_path / "record", Checkpoints(tmp_path / "scratch")):
        pass

    assert not (tmp_path / "record").exists()
