import copy
from dataclasses import replace

import pytest
import torch
from small_run import NAN, STEPS, BreakOff, assert_same, make_run, resumed

from jemtrack.callbacks.ema import Ema
from jemtrack.callbacks.periodic_weights import PeriodicWeights
from jemtrack.events.events import BatchEnd, Diverged, PhaseStart, RunStart
from jemtrack.events.handlers import Callback
from jemtrack.train.phase import Validation


class Look(Callback):
    """Keeps the model and its average after each step, and at the start (step 0)."""

    def _post_init_(self) -> None:
        self.models, self.averages, self.back = {}, {}, []

    def __call__(self, event, state) -> None:
        if isinstance(event, RunStart | BatchEnd):
            self.models[state.step] = copy.deepcopy(state.models["net"])
            self.averages[state.step] = copy.deepcopy(state.averages["net"])
        if isinstance(event, Diverged):
            average = copy.deepcopy(state.averages["net"])
            self.back.append((event.step, self.averages[event.step], average))


def trained(folder, *, frozen=((), ()), bad=None, **options):
    run = make_run(folder, Ema(**options), Look(), values=[1.0] * 8, frozen=frozen, bad=bad)
    run.train()
    return run


def equal(one, other) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return all(ours[name].equal(theirs[name]) for name in theirs)


def decay_of(n_updates, warm_up) -> float:
    return min(0.9, (1 + n_updates) / (10 + n_updates)) if warm_up else 0.9


@pytest.mark.parametrize("warm_up", [False, True])
@pytest.mark.parametrize("update_every", [1, 3])
def test_the_average_is_the_one_written_out_by_hand(tmp_path, warm_up, update_every):
    run = trained(tmp_path, decay=0.9, warm_up=warm_up, update_every=update_every)

    look = run.callbacks[1]
    expected, n_updates = [], 0
    for step in STEPS:
        weights = [weight.detach() for weight in look.models[step].parameters()]
        if step % update_every == 0:
            keep = decay_of(n_updates, warm_up) if n_updates else 0.0
            before = expected or weights
            expected = [keep * old + (1 - keep) * w for old, w in zip(before, weights, strict=True)]
            n_updates += 1
        averages = [*look.averages[step].parameters()]
        for average, wanted in zip(averages, expected or averages, strict=True):
            torch.testing.assert_close(average, wanted)
    assert equal(look.averages[0], look.models[0])
    assert not equal(look.averages[16], look.models[16])


def test_running_statistics_are_copies_of_the_model_s(tmp_path):
    look = trained(tmp_path, decay=0.9).callbacks[1]

    for step in STEPS:
        pairs = zip(look.averages[step].buffers(), look.models[step].buffers(), strict=True)
        assert all(ours.equal(theirs) for ours, theirs in pairs)


def test_the_average_is_of_the_model_s_class_and_never_trains(tmp_path):
    run = trained(tmp_path, decay=0.9)

    average = run.state.served["net"]
    assert average is run.state.averages["net"]
    assert type(average) is type(run.state.models["net"])
    assert average.state_dict().keys() == run.state.models["net"].state_dict().keys()
    assert not any(module.training for module in average.modules())
    assert not any(weight.requires_grad for weight in average.parameters())


def test_training_itself_is_as_without_an_average(tmp_path):
    plain = make_run(tmp_path / "plain", values=[1.0] * 8)
    plain.train()

    run = trained(tmp_path / "ema", decay=0.9)

    assert equal(run.state.models["net"], plain.state.models["net"])


def test_the_average_is_what_is_validated_and_saved(tmp_path):
    seen, saved = [], []
    run = make_run(tmp_path, Ema(decay=0.9), PeriodicWeights(every=8))
    validation = Validation(lambda models: seen.append(models) or {})
    run.phases = [replace(phase, validation=validation) for phase in run.phases]
    run.save_weights = lambda path, models: (saved.append(models), path.touch())
    run.train()

    assert len(seen) == 8
    assert all(models["net"] is run.state.averages["net"] for models in [*seen, *saved])
    assert len(saved) == 1


def test_what_was_never_trained_is_equal_and_what_is_frozen_later_comes_closer(tmp_path):
    look = trained(tmp_path, decay=0.5, frozen=(("net.3",), ("net.0",))).callbacks[1]

    for step in range(9):
        assert equal(look.averages[step][3], look.models[step][3])
    assert not equal(look.averages[8][0], look.models[8][0])
    distances = [
        float((look.averages[step][0].weight - look.models[step][0].weight).detach().norm())
        for step in range(8, 17)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] == pytest.approx(distances[0] / 2**8, rel=1e-3)


def averaging(folder, *callbacks):
    return make_run(folder, Ema(decay=0.9, warm_up=True, update_every=2), *callbacks)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = averaging(tmp_path_factory.mktemp("whole"), BreakOff())
    run.train()
    return run


@pytest.mark.parametrize("step", STEPS)
def test_the_average_survives_a_kill_bit_for_bit(tmp_path, step, whole):
    run = resumed(tmp_path, step, averaging)

    assert_same(run, whole)
    assert not equal(run.state.averages["net"], run.state.models["net"])


def test_after_a_divergence_the_average_is_that_of_the_checkpoint(tmp_path):
    run = trained(tmp_path, decay=0.9, bad={6: NAN})

    ((step, before, after),) = run.callbacks[1].back
    assert step == 3
    assert equal(before, after)


class PhaseStarts(Callback):
    """Keeps the model and its average at the start of each phase."""

    def _post_init_(self) -> None:
        self.pairs = []

    def __call__(self, event, state) -> None:
        if isinstance(event, PhaseStart):
            self.pairs.append(copy.deepcopy((state.models["net"], state.averages["net"])))


@pytest.mark.parametrize("adopt", [False, True])
def test_averages_become_the_weights_when_a_phase_ends(tmp_path, adopt):
    starts = PhaseStarts()
    run = make_run(tmp_path, Ema(decay=0.9, adopt=adopt), starts, values=[1.0] * 8)
    run.train()

    assert [equal(*pair) for pair in starts.pairs] == [True, adopt]
    assert equal(run.state.models["net"], run.state.averages["net"]) == adopt


@pytest.mark.parametrize("cut", [7, 8, 9, 15, 16])
def test_a_kill_around_the_end_of_a_phase_changes_nothing(tmp_path, cut):
    def make(folder, *callbacks):
        return make_run(folder, Ema(decay=0.9, adopt=True), *callbacks, values=[1.0] * 8)

    whole = make(tmp_path / "whole", BreakOff())
    whole.train()

    assert_same(resumed(tmp_path / "broken", cut, make), whole)
