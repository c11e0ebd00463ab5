# SPDX-License-Identifier: Apache-2.0
"""The HTTP side: `create_app(service)` → ASGI application with an OpenAPI description. No decision about jobs is made
here; every handler checks its input, asks the dispatcher or the store, and answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi import Path as PathParam
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.staticfiles import StaticFiles

from retake.core.errors import InputError, RetakeError
from retake.core.wire import API, record_to_json, status_to_json
from retake.worker import api_models as m
from retake.worker.backends import obstacle
from retake.worker.roots import OutsideRootsError
from retake.worker.security import Guard
from retake.worker.service import Service
from retake.worker.store import ConflictError, QueueUnwritableError, UnknownJobError, check_states
from retake.worker.tunings import Tuning

PAGE = Path(__file__).parent / "page"
HEARTBEAT_S = 15.0
JobId = Annotated[str, PathParam(min_length=1, max_length=64)]
Filter = Annotated[str, Query(max_length=300)]


class Answer(JSONResponse):
    """JSON in ASCII: text that UTF-8 cannot carry must not break an answer."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def create_app(service: Service) -> FastAPI:
    """The application around a service (which the caller starts and stops)."""
    app = FastAPI(
        title="Retake worker", version=API, default_response_class=Answer, responses=m.ERRORS,
        openapi_url="/api/openapi.json", docs_url=None, redoc_url=None,  # their pages load scripts from the web
        description="A durable queue of takes and first frames on this machine. Every call under /api needs the token.",
    )  # fmt: skip
    for error_type, status in (
        (OutsideRootsError, 403), (UnknownJobError, 404), (ConflictError, 409), (QueueUnwritableError, 507), (InputError, 400),
        (RetakeError, 409), (RecursionError, 400), (UnicodeError, 400),
    ):  # fmt: skip
        app.add_exception_handler(error_type, _say(status))
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    _queue_routes(app, service)
    _watch_routes(app, service)
    _gallery_routes(app, service)
    _tuning_routes(app, service)
    app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    app.add_middleware(Guard, token=service.token, max_body_bytes=service.settings.service.max_body_bytes)
    return app


def _queue_routes(app: FastAPI, service: Service) -> None:
    dispatcher, store = service.dispatcher, service.store

    @app.post("/api/jobs", response_model=m.SubmitAnswer, summary="Queue jobs")
    def submit(body: m.SubmitBody) -> Response:
        records, created = service.submit([job.model_dump() for job in body.jobs])
        return Answer({"jobs": [record_to_json(r) for r in records], "created": created})

    @app.get("/api/jobs", response_model=m.JobsAnswer, summary="One page of jobs: running, queued, then the newest")
    def jobs(
        state: Filter = "", kind: Filter = "", limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    ) -> Response:  # fmt: skip
        if kind not in ("", "take", "variant"):
            raise InputError(f"unknown kind {kind[:40]!r}; valid: take, variant")
        page = store.page(check_states(state), limit, offset, kind)
        return Answer({"jobs": [record_to_json(dispatcher.live(r)) for r in page], "counts": store.counts()})

    @app.get("/api/jobs/{job_id}", response_model=m.JobAnswer)
    def job(job_id: JobId) -> Response:
        return Answer(record_to_json(dispatcher.live(store.get(job_id))))

    @app.get("/api/jobs/{job_id}/log", response_model=m.LogAnswer)
    def log(job_id: JobId) -> Response:
        return Answer({"log": store.log_of(job_id)})

    @app.get("/api/jobs/{job_id}/preview", responses={200: {"content": {"image/jpeg": {}}}}, response_class=Response)
    def preview(job_id: JobId) -> Response:
        record = store.get(job_id)
        try:
            return Response((dispatcher.previews / f"{record.id}.jpg").read_bytes(), media_type="image/jpeg")
        except OSError as error:
            raise UnknownJobError(f"job {record.id} has no preview now; running jobs have one") from error

    @app.post("/api/jobs/{job_id}/cancel", response_model=m.JobAnswer)
    def cancel(job_id: JobId) -> Response:
        dispatcher.ask(lambda: dispatcher.cancel(job_id))
        return job(job_id)

    @app.post("/api/jobs/{job_id}/retry", response_model=m.JobAnswer)
    def retry(job_id: JobId) -> Response:
        dispatcher.ask(lambda: dispatcher.retry(job_id))
        return job(job_id)

    @app.post("/api/jobs/{job_id}/priority", response_model=m.JobAnswer)
    def priority(job_id: JobId, body: m.PriorityBody) -> Response:
        dispatcher.ask(lambda: store.set_priority(job_id, body.priority))
        return job(job_id)

    @app.delete(
        "/api/jobs/{job_id}", response_model=m.JobAnswer, summary="Take a finished job off the list; its output stays"
    )
    def forget(job_id: JobId) -> Response:
        record = store.get(job_id)
        dispatcher.ask(lambda: store.forget(job_id))
        service.hub.publish("queue", {"counts": store.counts()})
        return Answer(record_to_json(record))

    @app.post("/api/queue/pause", response_model=m.StatusAnswer)
    def pause() -> Response:
        dispatcher.ask(lambda: dispatcher.set_paused(True))
        return Answer(status_to_json(service.status()))

    @app.post("/api/queue/resume", response_model=m.StatusAnswer)
    def resume() -> Response:
        dispatcher.ask(lambda: dispatcher.set_paused(False))
        return Answer(status_to_json(service.status()))

    @app.post("/api/release", response_model=m.StatusAnswer, summary="Free all GPU memory now")
    def release() -> Response:
        dispatcher.ask(dispatcher.release)
        return Answer(status_to_json(service.status()))


