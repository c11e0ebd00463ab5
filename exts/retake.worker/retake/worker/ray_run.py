# SPDX-License-Identifier: Apache-2.0
"""More than one GPU or machine: the same jobs over a Ray cluster, outputs on storage that all nodes share.

One actor per GPU (per CPU core for backends without one) runs exactly `execute`. Ray decides where actors live: a node
that declares the resource `vram_gib` (`ray start --resources='{"vram_gib": 24}'`) only gets actors whose smallest memory
tier it can hold. Here only idle actors are handed the next job; what a lost node was doing is handed to another one.
Ray's own actor retries are not used: they wait for the lost node's resources to come back.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from retake.core import plugins
from retake.core.errors import InputError, MissingDependencyError, TakeError, WorkerError, install_hint
from retake.core.files import read_json, write_json
from retake.core.progress import CheckCancel, Progress, never, silent
from retake.core.run_layout import TAKE_RECORD, name_of
from retake.core.takes.base import Take, TakeRequest
from retake.core.takes.fan_out import BACKENDS, video_backend
from retake.core.takes.make import kept_take, open_take
from retake.core.wire import TakeJob, VariantJob, job_from_json, job_to_json
from retake.worker.backends import find, registry, spec_from_json, spec_to_json
from retake.worker.memory import GIB, fault_of, held_device_bytes
from retake.worker.settings import BackendSpec, load_settings

MAX_LOSSES = 3
"""A job during which three actors died is not tried a fourth time: it may be what kills them."""
START_S = 120.0
CONNECT_S = 10.0


class _Actor:
    """Lives on a node; holds one loaded backend."""

    def __init__(self, margin_gib: float) -> None:
        from retake.worker.execute import Loaded
        from retake.worker.gpu import NvmlProbe

        self._loaded, self._gpu, self._margin_gib = Loaded(), NvmlProbe(), margin_gib

    def ready(self) -> bool:
        """Answers once it lives."""
        return True

    def run(self, job: dict[str, Any], backend: dict[str, Any], content: str, attempt: int) -> dict[str, Any]:
        """One job; errors come back as values, so that only a lost process is an exception."""
        from retake.worker.execute import Context, describe, execute
        from retake.worker.gpu import pick_tier

        spec = spec_from_json(backend)
        try:
            place = pick_tier(spec, self._gpu.read(frozenset({os.getpid()})), self._margin_gib, held_device_bytes())
            if place.reason and self._loaded.instance is None:
                return {"error": place.reason, "again": True}
            context = Context(
                "ray",
                content,
                tier=place.tier,
                card=place.card,
                margin_bytes=int(self._margin_gib * GIB),
                attempt=attempt,
            )
            return {"result": execute(job_from_json(job), spec, self._loaded, context)}
        except Exception as error:
            fault = fault_of(error)
            if fault == "context":
                os._exit(3)  # CUDA is poisoned in this process: Ray sees a lost actor, and the job goes to another
            text, again = describe(error)
        # Outside the handler, whose traceback holds tensors: the next job begins with a free card.
        if fault == "memory":
            self._loaded.close()
        return {"error": text, "again": again or fault == "memory"}


class Fleet:
    """Actors on a Ray cluster. Use as a context manager; leaving it ends the actors (and a cluster started here)."""

    def __init__(
        self, address: str, backend: BackendSpec, *, size: int = 0, max_attempts: int = 3, margin_gib: float = 1.0,
        runtime_env: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """`address`: `local` starts a cluster on this machine; else as `ray.init` takes it. `size`: 0 = one per GPU or core."""
        self._ray = _ray()
        self._backend, self._max_attempts, self._margin = backend, max_attempts, margin_gib
        self._own = not self._ray.is_initialized()
        if self._own:
            _answers(address)
            try:
                self._ray.init(
                    address=None if address == "local" else address, include_dashboard=False if address == "local" else None,
                    logging_level="ERROR", log_to_driver=False, runtime_env=dict(runtime_env or {}), configure_logging=False,
                )  # fmt: skip
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise WorkerError(
                    f"no Ray cluster at {address!r}: {error}; start one with `ray start --head`, or use --ray local"
                ) from error
        resources = self._ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if backend.tiers else 0
        self._options: dict[str, Any] = {"num_gpus": 1, "num_cpus": 0} if gpus else {"num_cpus": 1}
        if gpus and "vram_gib" in resources:
            self._options["resources"] = {"vram_gib": min(need for _, need in backend.tiers) / GIB}
        self.size = size or gpus or max(1, int(resources.get("CPU", 1)))
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self.lost = 0

    def start(self, size: int | None = None) -> Fleet:
        """Bring up the actors and wait until the first one lives. Raises WorkerError when no node has room."""
        for _ in range(self.size if size is None else size):
            self._hire()
        self._await_first(START_S)
        return self

    def settle(self, timeout_s: float = START_S) -> int:
        """Wait until all actors live; returns how many."""
        if self._starting:
            ready, _ = self._ray.wait(list(self._starting), num_returns=len(self._starting), timeout=timeout_s)
            self._admit(ready)
        return len(self._idle)

    def run(
        self, jobs: Sequence[tuple[TakeJob | VariantJob, str]],
        on_done: Callable[[TakeJob | VariantJob], None] = lambda job: None,
        check_cancel: CheckCancel = never,
    ) -> dict[Path, str]:  # fmt: skip
        """Run (job, content hash) pairs to the end; returns output → reason for those that failed. Raises Cancelled."""
        pending = deque((job, content, 1, 0) for job, content in jobs)
        flying: dict[Any, tuple[Any, tuple[Any, str, int, int]]] = {}
        failed: dict[Path, str] = {}
        while pending or flying:
            check_cancel()
            while pending and self._idle:
                actor, item = self._idle.pop(), pending.popleft()
                reference = actor.run.remote(job_to_json(item[0]), spec_to_json(self._backend), item[1], item[2])
                flying[reference] = (actor, item)
            if not flying and not self._starting:
                self._hire()
            if not flying:
                self._await_first(START_S)
            ready, _ = self._ray.wait([*flying, *self._starting], num_returns=1, timeout=0.2)
            self._admit([r for r in ready if r in self._starting])
            for reference in [r for r in ready if r in flying]:
                actor, (job, content, attempt, losses) = flying.pop(reference)
                try:
                    answer = self._ray.get(reference)
                except self._ray.exceptions.RayError as error:
                    self.lost += 1
                    self._hire()
                    if losses + 1 >= MAX_LOSSES:
                        failed[job.output] = f"{losses + 1} processes died while it ran ({type(error).__name__})"
                    else:
                        pending.append((job, content, attempt, losses + 1))
                    continue
                self._idle.append(actor)
                if "result" in answer:
                    on_done(job)
                elif answer["again"] and attempt < self._max_attempts:
                    pending.append((job, content, attempt + 1, losses))
                else:
                    failed[job.output] = answer["error"]
        return failed

    def close(self) -> None:
        """End the actors; their nodes stay, unless they were started here."""
        for actor in [*self._idle, *self._starting.values()]:
            self._ray.kill(actor)
        self._idle.clear()
        self._starting.clear()
        if self._own:
            self._ray.shutdown()

    def __enter__(self) -> Fleet:
        try:
            return self.start()
        except BaseException:
            self.close()  # __exit__ is not called for it
            raise

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _hire(self) -> None:
        actor = self._ray.remote(_Actor).options(**self._options).remote(self._margin)
        self._starting[actor.ready.remote()] = actor

    def _admit(self, references: Sequence[Any]) -> None:
        for reference in references:
            actor = self._starting.pop(reference)
            try:
                self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                self.lost += 1
                if self.lost > 20:
                    raise WorkerError(f"actors keep dying while they start: {error}") from error
                self._hire()
            else:
                self._idle.append(actor)

    def _await_first(self, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        while not self._idle:
            ready, _ = self._ray.wait(list(self._starting), num_returns=1, timeout=0.5)
            self._admit(ready)
            if time.monotonic() > end:
                raise WorkerError(f"no node of the Ray cluster has room for {self._options} within {timeout_s:.0f} s")


def fan_out(
    jobs: Sequence[TakeJob | VariantJob], address: str, *, backends: Mapping[str, BackendSpec] | None = None, size: int = 0,
    progress: Progress = silent, check_cancel: CheckCancel = never, runtime_env: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Make all jobs' results over a cluster. Finished ones are recognised and not made again.

    Raises TakeError naming the first failure (everything else is finished), InputError for wrong jobs, Cancelled.
    """
    from retake.worker.content import Hasher, content_hash

    table, hasher = registry(load_settings().backend_specs() if backends is None else backends), Hasher()
    if len({job.output for job in jobs}) != len(jobs):
        raise InputError("two jobs write to the same output folder; give each its own")
    done, failed = 0, {}
    names = sorted({(job.backend, job.kind) for job in jobs})
    for name, kind in names:
        spec = find(table, name, kind)
        chosen = [(job, content_hash(job, spec, hasher)) for job in jobs if (job.backend, job.kind) == (name, kind)]

        def count(job: TakeJob | VariantJob) -> None:
            nonlocal done
            done += 1
            progress(done, len(jobs), name_of(job.output))

        fleet = Fleet(address, spec, size=size, runtime_env=runtime_env)
        fleet.size = min(fleet.size, len(chosen))
        with fleet:
            failed.update(fleet.run(chosen, count, check_cancel))
    if failed:
        output, reason = next(iter(failed.items()))
        raise TakeError(
            f"{len(failed)} of {len(jobs)} jobs failed; first: {name_of(output)}: {reason}. Running again makes only those"
        )


