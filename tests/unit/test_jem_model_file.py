import dataclasses
import stat

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from profiles import at_most
from safetensors.torch import load, load_file, save_file

from jemtrack.errors import InputError
from jemtrack.jem.networks.model_file import load_model, load_weights_into, save_model
from jemtrack.jem.networks.shape import WideResNetShape
from jemtrack.jem.networks.wide_resnet import build_model

SHAPE = WideResNetShape(depth=10, width=1, channels=1, n_classes=3)
NOTES = {"dataset": "digits", "experiment": "first", "seed": "7"}


def model_of(shape=SHAPE, seed=0):
    torch.manual_seed(seed)
    return build_model(shape)


def images_of(channels=1):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(4, channels, 8, 8, generator=generator)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "not there yet" / "model.safetensors"


@at_most(10)
@given(
    norm=st.sampled_from(["none", "batch", "instance", "layer", "act"]),
    width=st.integers(1, 2),
    channels=st.sampled_from([1, 3]),
    dropout_rate=st.floats(0, 0.9),
    uncond=st.booleans(),
    notes=st.dictionaries(st.text(), st.text()),
)
def test_a_model_comes_back_as_it_was(
    tmp_path_factory, norm, width, channels, dropout_rate, uncond, notes
):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    shape = dataclasses.replace(
        SHAPE, norm=norm, width=width, channels=channels, dropout_rate=dropout_rate, uncond=uncond
    )
    model = model_of(shape)
    model(images_of(channels))
    save_model(path, model, shape, notes)
    loaded = load_model(path)

    assert (loaded.shape, loaded.metadata) == (shape, notes)
    assert not loaded.model.training
    expected_B = model.eval().log_density(images_of(channels))
    assert torch.equal(loaded.model.log_density(images_of(channels)), expected_B)
    assert loaded.model.state_dict().keys() == model.state_dict().keys()


def test_a_loaded_model_trains(path):
    save_model(path, model_of(), SHAPE, {})
    model = load_model(path).model
    model(images_of()).sum().backward()

    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.class_head.weight.grad.any()


def test_loading_leaves_the_random_state_alone(path):
    save_model(path, model_of(), SHAPE, {})
    before = torch.get_rng_state()
    load_model(path)

    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_content_gives_the_same_bytes(path):
    """Whatever the order of the notes and the memory format of the weights."""
    save_model(path, model_of(), SHAPE, NOTES)
    written = path.read_bytes()
    backwards = dict(reversed(NOTES.items()))
    for _ in range(5):
        save_model(path, model_of().to(memory_format=torch.channels_last), SHAPE, backwards)
        assert path.read_bytes() == written


def test_the_file_is_plain_safetensors_and_stands_alone(path):
    model = model_of()
    save_model(path, model, SHAPE, NOTES)

    torch.testing.assert_close(load_file(path), dict(model.state_dict()))
    assert list(path.parent.iterdir()) == [path]


def test_the_file_is_as_open_as_any_other(path):
    save_model(path, model_of(), SHAPE, NOTES)
    other = path.with_name("other")
    other.touch()

    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


def test_weights_move_into_another_model(path):
    save_model(path, model_of(seed=0), SHAPE, NOTES)
    other = model_of(seed=1)
    load_weights_into(other, SHAPE, path)

    assert torch.equal(other(images_of()), model_of(seed=0)(images_of()))


def test_another_dropout_rate_is_no_other_shape(path):
    save_model(path, model_of(), SHAPE, NOTES)
    shape = dataclasses.replace(SHAPE, dropout_rate=0.5)
    load_weights_into(model_of(shape), shape, path)


def test_every_differing_field_is_named_and_nothing_changed(path):
    there = dataclasses.replace(SHAPE, width=2, norm="batch", uncond=True)
    save_model(path, model_of(there), there, NOTES)
    model = model_of()
    with pytest.raises(InputError) as caught:
        load_weights_into(model, SHAPE, path)

    message = str(caught.value)
    assert str(path) in message
    for difference in (
        "width is 2 in the file, 1 here",
        "norm is 'batch' in the file, 'none' here",
        "uncond is True in the file, False here",
    ):
        assert difference in message
    assert "depth" not in message
    torch.testing.assert_close(model.state_dict(), model_of().state_dict(), rtol=0, atol=0)


def rewritten(path, header, drop=()):
    weights = {name: value for name, value in load(path.read_bytes()).items() if name not in drop}
    path.unlink()
    save_file(weights, path, header)


def missing(path):
    path.unlink()


def folder(path):
    path.unlink()
    path.mkdir()


def empty(path):
    path.write_bytes(b"")


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1])


def cut_in_its_header(path):
    path.write_bytes(path.read_bytes()[:100])


def pickled(path):
    torch.save({"weights": torch.zeros(1)}, path)


def of_somebody_else(path):
    rewritten(path, {"format": "pt"})


def without_json(path):
    rewritten(path, {"jemtrack": "{"})


def without_shape(path):
    rewritten(path, {"jemtrack": '{"metadata": {}, "shape": 3}'})


def of_a_shape_unknown_here(path):
    shape = '{"depth": 11, "width": 1, "channels": 1, "n_classes": 3, "colour": 1}'
    rewritten(path, {"jemtrack": f'{{"metadata": {{}}, "shape": {shape}}}'})


def without_a_weight(path):
    shape = '{"depth": 10, "width": 1, "channels": 1, "n_classes": 3}'
    rewritten(path, {"jemtrack": f'{{"metadata": {{}}, "shape": {shape}}}'}, ["class_head.bias"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (missing, "is not a file"),
        (folder, "is not a file"),
        (empty, "cut short"),
        (cut_short, "cut short"),
        (cut_in_its_header, "cut short"),
        (pickled, "not a safetensors file"),
        (of_somebody_else, "not a jemtrack model"),
        (without_json, "not a jemtrack model"),
        (without_shape, "not a jemtrack model"),
        (of_a_shape_unknown_here, "shape.depth must be 6n"),
        (of_a_shape_unknown_here, "shape.colour is not a parameter"),
        (without_a_weight, "class_head.bias"),
    ],
)
def test_a_file_that_is_no_model_is_named(path, damage, message):
    save_model(path, model_of(), SHAPE, NOTES)
    damage(path)
    with pytest.raises(InputError, match=message) as caught:
        load_model(path)
    assert str(path) in str(caught.value)
    with pytest.raises(InputError, match=message):
        load_weights_into(model_of(), SHAPE, path)
