"""A bundle or an image that cannot be used is refused in one line, before it is loaded."""

import io
import json
import re
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from jemtrack.deploy.predict import (
    BundleError,
    Model,
    digest_of,
    read_images,
    self_test,
)

SHAPE = (1, 8, 8)


@pytest.fixture
def bundle(deployed_once, tmp_path) -> Path:
    shutil.copytree(deployed_once / "bundle", tmp_path / "bundle")
    return tmp_path / "bundle"


def refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def changed(bundle: Path, change: Callable[[dict], object]) -> None:
    """Change bundle.json, and let its own hash fit."""
    path = bundle / "bundle.json"
    description = json.loads(path.read_text())
    del description["sha256"]
    change(description)
    path.write_text(json.dumps({**description, "sha256": digest_of(description)}))


@pytest.mark.parametrize("name", ["model.onnx", "samples.npz", "card.md", "predict.py"])
@pytest.mark.parametrize(
    "damage",
    [lambda content: content[: len(content) // 2], lambda content: b"", lambda c: c + b"\0"],
)
def test_a_damaged_file_is_refused_by_its_hash(bundle, monkeypatch, name, damage):
    path = bundle / name
    path.write_bytes(damage(path.read_bytes()))

    refused(lambda: self_test(bundle), f"{name} is damaged or altered: its sha256 is not that of")
    if name == "model.onnx":
        monkeypatch.setattr(onnxruntime, "InferenceSession", None)  # nothing is loaded
        refused(lambda: Model(bundle), "model.onnx is damaged or altered")


def test_a_missing_file_is_named(bundle):
    (bundle / "model.onnx").unlink()

    refused(lambda: Model(bundle), r"bundle/model.onnx: No such file")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '"text"', "[" * 100_000, '{"kind": 3}', '{"format": null}']
)
def test_what_is_no_description_is_refused(bundle, text):
    (bundle / "bundle.json").write_text(text)

    refused(lambda: Model(bundle), r"bundle.json is damaged, or not of a bundle of jemtrack: ")


def test_bytes_that_are_no_text_are_refused(bundle):
    (bundle / "bundle.json").write_bytes(b"\xff\xfe\x00")

    refused(lambda: Model(bundle), r"bundle.json is damaged")


def test_an_altered_threshold_is_noticed(bundle):
    path = bundle / "bundle.json"
    path.write_text(re.sub(r'"threshold": [\d.]+', '"threshold": 0.5', path.read_text()))

    refused(lambda: Model(bundle), r"bundle.json was altered")


def test_a_newer_and_a_foreign_bundle_are_refused(bundle, tmp_path):
    changed(bundle, lambda found: found.update(format=2))
    refused(lambda: Model(bundle), r"expected a bundle of jemtrack of format 1 or older, got .* 2")
    changed(bundle, lambda found: found.update(format=1, kind="bundle of another"))
    refused(lambda: Model(bundle), r"got 'bundle of another'")
    refused(lambda: Model(tmp_path / "absent"), "absent is not a bundle of jemtrack")


def test_a_graph_of_another_kind_is_refused(bundle):
    changed(bundle, lambda found: found["input"].update(shape=[3, 8, 8]))
    refused(lambda: Model(bundle), r"model.onnx is not for images of \(3, 8, 8\)")


def test_a_file_that_is_no_graph_is_refused_even_with_the_right_hash(bundle):
    import hashlib

    (bundle / "model.onnx").write_bytes(b"no graph")
    digest = hashlib.sha256(b"no graph").hexdigest()
    changed(bundle, lambda found: found["files"].update({"model.onnx": digest}))
    refused(lambda: Model(bundle), "model.onnx does not load in onnxruntime")


def test_an_unknown_model_is_refused_with_those_that_there_are(bundle):
    refused(lambda: Model(bundle, "model.pt"), "has no model 'model.pt'; it has model.onnx, model")


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 1, 8, 8), np.float32),
        np.zeros((2, 1, 8, 8), np.int64),
        np.zeros((2, 3, 8, 8), np.uint8),
        np.zeros((2, 1, 9, 8), np.uint8),
        np.zeros((1, 8, 8), np.uint8),
        np.zeros((8, 8), np.uint8),
        np.zeros((0, 1, 8, 8), np.uint8),
        np.array(3, np.uint8),
        np.array(["a"]),
        np.array([None, {}]),
    ],
)
def test_images_of_another_shape_or_type_are_refused(bundle, images):
    refused(
        lambda: Model(bundle)(images), r"^images must be uint8 of shape \(N, 1, 8, 8\), N >= 1, got"
    )