def producer(address: str, *, backends: Mapping[str, BackendSpec] | None = None) -> Callable[..., list[Take]]:
    """`retake run --ray` and `retake takes --ray`: makes the pipeline's takes over a cluster (signature of `produce_takes`).

    Their folders end byte for byte as the pipeline itself writes them: times and attempts are the cluster's own affair.
    Raises MissingDependencyError at once, not after the stages before.
    """
    _ray()

    def produce(
        jobs: Sequence[tuple[Path, TakeRequest]], backend: str, *, extra: Mapping[str, Any] | None = None,
        progress: Progress = silent, check_cancel: CheckCancel = never,
    ) -> list[Take]:  # fmt: skip
        missing = _missing(jobs, backend, extra)
        wanted = [TakeJob(_absolute(request), folder.resolve(), backend) for folder, request in missing]
        progress(0, len(wanted), "")
        if wanted:
            fan_out(wanted, address, backends=backends, progress=progress, check_cancel=check_cancel)
        for folder, _ in missing:
            record = read_json(folder / TAKE_RECORD)
            record.pop("run", None)
            write_json(folder / TAKE_RECORD, {**record, "extra": dict(extra or {})})
        return [open_take(folder) for folder, _ in jobs]

    return produce


def _missing(
    jobs: Sequence[tuple[Path, TakeRequest]], backend: str, extra: Mapping[str, Any] | None
) -> list[tuple[Path, TakeRequest]]:
    """The jobs whose takes are not there yet, as far as a CPU backend can tell here; actors recognise the others."""
    if backend not in BACKENDS or not getattr(plugins.load(BACKENDS[backend]), "parallel", False):
        return list(jobs)
    maker = video_backend(backend)
    return [(folder, request) for folder, request in jobs if kept_take(request, maker, folder, extra) is None]


def _absolute(request: TakeRequest) -> TakeRequest:
    """Actors have working directories of their own."""
    return replace(
        request,
        episode=request.episode.resolve(),
        skeleton=request.skeleton.resolve(),
        variant=request.variant.resolve(),
    )


def _answers(address: str) -> None:
    """Raises WorkerError when nothing listens at a `host:port`: Ray itself would wait for minutes before it said so."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise WorkerError(
            f"no Ray cluster at {address!r}: {error}; start one with `ray start --head`, or use --ray local"
        ) from error


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError(f"fanning out needs Ray: {install_hint('ray')}") from error
    return ray
