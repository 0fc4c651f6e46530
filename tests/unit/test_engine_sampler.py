import torch
from hypothesis import given
from hypothesis import strategies as st

from jemtrack.shared.random_streams import EpochSampler, generator, stream_seed

samplers = st.builds(EpochSampler, st.integers(1, 60), st.integers(1, 20), st.integers(0, 2**32))


@given(sampler=samplers, epoch=st.integers(0, 5))
def test_an_epoch_visits_each_item_once(sampler, epoch):
    batches = list(sampler.epoch(epoch))

    assert torch.cat(batches).sort().values.equal(torch.arange(sampler.n_items))
    assert len(batches) == len(sampler)
    assert all(len(batch) == sampler.batch_size for batch in batches[:-1])


@given(sampler=samplers, epoch=st.integers(0, 5), data=st.data())
def test_any_batch_is_found_without_those_before_it(sampler, epoch, data):
    start = data.draw(st.integers(0, len(sampler)))

    whole, rest = list(sampler.epoch(epoch)), list(sampler.epoch(epoch, start))

    assert len(rest) == len(whole) - start
    for mine, theirs in zip(rest, whole[start:], strict=True):
        assert mine.equal(theirs)


def test_order_depends_on_seed_and_epoch():
    orders = [
        torch.cat(list(EpochSampler(100, 10, seed).epoch(epoch))).tolist()
        for seed in (1, 2)
        for epoch in (0, 1)
    ]

    assert len({tuple(order) for order in orders}) == 4


def test_streams_are_apart_and_found_again():
    seeds = {stream_seed(seed, name, i) for seed in (1, 11) for name in "ab" for i in (1, 11)}

    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert torch.rand(3, generator=generator(1, "a")).equal(
        torch.rand(3, generator=generator(1, "a"))
    )
