"""Serve a bundle over HTTP: predictions, health, metadata, metrics, and a page to try it on.

One thread runs the model. What waits for it goes in together, and nothing waits for others: on a
CPU a larger batch is hardly faster. A request that finds the queue full is refused at once.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Annotated, Any, NamedTuple

import numpy as np
from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from jemtrack.deploy.predict import BundleError, Model, read_images, rows

KINDS = {"image/png": "png", "application/x-npy": "npy", "application/octet-stream": "raw"}
MULTIPART = "multipart/form-data"
OutputArrays = dict[str, np.ndarray]
Waiting = tuple[np.ndarray, asyncio.Future[OutputArrays]]


class Limits(NamedTuple):
    """What a server takes: bytes of a request, images that wait, images in one pass."""

    body: int = 16 * 2**20
    waiting: int = 1024
    batch: int = 64


class QueueFullError(Exception):
    """More images wait than the server takes."""


class Batcher:
    """Runs the model in one thread on all that waits."""

    def __init__(self, model: Model, limits: Limits) -> None:
        self._model, self._limits = model, limits
        self._waiting: deque[Waiting] = deque()
        self._wake = asyncio.Event()
        self.n_waiting = 0

    async def __call__(self, images_NCHW: np.ndarray) -> OutputArrays:
        """Compute the outputs, when it is their turn.

        Raises:
            QueueFullError: if too many wait.
            Exception: whatever the model raised.
        """
        if self.n_waiting + len(images_NCHW) > self._limits.waiting:
            raise QueueFullError
        future: asyncio.Future[OutputArrays] = asyncio.get_running_loop().create_future()
        self._waiting.append((images_NCHW, future))
        self.n_waiting += len(images_NCHW)
        self._wake.set()
        try:
            return await future
        finally:
            self.n_waiting -= len(images_NCHW)

    async def work(self) -> None:
        """Serve until cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as thread:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while taken := self._take():
                    try:
                        images_NCHW = np.concatenate([images for images, _ in taken])
                        found = await loop.run_in_executor(thread, self._model, images_NCHW)
                    except Exception as error:  # of whatever the runtime raises: theirs alone
                        _fail(taken, error)
                    else:
                        _answer(taken, found)

    def _take(self) -> list[Waiting]:
        taken: list[Waiting] = []
        count = 0
        while self._waiting and (
            not taken or count + len(self._waiting[0][0]) <= self._limits.batch
        ):
            taken.append(self._waiting.popleft())
            count += len(taken[-1][0])
        return taken


def _answer(taken: list[Waiting], found: OutputArrays) -> None:
    start = 0
    for images, future in taken:
        part = slice(start, start := start + len(images))
        if not future.done():  # as one that was cancelled, when the server would wait no longer
            future.set_result({name: found[name][part] for name in found})


def _fail(taken: list[Waiting], error: Exception) -> None:
    for _, future in taken:
        if not future.done():
            future.set_exception(error)


class Meters:
    """What Prometheus reads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        names: dict[str, Any] = {"registry": self.registry, "namespace": "jemtrack"}
        self.requests = Counter("requests", "Requests by status", ["status"], **names)
        self.images = Counter("images", "Images answered", **names)
        self.refused = Counter("images_refused", "Images below the threshold", **names)
        self.waiting = Gauge("images_waiting", "Images in the queue", **names)
        buckets = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
        self.seconds = Histogram(
            "request_seconds", "Seconds of a prediction's request", buckets=buckets, **names
        )


class Service(NamedTuple):
    """What the endpoints share."""

    model: Model
    limits: Limits
    batcher: Batcher
    meters: Meters


def make_app(model: Model, limits: Limits | None = None) -> FastAPI:
    """Make the application that serves a model."""
    limits = limits or Limits()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        batcher, meters = Batcher(model, limits), Meters()
        meters.waiting.set_function(lambda: batcher.n_waiting)
        worker = asyncio.create_task(batcher.work())
        try:
            await batcher(np.zeros((1, *model.shape), np.uint8))  # the first pass allocates
            app.state.service = Service(model, limits, batcher, meters)
            yield
        finally:
            worker.cancel()
            with suppress(asyncio.CancelledError):
                await worker

    app = FastAPI(title=f"jemtrack: {model.description['name']}", lifespan=lifespan)
    app.include_router(router)
    app.include_router(counted_router)
    return app


class CountedRoute(APIRoute):
    """Counts its requests by the status that they are answered with."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler, and what FastAPI checks before it."""
        handle = super().get_route_handler()

        async def counted(request: Request) -> Response:
            status = 500
            try:
                response = await handle(request)
                status = response.status_code
                return response
            except RequestValidationError:
                status = 422
                raise
            except HTTPException as error:
                status = error.status_code
                raise
            finally:
                request.app.state.service.meters.requests.labels(status).inc()

        return counted