def test_a_bundle_without_a_gradient_says_so(bundle):
    images = np.zeros((2, *SHAPE), np.uint8)
    refused(lambda: Model(bundle).approximate_mass(images), "bundle has no mass.onnx: make it with")


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png_of(width: int, height: int, *others: bytes) -> bytes:
    """A PNG that says that it is so large, and holds 50 MB of zeros in 50 kB."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    zeros = chunk(b"IDAT", zlib.compress(bytes(50_000_000), 9))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + b"".join(others)
        + zeros
        + chunk(b"IEND", b"")
    )


LIE = npy(np.zeros((1, 1, 8, 8), np.uint8)).replace(b"(1, 1, 8, 8)", b"(9999999999999, 1, 8, 8)")


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("jpg", b"", "images must be of raw, npy, png, got 'jpg'"),
        ("raw", b"", "raw images must be 64 bytes each, got 0 bytes"),
        ("raw", bytes(65), "got 65 bytes"),
        ("npy", b"", "not readable as npy"),
        ("npy", bytes(100_000_000), "not readable as npy"),
        ("npy", npy(np.zeros((2, 1, 8, 8))), "must be uint8"),
        ("npy", npy(np.zeros((2, 1, 8, 8), np.uint8))[:-1], "cut short"),
        ("npy", npy(np.array([{"a": 1}])), "must be uint8"),
        ("npy", npy(np.zeros((0, 1, 8, 8), np.uint8)), "N >= 1"),
        ("npy", LIE, "cut short|not readable as npy"),
        ("png", b"", "not readable as png"),
        ("png", b"GIF89a", "not readable as png"),
        ("png", png(np.zeros((8, 8), np.uint8))[:40], "not readable as png"),
        ("png", png(np.zeros((8, 9), np.uint8)), "must be 8 x 8 pixels of mode L, got 9 x 8"),
        ("png", png(np.zeros((8, 8, 3), np.uint8)), "of mode L, got 8 x 8 of mode RGB"),
        ("png", png_of(60_000, 60_000), "not readable as png: Image size|got 60000 x 60000"),
        ("png", png_of(20_000, 20_000), "not readable as png: Image size|got 20000 x 20000"),
        (
            "png",
            png_of(8, 8, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000), 9))),
            "not readable as png",
        ),
    ],
)
def test_content_that_is_no_image_of_this_size_is_refused(kind, content, message):
    refused(lambda: read_images(content, kind, SHAPE), message)


def test_all_that_can_be_read_is_read_alike():
    images = np.arange(3 * 64, dtype=np.uint8).reshape(3, *SHAPE)

    for content in (npy(images), npy(np.asfortranarray(images))):
        np.testing.assert_array_equal(read_images(content, "npy", SHAPE), images)
    np.testing.assert_array_equal(read_images(npy(images[1]), "npy", SHAPE), images[1:2])
    np.testing.assert_array_equal(read_images(images.tobytes(), "raw", SHAPE), images)
    np.testing.assert_array_equal(read_images(png(images[1, 0]), "png", SHAPE), images[1:2])
    colour = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    found = read_images(png(colour), "png", (3, 4, 5))
    np.testing.assert_array_equal(found[0].transpose(1, 2, 0), colour)


def test_a_png_without_pillow_is_refused(monkeypatch):
    content = png(np.zeros((8, 8), np.uint8))
    monkeypatch.setitem(sys.modules, "PIL", None)

    refused(lambda: read_images(content, "png", SHAPE), "^reading png needs PIL, not installed")


def test_the_command_names_the_file_that_it_cannot_use(bundle, tmp_path):
    np.save(tmp_path / "good.npy", np.zeros(SHAPE, np.uint8))
    np.save(tmp_path / "bad.npy", np.zeros(SHAPE))
    command = [sys.executable, "predict.py", str(tmp_path / "good.npy"), str(tmp_path / "bad.npy")]
    ran = subprocess.run(command, cwd=bundle, capture_output=True, text=True)

    assert ran.returncode == 1
    assert ran.stderr.startswith(f"predict.py: {tmp_path}/bad.npy: images must be uint8")
    assert ran.stderr.count("\n") == 1
