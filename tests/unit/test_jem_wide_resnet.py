import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import at_most

from jemtrack.errors import InputError
from jemtrack.jem.networks.norms import ActNorm
from jemtrack.jem.networks.shape import WideResNetShape
from jemtrack.jem.networks.wide_resnet import WideBlock, build_model
from jemtrack.parameters import build, problem_lines

CHANNELS_AND_CLASSES = {"channels": 1, "n_classes": 2}
NORMS = ["none", "batch", "instance", "layer", "act"]


def small_shape(**changes):
    fields = {"depth": 10, "width": 1, "channels": 1, "n_classes": 4} | changes
    return WideResNetShape(**fields)


def small_model(**changes):
    torch.manual_seed(0)
    return build_model(small_shape(**changes))


def images_of(n_images=3, channels=1, side=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n_images, channels, side, side, generator=generator) * 2 - 1


def count_of(model):
    return sum(parameter.numel() for parameter in model.parameters())


def closed_form_count(depth, width, norm, channels, n_classes):
    """Sum k*k*in*out + out over the convolutions, 2*channels over the norms, and the heads."""
    n = (depth - 4) // 6
    k = 0 if norm == "none" else 2
    a, b, c = 16 * width, 32 * width, 64 * width
    stem = 9 * channels * 16 + 16
    entrances = sum(
        9 * i * o + o + 9 * o * o + o + k * (i + o) + projection * (i * o + o)
        for i, o, projection in [(16, a, width > 1), (a, b, True), (b, c, True)]
    )
    inner = (n - 1) * sum(2 * (9 * o * o + o) + 2 * k * o for o in (a, b, c))
    return stem + entrances + inner + k * c + (c * n_classes + n_classes) + (c + 1)


@at_most(30)
@given(
    n=st.integers(1, 5),
    width=st.integers(1, 12),
    norm=st.sampled_from(NORMS),
    channels=st.sampled_from([1, 3]),
    n_classes=st.integers(2, 100),
)
def test_parameter_count_is_the_closed_form(n, width, norm, channels, n_classes):
    fields = {"depth": 6 * n + 4, "width": width, "norm": norm} | {
        "channels": channels,
        "n_classes": n_classes,
    }
    with torch.device("meta"):
        model = build_model(WideResNetShape(**fields))

    assert count_of(model) == closed_form_count(**fields)


def test_28_10_has_the_published_parameters():
    """The original has batch norm, no bias in its convolutions and no energy head: 36,479,194."""
    with torch.device("meta"):
        model = build_model(
            WideResNetShape(depth=28, width=10, norm="batch", channels=3, n_classes=10)
        )
    convolutions = [part for part in model.modules() if isinstance(part, torch.nn.Conv2d)]
    added = sum(part.bias.numel() for part in convolutions) + count_of(model.energy_head)

    assert count_of(model) - added == 36_479_194


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("side", "channels"), [(8, 1), (8, 3), (15, 1), (28, 1), (32, 3)])
def test_every_image_gets_logits_and_a_log_density(norm, side, channels):
    model = small_model(norm=norm, channels=channels)
    images_BCHW = images_of(3, channels, side)

    assert model(images_BCHW).shape == (3, 4)
    assert model.log_density(images_BCHW).shape == (3,)
    assert model.trunk(images_BCHW).shape == (3, 64)


def test_groups_halve_the_image_twice():
    model = small_model(depth=16, width=2)
    hidden_BCHW = model.trunk.stem(images_of(side=32))
    seen = []
    for block in model.trunk.blocks:
        hidden_BCHW = block(hidden_BCHW)
        seen.append(tuple(hidden_BCHW.shape[1:]))

    assert seen == [(32, 32, 32)] * 2 + [(64, 16, 16)] * 2 + [(128, 8, 8)] * 2


@pytest.mark.parametrize("norm", NORMS)
def test_block_has_the_gradient_of_finite_differences(norm):
    """The in-place activation must not spoil what the backward pass reads."""
    torch.manual_seed(0)
    block = WideBlock(2, 4, 2, small_shape(norm=norm)).double()
    block.train()
    input_BCHW = images_of(2, 2, 4).double()
    block(input_BCHW)
    input_BCHW.requires_grad_()

    assert torch.autograd.gradcheck(block, (input_BCHW,))


@pytest.mark.parametrize(("channels", "stride"), [(3, 1), (3, 2), (5, 1)])
def test_block_is_the_formula(channels, stride):
    """Norm, leaky ReLU of slope .2, 3x3, norm, leaky ReLU, 3x3 with the stride; plus shortcut."""
    torch.manual_seed(0)
    block, input_BCHW = WideBlock(3, channels, stride, small_shape(norm="layer")), images_of(2, 3)

    def activated(norm, features_BCHW):
        normed_BCHW = torch.nn.functional.group_norm(features_BCHW, 1, norm.weight, norm.bias)
        return normed_BCHW.clamp(min=0) + 0.2 * normed_BCHW.clamp(max=0)

    def convolved(layer, features_BCHW, stride, padding):
        weight, bias = layer.weight, layer.bias
        return torch.conv2d(features_BCHW, weight, bias, stride=stride, padding=padding)

    expected_BCHW = convolved(block.conv1, activated(block.norm1, input_BCHW), 1, 1)
    expected_BCHW = convolved(block.conv2, activated(block.norm2, expected_BCHW), stride, 1)
    same_shape = (channels, stride) == (3, 1)
    expected_BCHW = expected_BCHW + (
        input_BCHW if same_shape else convolved(block.shortcut, input_BCHW, stride, 0)
    )

    torch.testing.assert_close(block(input_BCHW), expected_BCHW)