router, counted_router = APIRouter(), APIRouter(route_class=CountedRoute)
Threshold = Annotated[float | None, Query(allow_inf_nan=False)]
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FILES = {"type": "array", "items": _BINARY["schema"]}
_FORM = {"schema": {"type": "object", "properties": {"images": _FILES}}}


@counted_router.post(
    "/predict",
    openapi_extra={"requestBody": {"content": {**dict.fromkeys(KINDS, _BINARY), MULTIPART: _FORM}}},
)
async def predict(request: Request, threshold: Threshold = None) -> JSONResponse:
    """Answer for one image or several: a PNG, an npy, raw pixels, or a form with several files.

    `threshold` of log p~(x) takes the place of the model's.
    """
    service: Service = request.app.state.service
    started = time.perf_counter()
    answers = await _answers(request, service)
    if threshold is None:
        threshold = service.model.threshold
    else:
        answers["refused"] = ~(answers["log_density"] >= np.float32(threshold))
    service.meters.images.inc(len(answers["refused"]))
    service.meters.refused.inc(int(answers["refused"].sum()))
    service.meters.seconds.observe(time.perf_counter() - started)
    predictions = rows(answers, service.model.description["classes"])
    return JSONResponse({"threshold": threshold, "predictions": predictions})


async def _answers(request: Request, service: Service) -> OutputArrays:
    body = await _body(request, service.limits.body)
    try:
        images_NCHW = await _images(request, body, service.model.shape)
        if len(images_NCHW) > service.limits.waiting:
            raise HTTPException(413, f"at most {service.limits.waiting} images in a request")
        return await service.batcher(images_NCHW)
    except BundleError as error:
        raise HTTPException(400, str(error)) from error
    except QueueFullError as error:
        raise HTTPException(503, "the queue is full: try again", {"Retry-After": "1"}) from error


async def _body(request: Request, limit: int) -> bytes:
    """Read the body, and no more of it than the limit."""
    body = bytearray()
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) <= limit:
        async for part in request.stream():
            body += part
            if len(body) > limit:
                break
        else:
            return bytes(body)
    # The connection is closed, or the rest of the body would still be received.
    message = f"a request must have at most {limit} bytes"
    raise HTTPException(413, message, {"Connection": "close"})


async def _images(request: Request, body: bytes, shape: tuple[int, ...]) -> np.ndarray:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in KINDS:
        return read_images(body, KINDS[kind], shape)
    if kind != MULTIPART:
        expected = ", ".join([*KINDS, MULTIPART])
        raise HTTPException(415, f"content-type must be one of {expected}, got {kind[:100]!r}")

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await MultiPartParser(request.headers, stream()).parse()
    except (MultiPartException, KeyError) as error:
        raise BundleError(f"not a readable form: {error}") from error
    parts = [each for _, each in form.multi_items() if isinstance(each, UploadFile)]
    read = [
        read_images(await each.read(), KINDS.get(each.content_type or "", "raw"), shape)
        for each in parts
    ]
    if not read:
        raise BundleError("the form has no files")
    return np.concatenate(read)


@router.get("/health")
async def health() -> dict[str, str]:
    """Say that the process lives."""
    return {"status": "ok"}


@router.get("/ready")
async def ready(request: Request) -> dict[str, str]:
    """Say whether a request would be taken now: 503 while the queue is full."""
    service: Service = request.app.state.service
    if service.batcher.n_waiting >= service.limits.waiting:
        raise HTTPException(503, "the queue is full")
    return {"status": "ready"}


@router.get("/metadata")
async def metadata(request: Request) -> dict[str, Any]:
    """Give the bundle's description: classes, shapes, thresholds, figures, versions."""
    service: Service = request.app.state.service
    return service.model.description


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Give the counters in the text format of Prometheus."""
    service: Service = request.app.state.service
    return Response(generate_latest(service.meters.registry), media_type="text/plain")


@router.get("/", include_in_schema=False)
async def page() -> HTMLResponse:
    """Show a page on which a person drops an image."""
    return HTMLResponse(files("jemtrack.deploy").joinpath("page.html").read_text("utf-8"))
