"""Serve a bundle over HTTP until SIGTERM or Ctrl-C."""

from pathlib import Path

import uvicorn

from jemtrack.deploy.predictor import opened
from jemtrack.deploy.server import Limits, make_app
from jemtrack.errors import InputError

_DRAIN = 30  # seconds for the requests that are in work when the server is told to end


def serve(bundle: Path, *, model: str, host: str, port: int, threads: int, limits: Limits) -> None:
    """Serve the bundle's model; requests in work are answered before the server ends.

    Raises:
        InputError: if the bundle cannot be used, or a number is out of its bounds.
    """
    if not 0 <= port < 2**16:
        raise InputError(f"--port must be 0 to 65535, got {port}")
    if min(limits) < 1 or threads < 0:
        raise InputError(f"limits must be >= 1 and --threads >= 0, got {[*limits]} and {threads}")
    app = make_app(opened(bundle, model, threads=threads), limits)
    uvicorn.run(app, host=host, port=port, access_log=False, timeout_graceful_shutdown=_DRAIN)
