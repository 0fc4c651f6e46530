import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from data_files import files_under, random_images

from jemtrack.data.sources.fetch import fetch
from jemtrack.data.sources.registry import SOURCES
from jemtrack.errors import InputError


def own_npz(path: Path, **more: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, images=random_images(6, 8, 8), labels=np.arange(6) % 2, **more)
    return path


def test_own_data_are_copied_with_their_checksum(tmp_path):
    given = own_npz(tmp_path / "my.npz")

    paths = fetch("my-data_1", tmp_path / "data", given)

    assert paths == [tmp_path / "data" / "my-data_1" / "images.npz"]
    assert paths[0].read_bytes() == given.read_bytes()
    assert files_under(tmp_path / "data") == ["my-data_1/SHA256SUMS", "my-data_1/images.npz"]
    subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=paths[0].parent, check=True)
    assert fetch("my-data_1", tmp_path / "data") == paths


def test_own_data_are_replaced_by_newer_ones(tmp_path):
    fetch("mine", tmp_path / "data", own_npz(tmp_path / "my.npz"))
    newer = own_npz(tmp_path / "newer.npz", flip=np.array(True))

    (path,) = fetch("mine", tmp_path / "data", newer)

    assert path.read_bytes() == newer.read_bytes()
    assert fetch("mine", tmp_path / "data") == [path]


def test_altered_own_data_are_noticed(tmp_path):
    (path,) = fetch("mine", tmp_path / "data", own_npz(tmp_path / "my.npz"))
    own_npz(path, flip=np.array(True))

    with pytest.raises(InputError, match=r"images.npz has the wrong .* mine --from mine.npz"):
        fetch("mine", tmp_path / "data")


@pytest.mark.parametrize("names", [["a.npz"], ["a.npz", "images.npz"]])
def test_own_data_are_found_in_a_folder(tmp_path, names):
    given = [own_npz(tmp_path / "given" / name) for name in names][-1]

    (path,) = fetch("mine", tmp_path / "data", given.parent)
    assert path.read_bytes() == given.read_bytes()


def test_folder_of_several_is_refused(tmp_path):
    for name in ("a.npz", "b.npz"):
        own_npz(tmp_path / "given" / name)

    with pytest.raises(InputError, match=r"one .npz file, found a.npz, b.npz; name the file"):
        fetch("mine", tmp_path / "data", tmp_path / "given")


@pytest.mark.parametrize("with_folder", [True, False])
def test_unknown_name_is_met_with_the_known_ones(tmp_path, with_folder):
    (tmp_path / "given").mkdir()

    with pytest.raises(InputError) as caught:
        fetch("Digit", tmp_path / "data", tmp_path / "given" if with_folder else None)
    for part in (*SOURCES, "did you mean digits?", "jemtrack data Digit --from Digit.npz"):
        assert part in str(caught.value)


def test_own_data_that_do_not_fit_are_not_brought(tmp_path):
    given = own_npz(tmp_path / "my.npz")
    given.write_bytes(given.read_bytes()[:100])

    with pytest.raises(InputError, match=r"my\.npz: is not a whole"):
        fetch("mine", tmp_path / "data", given)
    assert not (tmp_path / "data" / "mine").exists()


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "ä", "a.b"])
def test_names_that_are_no_folders_are_refused(tmp_path, name):
    given = own_npz(tmp_path / "my.npz")

    with pytest.raises(InputError, match="the name of a data set must be at most 100 letters"):
        fetch(name, tmp_path / "data", given)
    with pytest.raises(InputError, match="the name of a data set must be at most 100 letters"):
        fetch(name, tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CON", "must be another name, got 'CON': Windows"),
        ("lpt1", "must be another name, got 'lpt1': Windows"),
        ("DIGITS", "cannot be called DIGITS, did you mean digits?"),
        ("Fashion-MNIST", "did you mean fashion-mnist?"),
        ("__pycache__", "begin with a letter or digit, got '__pycache__'"),
        ("-x", "begin with a letter or digit"),
        ("n" * 300, "must be at most 100 letters"),
        ("a\0b", "must be at most 100 letters"),
    ],
)
def test_names_that_are_no_folder_of_ones_own_everywhere_are_refused(tmp_path, name, message):
    given = own_npz(tmp_path / "my.npz")

    with pytest.raises(InputError, match=re.escape(message)):
        fetch(name, tmp_path / "data", given)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["CONsole", "digits2", "com10"])
def test_names_that_only_look_alike_are_taken(tmp_path, name):
    assert fetch(name, tmp_path / "data", own_npz(tmp_path / "my.npz"))
