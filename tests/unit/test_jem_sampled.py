from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from jemtrack.data.images import LabelledImages
from jemtrack.errors import ParameterError
from jemtrack.jem.networks.shape import WideResNetShape
from jemtrack.jem.networks.wide_resnet import build_model
from jemtrack.jem.objectives.sampled_jem import SampledJEMObjective
from jemtrack.jem.training.batches import Batch
from jemtrack.parameters import problem_lines
from jemtrack.shared.random_streams import generator
from jemtrack.shared.serialization import from_bytes, to_bytes

N_CLASSES = 3
SHAPE = WideResNetShape(depth=10, width=1, channels=1, n_classes=N_CLASSES)


def network_of(**changed) -> nn.Module:
    torch.manual_seed(0)
    return build_model(replace(SHAPE, **changed))


def training_images(n=30) -> LabelledImages:
    stream = torch.Generator().manual_seed(5)
    images_NCHW = torch.randint(256, (n, 1, 8, 8), dtype=torch.uint8, generator=stream)
    return LabelledImages(images_NCHW, torch.arange(n) % N_CLASSES)


def batch_of(n=6, seed=1, *, density=False) -> Batch:
    stream = torch.Generator().manual_seed(seed)
    images_BCHW = torch.rand(n, 1, 8, 8, generator=stream) * 2 - 1
    others_BCHW = torch.rand(n + 1, 1, 8, 8, generator=stream) * 2 - 1
    return Batch(images_BCHW, torch.arange(n) % N_CLASSES, others_BCHW if density else None, seed)


def begun(**options):
    chosen = {"buffer_size": 40, "step_size": 0.5, "noise_std": 0.1, **options}
    return SampledJEMObjective(**chosen).begin(
        training_images(), n_classes=N_CLASSES, batch_size=6, n_steps=3, seed=2
    )


def joint(network, images_BCHW, labels_B):
    return network(images_BCHW)[torch.arange(len(labels_B)), labels_B]


def samples_by_hand(loss, network, batch, n):
    """Run the chains of p(x) again, from the buffer as it is now, which is left as it is."""
    stream = generator(batch.seed, "chains")
    chains = deepcopy(loss.buffer).draw(n, stream)
    return chains.indices_B, loss.sampler(network.log_density, chains.images_BCHW, stream)