def _watch_routes(app: FastAPI, service: Service) -> None:
    hub = service.hub

    @app.get("/api/health", summary="Whether the service answers (needs no token)")
    def health() -> Response:
        return Answer({"ok": True, "api": API})

    @app.get("/api/status", response_model=m.StatusAnswer)
    def status() -> Response:
        return Answer(status_to_json(service.status()))

    @app.get("/api/changes", response_model=m.ChangesAnswer, summary="What changed since an event; answers at once")
    def changes(
        since: Annotated[int, Query(ge=0, le=2**62)] = 0, epoch: Annotated[str, Query(max_length=64)] = ""
    ) -> Response:
        latest = hub.last
        reset, events = hub.since(since, epoch)
        ids = dict.fromkeys(
            data["job"]["id"] if kind == "job" else data["id"]
            for _, kind, data in events
            if kind in ("job", "progress", "preview")
        )
        records = []
        for job_id in ids:
            with contextlib.suppress(UnknownJobError):
                records.append(record_to_json(service.dispatcher.live(service.store.get(job_id))))
        return Answer({
            "next": events[-1][0] if events else latest, "epoch": hub.epoch, "reset": reset, "jobs": records,
            "counts": service.store.counts(),
        })  # fmt: skip

    @app.get(
        "/api/events",
        summary="Server-sent events: job, progress, preview, queue, status",
        response_class=StreamingResponse,
    )
    async def events(request: Request) -> Response:
        listener = hub.listen()

        async def stream() -> AsyncIterator[str]:
            try:
                yield f"event: hello\ndata: {json.dumps({'epoch': hub.epoch, 'event': hub.last})}\n\n"
                while not hub.closed:
                    try:
                        event = await asyncio.wait_for(listener.get(), HEARTBEAT_S)
                    except asyncio.TimeoutError:
                        yield ": still here\n\n"
                        continue
                    if event is None:
                        return
                    number, kind, data = event
                    yield f"id: {number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"
            finally:
                hub.leave(listener)

        return StreamingResponse(stream(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


def _gallery_routes(app: FastAPI, service: Service) -> None:
    @app.get("/api/takes", response_model=m.TakesAnswer, summary="Finished takes in the roots")
    def takes(
        episode: Filter = "", variant: Filter = "", verdict: Filter = "", limit: Annotated[int, Query(ge=1, le=1000)] = 60,
        offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    ) -> Response:  # fmt: skip
        every = [shown.to_json() for shown in service.gallery.takes()]
        chosen = [
            t for t in every
            if episode in ("", t["episode"]) and variant in ("", t["variant"]) and verdict in ("", t["verdict"])
        ]  # fmt: skip
        return Answer({
            "takes": chosen[offset : offset + limit], "total": len(chosen),
            "episodes": sorted({t["episode"] for t in every}), "variants": sorted({t["variant"] for t in every}),
            "verdicts": sorted({t["verdict"] for t in every}),
        })  # fmt: skip

    @app.get("/api/runs", response_model=m.RunsAnswer, summary="Runs in the roots that takes can be asked for")
    def runs() -> Response:
        said = {b.name: obstacle(b) for b in service.backends.values() if b.kind == "take"}
        usable = sorted(name for name, why in said.items() if not why)
        return Answer({
            "runs": service.gallery.runs(usable), "take_backends": usable,
            "unavailable": {name: why for name, why in sorted(said.items()) if why},
        })  # fmt: skip

    @app.get(
        "/api/takes/{key}/{part}", response_class=FileResponse,
        summary="A take's video, skeleton, simulation, first frame or sidecar",
        responses={
            200: {"content": {"video/mp4": {}, "image/png": {}, "application/json": {}}},
            206: {"description": "A range"}, 416: {"description": "No such range"},
        },
    )  # fmt: skip
    def part(key: JobId, part: m.TakeView) -> Response:
        shown = service.gallery.find(key)
        media = service.gallery.media(shown, part.value) if shown is not None else None
        if media is None:
            raise UnknownJobError(f"no {part.value} of a take {key[:40]!r}; GET /api/takes lists takes and their parts")
        return FileResponse(media[0], media_type=media[1])


def _tuning_routes(app: FastAPI, service: Service) -> None:
    tunings = service.tunings

    def chosen(key: str) -> Tuning:
        found = tunings.find(key)
        if found is None:
            raise UnknownJobError(f"no training {key[:40]!r}; GET /api/tunings lists them")
        return found

    @app.get("/api/tunings", response_model=m.TuningsAnswer, summary="Trainings of `retake tune` in the roots")
    def every() -> Response:
        return Answer({"tunings": [tuning.to_json() for tuning in tunings.all()]})

    @app.get("/api/tunings/{key}/curves", response_model=m.CurvesAnswer, summary="A training's curves, thinned")
    def curves(key: JobId) -> Response:
        return Answer({"curves": chosen(key).curves()})

    @app.get(
        "/api/tunings/{key}/picture/{name}", response_class=FileResponse, summary="A validation picture of a training",
        responses={200: {"content": {"image/png": {}}}},
    )  # fmt: skip
    def picture(key: JobId, name: JobId) -> Response:
        found = tunings.picture(chosen(key), name)
        if found is None:
            raise UnknownJobError(f"no picture {name[:40]!r} of this training; GET /api/tunings lists them")
        return FileResponse(found, media_type="image/png")

    @app.post(
        "/api/tunings/{key}/stop", response_model=m.TuningAnswer,
        summary="Ask a training to write a checkpoint and stop; the command it was started with goes on",
    )  # fmt: skip
    def stop(key: JobId) -> Response:
        tuning = chosen(key)
        tunings.stop(tuning)
        return Answer(tuning.to_json())


def _say(status: int) -> Callable[[Request, Exception], Response]:
    def handler(request: Request, error: Exception) -> Response:
        return Answer({"error": str(error) or type(error).__name__}, status)

    return handler


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return Answer({"error": str(error.detail)}, error.status_code, headers=error.headers)


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()[:5]]
    return Answer({"error": "; ".join(problems) or "the request is not valid"}, 422)