def test_features_are_the_mean_of_the_activated_last_group():
    trunk, images_BCHW = small_model(norm="layer").trunk, images_of()
    last_BCHW = trunk.norm(trunk.blocks(trunk.stem(images_BCHW)))
    expected_BF = torch.where(last_BCHW > 0, last_BCHW, 0.2 * last_BCHW).flatten(2).mean(2)

    torch.testing.assert_close(trunk(images_BCHW), expected_BF)


def test_block_leaves_its_input_alone():
    block = WideBlock(4, 4, 1, small_shape())
    input_BCHW = images_of(2, 4)
    before_BCHW = input_BCHW.clone()
    block(input_BCHW)

    assert torch.equal(input_BCHW, before_BCHW)


def test_dropout_acts_in_training_only():
    model, images_BCHW = small_model(dropout_rate=0.5), images_of()
    without = small_model(dropout_rate=0.0)

    assert not torch.equal(model.train()(images_BCHW), model(images_BCHW))
    assert torch.equal(model.eval()(images_BCHW), without.eval()(images_BCHW))


@pytest.mark.parametrize("norm", ["none", "instance", "layer"])
@pytest.mark.parametrize("training", [False, True])
def test_logits_do_not_depend_on_the_rest_of_the_batch(norm, training):
    model = small_model(norm=norm).train(training)
    images_BCHW, others_BCHW = images_of(2, seed=1), 5 * images_of(3, seed=2)
    together_BC = model(torch.cat([images_BCHW, others_BCHW]))

    torch.testing.assert_close(together_BC[:2], model(images_BCHW), rtol=1e-5, atol=1e-6)


def test_batch_norm_does_depend_on_it_in_training():
    model, images_BCHW = small_model(norm="batch"), images_of()
    assert not torch.allclose(model(images_BCHW)[:2], model(images_BCHW[:2]), atol=1e-3)


@pytest.mark.parametrize("norm", NORMS)
def test_eval_mode_is_deterministic_and_changes_nothing(norm):
    model, images_BCHW = small_model(norm=norm, dropout_rate=0.3), images_of()
    model(images_BCHW)
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    assert torch.equal(model(images_BCHW), model(images_BCHW))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_act_norm_is_read_through_the_whole_network():
    model = small_model(norm="act", depth=16)
    seen = []
    norms = [part for part in model.modules() if isinstance(part, ActNorm)]
    for norm in norms:
        # Copied at once: the activation that follows works in place.
        norm.register_forward_hook(lambda *call: seen.append(call[2].detach().clone()))
    model(images_of(16, side=16))

    assert len(seen) == len(norms) == 13
    for features_BCHW in seen:
        mean_C, variance_C = features_BCHW.mean((0, 2, 3)), features_BCHW.var((0, 2, 3))
        torch.testing.assert_close(mean_C, torch.zeros_like(mean_C), rtol=0, atol=1e-4)
        torch.testing.assert_close(variance_C, torch.ones_like(variance_C), rtol=0, atol=0.05)


def test_weights_follow_the_global_seed():
    first, again = small_model(), small_model()
    torch.manual_seed(1)
    other = build_model(small_shape())

    assert torch.equal(first(images_of()), again(images_of()))
    assert not torch.equal(first(images_of()), other(images_of()))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("depth", 12, "here.depth must be 6n + 4 with n >= 1: the nearest are 10 and 16, got 12"),
        ("depth", 27, "here.depth must be 6n + 4 with n >= 1: the nearest are 22 and 28, got 27"),
        ("depth", 4, "here.depth must be 6n + 4 with n >= 1: the minimum is 10, got 4"),
        ("width", 0, "here.width must be >= 1, got 0"),
        ("channels", 2, "here.channels must be one of 1 or 3, got 2"),
        ("n_classes", 1, "here.n_classes must be >= 2, got 1"),
        ("dropout_rate", 1.0, "here.dropout_rate must be < 1, got 1.0"),
        ("dropout_rate", float("nan"), "here.dropout_rate must be"),
        ("norm", "group", "here.norm must be one of 'none', 'batch', 'instance', 'layer' or 'act'"),
    ],
)
def test_a_bad_shape_is_refused_by_name(field, value, message):
    values = {"depth": 10, "width": 1} | CHANNELS_AND_CLASSES | {field: value}
    with pytest.raises(InputError) as caught:
        build(WideResNetShape, values, "here")

    assert str(caught.value).startswith(message)


@settings(deadline=None)
@given(depth=st.integers(-20, 200))
def test_depth_is_6n_plus_4(depth):
    found = problem_lines(WideResNetShape, {"depth": depth, "width": 1} | CHANNELS_AND_CLASSES, "p")

    assert bool(found) == (depth not in range(10, 201, 6))
