"""Serve a bundle over HTTP: predictions, health, metadata, metrics, and a page to try it on."""

import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.routing import Route

from jemtrack.deploy.batcher import AnyWorker, Batcher, Limits, QueueFullError
from jemtrack.deploy.predict import MODEL, BundleError, read_images, rows
from jemtrack.deploy.worker import ModelFailedError, OutputArrays, WorkerDiedError

KINDS = {"image/png": "png", "application/x-npy": "npy", "application/octet-stream": "raw"}
MULTIPART = "multipart/form-data"


class Meters:
    """What Prometheus reads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        names: dict[str, Any] = {"registry": self.registry, "namespace": "jemtrack"}
        self.requests = Counter("requests", "Requests by status", ["status"], **names)
        self.images = Counter("images", "Images answered", **names)
        self.refused = Counter("images_refused", "Images below the threshold", **names)
        self.waiting = Gauge("images_waiting", "Images in the queue", **names)
        self.deaths = Gauge("worker_deaths", "Workers that died and were started again", **names)
        buckets = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
        self.seconds = Histogram(
            "request_seconds", "Seconds of a prediction's request", buckets=buckets, **names
        )


class Service(NamedTuple):
    """What the endpoints share."""

    description: Mapping[str, Any]
    shape: tuple[int, ...]
    threshold: float
    limits: Limits
    batcher: Batcher
    meters: Meters

    @property
    def blank(self) -> np.ndarray:
        """An image that asks whether the model works."""
        return np.zeros((1, *self.shape), np.uint8)


def make_app(
    description: Mapping[str, Any],
    workers: Sequence[AnyWorker],
    limits: Limits | None = None,
    file: str = MODEL,
) -> FastAPI:
    """Make the application that serves a model.

    Args:
        description: of the bundle.
        workers: that run the model.
        limits: of a server.
        file: of the bundle's models, the one that the workers run.
    """
    limits, threshold = limits or Limits(), description["models"][file]["threshold"]
    shape = tuple(description["input"]["shape"])

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        batcher, meters = Batcher(workers, limits), Meters()
        meters.waiting.set_function(lambda: batcher.n_waiting)
        meters.deaths.set_function(lambda: batcher.n_deaths)
        service = Service(description, shape, threshold, limits, batcher, meters)
        try:
            await batcher.start(service.blank)
            app.state.service = service
            yield
        finally:
            await batcher.end()

    app = FastAPI(title=f"jemtrack: {description['name']}", lifespan=lifespan)
    app.include_router(router)
    app.add_api_route("/predict", predict, methods=["POST"], openapi_extra=_DOCUMENTED)
    # FastAPI's own route documents this one, which takes a tenth of a millisecond less.
    app.router.routes.insert(0, Route("/predict", counted_predict, methods=["POST"]))
    return app


router = APIRouter()
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FILES = {"type": "array", "items": _BINARY["schema"]}
_FORM = {"schema": {"type": "object", "properties": {"images": _FILES}}}
_DOCUMENTED = {
    "requestBody": {"content": {**dict.fromkeys(KINDS, _BINARY), MULTIPART: _FORM}},
    "parameters": [{"name": "threshold", "in": "query", "schema": {"type": "number"}}],
}


async def counted_predict(request: Request) -> Response:
    """Answer as `predict` does, and count requests by the status that they are answered with."""
    status = 500
    try:
        response = await predict(request)
        status = response.status_code
        return response
    except HTTPException as error:
        status = error.status_code
        raise
    finally:
        request.app.state.service.meters.requests.labels(status).inc()


async def predict(request: Request) -> Response:
    """Answer for one image or several: a PNG, an npy, raw pixels, or a form with several files.

    `threshold` of log p~(x) takes the place of the model's.
    """
    service: Service = request.app.state.service
    started = time.perf_counter()
    threshold = _threshold(request, service.threshold)
    answers = await _answers(request, service)
    if threshold != service.threshold:
        answers["refused"] = ~(answers["log_density"] >= np.float32(threshold))
    service.meters.images.inc(len(answers["refused"]))
    service.meters.refused.inc(int(answers["refused"].sum()))
    service.meters.seconds.observe(time.perf_counter() - started)
    predictions = rows(answers, service.description["classes"])
    return JSONResponse({"threshold": threshold, "predictions": predictions})


def _threshold(request: Request, default: float) -> float:
    text = request.query_params.get("threshold")
    if text is None:
        return default
    with suppress(ValueError):
        if math.isfinite(found := float(text)):
            return found
    raise HTTPException(422, f"threshold must be a number, got {text[:100]!r}")


async def _answers(request: Request, service: Service) -> OutputArrays:
    body = await _body(request, service.limits.body)
    try:
        images_NCHW = await _images(request, body, service.shape)
        if len(images_NCHW) > service.limits.waiting:
            raise HTTPException(413, f"at most {service.limits.waiting} images in a request")
        return await service.batcher(images_NCHW)
    except BundleError as error:
        raise HTTPException(400, str(error)) from error
    except QueueFullError as error:
        raise HTTPException(503, "the queue is full: try again", {"Retry-After": "1"}) from error
    except (ModelFailedError, WorkerDiedError) as error:
        raise HTTPException(500, f"the model failed: {error}") from error


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
    """Say whether a request would be answered now: 503 while the queue is full or the model fails.

    After a failure an image without content is tried, as nobody might ask what is not ready.
    """
    service: Service = request.app.state.service
    try:
        if service.batcher.n_waiting >= service.limits.waiting:
            raise QueueFullError
        if service.batcher.problem:
            await service.batcher(service.blank)
    except QueueFullError as error:
        raise HTTPException(503, "the queue is full") from error
    except (ModelFailedError, WorkerDiedError) as error:
        raise HTTPException(503, f"the model failed: {error}") from error
    return {"status": "ready"}


@router.get("/metadata")
async def metadata(request: Request) -> dict[str, Any]:
    """Give the bundle's description: classes, shapes, thresholds, figures, versions."""
    service: Service = request.app.state.service
    return {**service.description}


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Give the counters in the text format of Prometheus."""
    service: Service = request.app.state.service
    return Response(generate_latest(service.meters.registry), media_type="text/plain")


@router.get("/", include_in_schema=False)
async def page() -> HTMLResponse:
    """Show a page on which a person drops an image."""
    return HTMLResponse(files("jemtrack.deploy").joinpath("page.html").read_text("utf-8"))
