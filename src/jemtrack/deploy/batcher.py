"""Hand the images of requests to workers: what waits goes in together, and nothing waits for more.

On a CPU a larger batch is hardly faster, so that a worker which is free takes its share at once. A
request that finds the queue full is refused at once. What a worker died of goes to the next one.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from jemtrack.deploy.worker import ModelFailedError, OutputArrays, WorkerDiedError

log = logging.getLogger("uvicorn.error")

_MOST_DEATHS = 3  # of workers with a request, before it is taken for what they died of


class Limits(NamedTuple):
    """What a server takes: bytes of a request, images that wait, images in one pass."""

    body: int = 16 * 2**20
    waiting: int = 1024
    batch: int = 64


class QueueFullError(Exception):
    """More images wait than the server takes."""


class AnyWorker(Protocol):
    """What answers, as `Worker` does."""

    async def __call__(self, images_NCHW: np.ndarray) -> OutputArrays:
        """Compute the outputs."""
        ...

    async def end(self) -> object:
        """Free what it has."""
        ...


@dataclass
class _Request:
    images_NCHW: np.ndarray
    future: asyncio.Future[OutputArrays]
    deaths: int = 0


class Batcher:
    """Shares all that waits among the workers.

    Attributes:
        n_waiting: images without an answer.
        n_deaths: of workers.
        problem: what the last pass failed of; "" if it did not.
    """

    def __init__(self, workers: Sequence[AnyWorker], limits: Limits) -> None:
        self._workers, self._limits = workers, limits
        self._idle = [*workers]  # the last has the model in the processor's caches
        self._queue: deque[_Request] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self.n_waiting, self.n_deaths, self.problem = 0, 0, ""

    async def __call__(self, images_NCHW: np.ndarray) -> OutputArrays:
        """Compute the outputs, when it is their turn.

        Raises:
            QueueFullError: if too many wait.
            ModelFailedError: if the model raised.
            WorkerDiedError: if several workers died of it.
        """
        if self.n_waiting + len(images_NCHW) > self._limits.waiting:
            raise QueueFullError
        request = _Request(images_NCHW, asyncio.get_running_loop().create_future())
        self._queue.append(request)
        self.n_waiting += len(images_NCHW)
        # Not at once: requests that were read together go in together.
        asyncio.get_running_loop().call_soon(self._dispatch)
        try:
            return await request.future
        finally:
            self.n_waiting -= len(images_NCHW)

    async def start(self, image_1CHW: np.ndarray) -> None:
        """Start all workers, by a first pass in each, which allocates; note a problem."""
        passes = [asyncio.create_task(self(image_1CHW)) for _ in self._workers]
        await asyncio.gather(*passes, return_exceptions=True)

    async def end(self) -> None:
        """End all workers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(worker.end() for worker in self._workers))

    def _dispatch(self) -> None:
        while self._queue and self._idle:
            taken = self._take()
            task = asyncio.create_task(self._run(self._idle.pop(), taken))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _take(self) -> list[_Request]:
        """Take the share of one idle worker; what a worker died with goes alone."""
        share = -(-sum(len(each.images_NCHW) for each in self._queue) // len(self._idle))
        most = min(share, self._limits.batch)
        taken = [self._queue.popleft()]
        count = len(taken[0].images_NCHW)
        while self._queue and not (taken[0].deaths or self._queue[0].deaths):
            count += len(self._queue[0].images_NCHW)
            if count > most:
                break
            taken.append(self._queue.popleft())
        return taken

    async def _run(self, worker: AnyWorker, taken: list[_Request]) -> None:
        try:
            found = await worker(np.concatenate([each.images_NCHW for each in taken]))
        except WorkerDiedError as error:
            self.n_deaths += 1
            self._note(error)
            for each in reversed(taken):
                each.deaths += 1
                if each.deaths < _MOST_DEATHS:
                    self._queue.appendleft(each)
                elif not each.future.done():
                    each.future.set_exception(error)
        except Exception as error:  # of whatever a model raises: theirs alone
            self._note(error)
            for each in taken:
                if not each.future.done():
                    each.future.set_exception(ModelFailedError(str(error)))
        else:
            self.problem = ""
            _answer(taken, found)
        self._idle.append(worker)
        self._dispatch()

    def _note(self, error: Exception) -> None:
        if not self.problem:
            log.error("the model failed: %s", error)
        self.problem = str(error)


def _answer(taken: list[_Request], found: OutputArrays) -> None:
    start = 0
    for each in taken:
        part = slice(start, start := start + len(each.images_NCHW))
        if not each.future.done():  # as one that was cancelled, when its client would not wait
            each.future.set_result({name: found[name][part] for name in found})
