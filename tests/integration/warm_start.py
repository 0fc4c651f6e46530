"""Warm starts: `dvc`, `zntrack` and `jemtrack` forked from a process that has imported torch.

Most of a small stage's time goes into imports. A server imports the libraries once, never
jemtrack, which is each project's own. Programs named `dvc` and so on, first on a project's PATH,
hand it their arguments, folder, environment and open files; it forks a child that goes on as the
real program would. Not for what is killed: the child is in a session of its own, and its entry
in /proc shows the server's environment.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import marshal
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy
import torch

# What the stages and commands import; whatever is missing here is imported by each of them.
IMPORTED = (
    "torch", "zntrack.cli", "zntrack.plugins.dvc_plugin", "zninit", "dvc.cli.parser",
    "dvc.repo.index", "dvc.repo.reproduce", "dvc.repo.experiments", "dvc.repo.plots",
    "dvc.render.convert", "dvc_render", "dvc_data.index", "jinja2", "matplotlib.figure",
    "matplotlib.backends.backend_agg", "pandas", "PIL.Image", "psutil",
    "pydantic.dataclasses", "pydantic.type_adapter", "rich.progress", "rich.table", "ruamel.yaml",
    "safetensors.torch", "scipy.ndimage", "scipy.stats", "sklearn.covariance", "sklearn.metrics",
    "sklearn.model_selection",
)  # fmt: skip
COMMANDS = ("dvc", "zntrack", "jemtrack")

# Isolated and without site-packages a Python starts in ten milliseconds; these modules are part
# of the interpreter. A signal that kills it closes the connection, whereupon the server kills the
# child with all that it has started; the child's own end is passed on as it was.
CLIENT = """#!{python} -ISE
import _socket, marshal, posix, sys
if posix.environ.get(b"PYTHONPATH", b"") != {path!r}:
    posix.execv({command!r}, [{command!r}, *sys.argv[1:]])  # it may import other packages
server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
server.connect({address!r})
request = marshal.dumps(([{command!r}, *sys.argv[1:]], posix.getcwd(), posix.environ))
files = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, files)]
server.sendmsg([len(request).to_bytes(4, "big")], rights)
server.sendall(request)
status = int(server.recv(16))
if status < 0:
    posix.kill(posix.getpid(), -status)
posix._exit(status)
"""


@functools.cache
def warm_commands(**environment: str) -> Path:
    """Start a server with these variables, which libraries read when they are imported.

    Return the folder of the programs that it serves until this process ends.
    """
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    address = str(folder / "socket")
    path = environment.get("PYTHONPATH", "").encode()
    for name in COMMANDS:
        command = str(Path(sys.executable).with_name(name))
        text = CLIENT.format(python=sys.executable, path=path, command=command, address=address)
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    server = subprocess.Popen(
        [sys.executable, __file__, address],
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the tests: the server ends with them
    )
    atexit.register(shutil.rmtree, folder)
    atexit.register(server.communicate)  # which closes its stdin
    assert server.stdout.readline() == "ready\n"
    return folder


def received(connection: socket.socket) -> tuple[list[str], str, Mapping[bytes, bytes], list[int]]:
    """Receive a request: arguments, folder, environment and the three standard files."""
    size, files, _, _ = socket.recv_fds(connection, 4, 3)
    with connection.makefile("rb") as stream:
        return (*marshal.loads(stream.read(int.from_bytes(size, "big"))), files)


def serve(address: str) -> list[str] | None:
    """Fork a child for each request, in which this returns the arguments; None in the end."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(64)
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    selector.register(0, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listening:
                connection, _ = listening.accept()
                try:
                    request = received(connection)
                except EOFError:
                    continue  # the program was killed while it asked
                if (pid := os.fork()) == 0:
                    selector.close()
                    listening.close()
                    connection.close()
                    return become(*request)
                for file in request[-1]:
                    os.close(file)
                # Whichever ends first: the child, or the program that asked for it.
                ended = os.pidfd_open(pid)
                selector.register(ended, selectors.EVENT_READ, (pid, ended, connection))
                selector.register(connection, selectors.EVENT_READ, (pid, ended, connection))
            elif key.data:
                finish(selector, *key.data)
            else:
                return None


def finish(
    selector: selectors.BaseSelector, pid: int, ended: int, connection: socket.socket
) -> None:
    """Tell the program how its child ended, or kill the child of a program that is gone."""
    if connection not in selector.get_map():
        return  # both of them ended at once
    found, status = os.waitpid(pid, os.WNOHANG)
    if not found:
        with contextlib.suppress(ProcessLookupError):  # it may be too young to have a group
            os.killpg(pid, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    selector.unregister(ended)
    selector.unregister(connection)
    os.close(ended)
    if found:
        with contextlib.suppress(BrokenPipeError):  # the program was killed as its child ended
            connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    connection.close()


def become(
    arguments: list[str], folder: str, environment: Mapping[bytes, bytes], files: list[int]
) -> list[str]:
    """Make this child what the program would be that is run in that way."""
    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environb.clear()
    os.environb.update(environment)
    os.chdir(folder)
    # No two processes begin alike, and no test may pass because they do.
    numpy.random.seed()  # noqa: NPY002
    torch.default_generator.seed()
    return arguments


def main() -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    assert "jemtrack" not in sys.modules
    gc.collect()
    gc.freeze()  # the children need no copies of what the collector would touch
    arguments = serve(sys.argv[1])
    if arguments is not None:
        sys.argv[:] = arguments
        sys.path[0] = str(Path(arguments[0]).parent)
        if "sitecustomize" in sys.modules:  # which looked around where the server was started
            importlib.reload(sys.modules["sitecustomize"])
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
