"""The predictor answers for any form of image what the bundle's model does."""

import io
from pathlib import Path

import numpy as np
import pytest
from deployed import some_data
from PIL import Image

import jemtrack
from jemtrack.deploy.predict import Model
from jemtrack.errors import InputError

IMAGES = some_data().test.images_NCHW.numpy()


@pytest.fixture
def bundle(deployed_once) -> Path:
    return deployed_once / "bundle"


def assert_equal(found: dict, expected: dict) -> None:
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_files_arrays_and_bytes_are_answered_alike_in_their_order(bundle, tmp_path):
    Image.fromarray(IMAGES[0, 0]).save(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", IMAGES[1])
    stream = io.BytesIO()
    np.save(stream, IMAGES[4])
    forms = [
        tmp_path / "a.png",
        str(tmp_path / "b.npy"),
        IMAGES[2],
        IMAGES[3, 0],
        stream.getvalue(),
        IMAGES[5].tobytes(),
    ]
    expected = Model(bundle)(IMAGES[:6])

    assert_equal(jemtrack.Predictor(bundle).predict(forms), expected)
    for n, form in enumerate(forms):
        one = jemtrack.Predictor(bundle).predict(form)
        assert_equal(one, {name: values[n : n + 1] for name, values in expected.items()})


@pytest.mark.parametrize("batch_size", [1, 7, 500])
def test_a_batch_gives_what_single_images_give(bundle, batch_size):
    predictor = jemtrack.Predictor(bundle, batch_size=batch_size)

    assert_equal(predictor.predict(IMAGES), Model(bundle)(IMAGES))


def test_an_answer_is_remembered_by_content_and_the_oldest_is_forgotten(bundle):
    predictor = jemtrack.Predictor(bundle, cache_size=3)
    sizes: list[int] = []
    model = predictor.model
    predictor.model = lambda images: sizes.append(len(images)) or model(images)
    predictor.model.outputs, predictor.model.shape = model.outputs, model.shape
    first = predictor.predict(np.concatenate([IMAGES[:2], IMAGES[:2]]))
    assert sizes == [2]  # equal images are computed once

    assert_equal(predictor.predict(IMAGES[1::-1].copy()), Model(bundle)(IMAGES[1::-1]))
    assert_equal(first, Model(bundle)(np.concatenate([IMAGES[:2], IMAGES[:2]])))
    assert sizes == [2]
    predictor.predict(IMAGES[2:5])
    predictor.predict(IMAGES[0])
    assert sizes == [2, 3, 1]


def test_a_subclass_can_extend_the_preprocessing(bundle):
    class Inverting(jemtrack.Predictor):
        def preprocess(self, image):
            return 255 - super().preprocess(image)

    assert_equal(Inverting(bundle).predict(255 - IMAGES), Model(bundle)(IMAGES))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([IMAGES[0], IMAGES[0].astype(float)], r"^image 1: images must be uint8 .* got float64"),
        ([b""], r"^image 0: raw images must be 64 bytes each, got 0 bytes"),
        ([bytes(128)], r"^image 0: expected one image, got 2"),
        (["absent.png"], r"^absent.png: No such file"),
        ([], r"^there are no images"),
        (np.zeros((0, 1, 8, 8), np.uint8), r"^there are no images"),
        ([None], r"^image 0: images must be uint8"),
    ],
)
def test_what_is_no_image_is_named(bundle, images, message):
    with pytest.raises(InputError, match=message):
        jemtrack.Predictor(bundle).predict(images)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a bundle of jemtrack"):
        jemtrack.Predictor(tmp_path)