@pytest.mark.parametrize("uncond", [False, True])
@pytest.mark.parametrize("density", [False, True])
def test_the_loss_is_jem_s(density, uncond):
    network, batch = network_of(uncond=uncond), batch_of(density=density)
    loss = begun(p_x_weight=0.7, p_y_given_x_weight=1.3, energy_weight=0.1)
    data_BCHW = batch.density_images_BCHW if density else batch.images_BCHW
    _, samples_BCHW = samples_by_hand(loss, network, batch, len(data_BCHW))

    found = loss({"network": network}, batch)

    data_B, samples_B = network.log_density(data_BCHW), network.log_density(samples_BCHW)
    by_class = cross_entropy(network(batch.images_BCHW), batch.labels_B)
    squares = data_B.square().mean() + samples_B.square().mean()
    expected = 1.3 * by_class - 0.7 * (data_B.mean() - samples_B.mean()) + 0.1 * squares
    assert found["loss"].item() == pytest.approx(expected.item(), abs=1e-5)
    assert found["cross_entropy"].item() == pytest.approx(by_class.item(), abs=1e-5)
    assert found["data_log_density"].item() == pytest.approx(data_B.mean().item(), abs=1e-5)
    assert found["sample_log_density"].item() == pytest.approx(samples_B.mean().item(), abs=1e-5)
    for mine, right in zip(
        torch.autograd.grad(found["loss"], [*network.trunk.parameters()]),
        torch.autograd.grad(expected, [*network.trunk.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(mine, right, rtol=1e-4, atol=1e-5)


def test_the_joint_term_has_chains_of_the_images_own_classes():
    network, batch = network_of(), batch_of()
    loss = begun(p_x_weight=0.0, p_y_given_x_weight=0.0, p_x_y_weight=2.0)
    stream = generator(batch.seed, "chains")
    chains = deepcopy(loss.buffer).draw_of_classes(batch.labels_B, stream)
    samples_BCHW = loss.sampler(
        lambda images_BCHW: joint(network, images_BCHW, batch.labels_B), chains.images_BCHW, stream
    )

    found = loss({"network": network}, batch)

    gap = joint(network, batch.images_BCHW, batch.labels_B).mean()
    gap = gap - joint(network, samples_BCHW, batch.labels_B).mean()
    assert found["loss"].item() == pytest.approx(-2 * gap.item(), abs=1e-5)


def test_chains_for_p_x_may_climb_classes_drawn_for_them():
    network = network_of()
    of_all, of_classes = begun(noise_std=0.0), begun(noise_std=0.0, class_conditional=True)
    for loss in (of_all, of_classes):
        loss({"network": network}, batch_of())

    changed = (of_classes.buffer.images_MCHW != begun().buffer.images_MCHW).flatten(1).any(1)
    assert changed.sum() == len(batch_of().images_BCHW)
    assert not torch.equal(of_all.buffer.images_MCHW, of_classes.buffer.images_MCHW)


def test_chains_go_on_from_the_buffer():
    network, loss = network_of(), begun(reinit_probability=0.0)
    before_MCHW = loss.buffer.images_MCHW.clone()
    places_B, samples_BCHW = samples_by_hand(loss, network, batch_of(), 6)

    loss({"network": network}, batch_of())

    torch.testing.assert_close(loss.buffer.images_MCHW[places_B], samples_BCHW)
    others = torch.ones(len(before_MCHW), dtype=torch.bool)
    others[places_B] = False
    assert torch.equal(loss.buffer.images_MCHW[others], before_MCHW[others])


def test_a_loss_goes_on_from_its_state_with_the_same_numbers():
    network, loss, again = network_of(), begun(buffer_size=6), begun(buffer_size=6)
    loss({"network": network}, batch_of(seed=1))
    again.load_state_dict(from_bytes(to_bytes(loss.state_dict())))

    went_on, whole = (each({"network": network}, batch_of(seed=2)) for each in (again, loss))

    assert {name: value.item() for name, value in went_on.items()} == {
        name: value.item() for name, value in whole.items()
    }
    assert torch.equal(again.buffer.images_MCHW, loss.buffer.images_MCHW)
    afresh = begun(buffer_size=6)({"network": network}, batch_of(seed=2))
    assert afresh["loss"] != whole["loss"]


def test_what_is_drawn_follows_from_the_batch_s_seed_alone():
    network, batch = network_of(), batch_of()
    losses = [
        begun()({"network": network}, replace(batch, seed=seed))["loss"].item()
        for seed in (1, 1, 2)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_batch_norm_sees_each_part_alone_and_no_step_of_a_chain():
    network, apart = network_of(norm="batch"), network_of(norm="batch")
    network.class_head.eval()
    loss, batch = begun(), batch_of()
    apart.eval()
    _, samples_BCHW = samples_by_hand(loss, apart, batch, 6)
    apart.train()

    found = loss({"network": network}, batch)

    data_B, samples_B = apart.log_density(batch.images_BCHW), apart.log_density(samples_BCHW)
    assert found["data_log_density"].item() == pytest.approx(data_B.mean().item(), abs=1e-5)
    assert found["sample_log_density"].item() == pytest.approx(samples_B.mean().item(), abs=1e-5)
    for mine, right in zip(network.buffers(), apart.buffers(), strict=True):
        torch.testing.assert_close(mine, right)
    assert network.trunk.training
    assert not network.class_head.training


def test_chains_run_without_dropout():
    network, batch, loss = network_of(dropout_rate=0.5), batch_of(), begun()
    _, samples_BCHW = samples_by_hand(loss, network.eval(), batch, 6)
    places_B, _ = samples_by_hand(loss, network, batch, 6)

    loss({"network": network.train()}, batch)

    torch.testing.assert_close(loss.buffer.images_MCHW[places_B], samples_BCHW)


def test_no_chain_leaves_a_gradient_on_the_weights():
    network = network_of()
    begun()({"network": network}, batch_of())
    assert all(weight.grad is None for weight in network.parameters())


@pytest.mark.parametrize(
    ("options", "n_steps", "message"),
    [
        ({}, 0, r"^n_steps must be >= 1"),
        ({"buffer_size": 5}, 3, r"^buffer_size must be >= 6 for 3 classes and batches of 6, got 5"),
        ({"buffer_size": 17, "p_x_y_weight": 1.0}, 3, r"^buffer_size must be >= 18 "),
        ({"buffer_size": 17, "class_conditional": True}, 3, r"^buffer_size must be >= 18 "),
    ],
)
def test_chains_that_cannot_be_are_refused(options, n_steps, message):
    with pytest.raises(ParameterError, match=message):
        SampledJEMObjective(**options).begin(
            training_images(), n_classes=N_CLASSES, batch_size=6, n_steps=n_steps, seed=1
        )


def test_a_loss_without_chains_is_refused():
    (problem,) = problem_lines(SampledJEMObjective, {"p_x_weight": 0.0}, "here")
    assert "p_x_weight or p_x_y_weight must be > 0" in problem
