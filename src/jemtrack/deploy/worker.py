"""A bundle's model in a process of its own: who speaks with it, and what runs there.

A message is its length and its content: the pixels of images one way, the other way a pickle of the
outputs, or of the text of what the model raised. The first says in this way that it is loaded.
"""

import asyncio
import contextlib
import os
import pickle
import signal
import struct
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import numpy as np

from jemtrack.deploy.predict import BundleError, Model

OutputArrays = dict[str, np.ndarray]
_LENGTH = struct.Struct("<Q")
_PATIENCE = 5.0  # seconds for a process to end once nobody asks it any more
_MOST_STARTS = 10  # of which each but the last was ended by a signal


class ModelFailedError(Exception):
    """The model raised; the message says what."""


class WorkerDiedError(Exception):
    """The process ended before it answered."""


class Worker:
    """Answers from a process, which is started when it is first asked, and again if it has died."""

    def __init__(self, bundle: Path, file: str, threads: int) -> None:
        module, model = "jemtrack.deploy.worker", (str(bundle), file, str(threads))
        self._command = (sys.executable, "-m", module, *model)
        self._process: Process | None = None

    async def __call__(self, images_NCHW: np.ndarray) -> OutputArrays:
        """Compute the outputs; one call at a time.

        Raises:
            ModelFailedError: if the model raised.
            WorkerDiedError: if the process died meanwhile.
        """
        process = await self._started()
        content = images_NCHW.tobytes()
        assert process.stdin
        try:
            process.stdin.write(_LENGTH.pack(len(content)) + content)
            return await _answer(process)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise WorkerDiedError(f"its process ended with status {await self.end()}") from error

    async def _started(self) -> Process:
        """Return the process; one that is killed while it starts is no request's fault."""
        for _ in range(_MOST_STARTS):
            if self._process is not None:
                assert self._process.stdin
                if not self._process.stdin.is_closing():
                    return self._process
                await self.end()  # it died while nobody asked it
            start = asyncio.create_subprocess_exec(*self._command, stdin=PIPE, stdout=PIPE)
            self._process = await start
            try:
                await _answer(self._process)
            except ModelFailedError:
                await self.end()
                raise
            except asyncio.IncompleteReadError as error:
                if ((status := await self.end()) or 0) >= 0:  # of its own accord
                    text = f"its process ended with status {status} while it started"
                    raise ModelFailedError(text) from error
        raise WorkerDiedError(f"its process was killed {_MOST_STARTS} times while it started")

    async def end(self) -> int | None:
        """End the process; return its status."""
        process, self._process = self._process, None
        if process is None:
            return None
        assert process.stdin
        process.stdin.close()
        try:
            async with asyncio.timeout(_PATIENCE):
                return await process.wait()
        except TimeoutError:
            process.kill()
            return await process.wait()


async def _answer(process: Process) -> OutputArrays:
    assert process.stdout
    (length,) = _LENGTH.unpack(await process.stdout.readexactly(_LENGTH.size))
    found: OutputArrays | str = pickle.loads(await process.stdout.readexactly(length))
    if isinstance(found, str):
        raise ModelFailedError(found)
    return found


def main(bundle: str, file: str, threads: str) -> None:
    """Answer until standard input ends, which it does when the server has."""
    # The server is told to end, and ends this process when it has answered all.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer

    def answer(found: OutputArrays | str) -> None:
        content = pickle.dumps(found, pickle.HIGHEST_PROTOCOL)
        answers.write(_LENGTH.pack(len(content)) + content)
        answers.flush()

    try:
        model = Model(bundle, file, threads=int(threads))
    except BundleError as error:
        answer(str(error))
        return
    answer({})
    while head := requests.read(_LENGTH.size):
        content = requests.read(_LENGTH.unpack(head)[0])
        try:
            answer(model(np.frombuffer(content, np.uint8).reshape(-1, *model.shape)))
        except Exception as error:  # onnxruntime's errors have no base class but this
            answer(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the server was killed
        main(*sys.argv[1:])
