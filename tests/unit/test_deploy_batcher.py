"""What waits is shared among the workers, and what a worker dies of harms nothing else."""

import asyncio
import sys

import numpy as np
import pytest

from jemtrack.deploy.batcher import Batcher, Limits, QueueFullError
from jemtrack.deploy.worker import ModelFailedError, Worker, WorkerDiedError

POISON = 255


class Brightness:
    """A worker that gives each image's largest pixel, and dies of a white one."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    async def __call__(self, images_NCHW: np.ndarray) -> dict[str, np.ndarray]:
        self.sizes.append(len(images_NCHW))
        await asyncio.sleep(0.01)
        if (images_NCHW == POISON).any():
            raise WorkerDiedError("it died")
        return {"largest": images_NCHW.max(axis=(1, 2, 3))}

    async def end(self) -> None:
        pass


def image(value: int, n: int = 1) -> np.ndarray:
    return np.full((n, 1, 2, 2), value, np.uint8)


def answered(workers: list[Brightness], *requests: np.ndarray, **limits: int) -> list:
    async def ask() -> list:
        batcher = Batcher(workers, Limits(**limits))
        return await asyncio.gather(*map(batcher, requests), return_exceptions=True)

    return asyncio.run(ask())


@pytest.mark.parametrize(("batch", "sizes"), [(64, [5, 5]), (3, [3, 3, 3, 1])])
def test_what_waits_is_shared_among_the_idle_workers_up_to_a_batch(batch, sizes):
    workers = [Brightness(), Brightness()]
    found = answered(workers, *map(image, range(10)), batch=batch)

    assert [each["largest"].tolist() for each in found] == [[n] for n in range(10)]
    assert sorted(workers[0].sizes + workers[1].sizes, reverse=True) == sizes
    assert all(each.sizes for each in workers)


def test_one_request_after_another_goes_to_the_worker_whose_caches_are_warm():
    workers = [Brightness(), Brightness()]

    async def ask() -> None:
        batcher = Batcher(workers, Limits())
        for value in range(3):
            await batcher(image(value))

    asyncio.run(ask())
    assert sorted(each.sizes for each in workers) == [[], [1, 1, 1]]


def test_one_worker_takes_all_together():
    worker = Brightness()
    found = answered([worker], image(3, 2), image(5), image(7, 4))

    assert [each["largest"].tolist() for each in found] == [[3, 3], [5], [7] * 4]
    assert worker.sizes == [7]


@pytest.mark.parametrize("n_workers", [1, 3])
def test_what_workers_die_of_fails_alone(n_workers):
    workers = [Brightness() for _ in range(n_workers)]
    found = answered(workers, image(1), image(POISON), *map(image, range(2, 8)))

    assert isinstance(found.pop(1), WorkerDiedError)
    assert [each["largest"].tolist() for each in found] == [[n] for n in range(1, 8)]


def test_more_than_may_wait_is_refused():
    found = answered([Brightness()], image(1, 3), image(2, 3), image(3, 2), waiting=5)

    assert isinstance(found[1], QueueFullError)
    assert found[2]["largest"].tolist() == [3, 3]


def test_a_process_that_cannot_start_is_told_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ModelFailedError, match="ended with status 1 while it started"):
        asyncio.run(Worker(tmp_path, "model.onnx", 1)(image(0)))
