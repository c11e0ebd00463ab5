# SPDX-License-Identifier: Apache-2.0
"""The wire: every record that client and worker exchange, and its JSON. Paths travel, pixels stay on disk.

A job is a request plus where its result goes. `output` is the result's own folder, `takes/<id>` or `variants/<id>`;
its JSON sidecar is written last, so a folder with a sidecar is whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from retake.core.errors import InputError, choose
from retake.core.takes.base import TakeRequest

API = "retake.worker/1"
STATES = ("queued", "running", "done", "failed", "cancelled", "quarantined")
FINAL = ("done", "failed", "cancelled", "quarantined")
"""States that only a person's word (retry, or asking again) changes."""


@dataclass(frozen=True)
class VariantRequest:
    """Everything that determines a first frame."""

    episode: Path
    """Episode folder."""
    camera: str
    world: dict[str, Any]
    """The fields of `retake.core.variants.World`, or {"name": <preset>}."""
    seed: int = 0
    index: int = 0
    """Episode frame that is re-dressed."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Backend settings, JSON."""
    gate: bool = True
    """Deliver only a frame whose robot and geometry are measured to be the simulated ones."""
    rerolls: int = 2
    """Further attempts for a frame that fails the gate."""
    only_commercial: bool = False
    """Refuse models whose terms are not known to allow commercial use."""


@dataclass(frozen=True)
class TakeJob:
    """One video to make."""

    request: TakeRequest
    output: Path
    backend: str = "composite"
    priority: int = 0
    """Higher runs first; equal ones in the order of submission."""
    max_attempts: int = 3
    kind: str = "take"


@dataclass(frozen=True)
class VariantJob:
    """One first frame to make."""

    request: VariantRequest
    output: Path
    backend: str = "procedural"
    priority: int = 0
    max_attempts: int = 3
    kind: str = "variant"


Job = TakeJob | VariantJob
_REQUESTS: dict[str, type[TakeRequest] | type[VariantRequest]] = {"take": TakeRequest, "variant": VariantRequest}
_PATHS = ("episode", "skeleton", "variant")


@dataclass(frozen=True)
class JobRecord:
    """A job as the worker knows it. Times are seconds since 1970 on the worker's clock; 0 = not yet."""

    id: str
    kind: str
    backend: str
    state: str
    output: Path
    request: dict[str, Any]
    content: str = ""
    """Hash of everything that determines the pixels; equal for equal work, wherever it is put."""
    priority: int = 0
    attempts: int = 0
    max_attempts: int = 3
    crashes: int = 0
    """Times the executor died while this job ran."""
    created_s: float = 0.0
    started_s: float = 0.0
    finished_s: float = 0.0
    done: int = 0
    total: int = 0
    note: str = ""
    eta_s: float | None = None
    preview: int = 0
    """Counts preview pictures of the running attempt; 0 = none yet."""
    error: str = ""
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def final(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return self.state in FINAL


@dataclass(frozen=True)
class GpuProcess:
    """Who else is on the card."""

    pid: int
    name: str
    used_bytes: int
    ours: bool


@dataclass(frozen=True)
class GpuDevice:
    """One card's memory, bytes, as NVML reports it."""

    index: int
    name: str
    total_bytes: int
    used_bytes: int
    free_bytes: int
    processes: tuple[GpuProcess, ...] = ()


@dataclass(frozen=True)
class WorkerStatus:
    """What the worker is doing."""

    version: str
    paused: bool
    counts: dict[str, int]
    """Jobs by state."""
    executor: str
    """`absent` (no process, no memory held), `starting`, `idle` or `busy`."""
    executor_pid: int = 0
    executor_rss_bytes: int = 0
    running: str = ""
    """Id of the running job."""
    tier: str = ""
    """Memory tier of the loaded model; empty for backends without one."""
    waiting: str = ""
    """Why the next job does not start (memory, disk), in words; empty when nothing is in the way."""
    notice: str = ""
    """What happened to the queue itself (damage found at start, restored from a backup …)."""
    gpus: tuple[GpuDevice, ...] = ()
    backends: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    event: int = 0
    """Id of the newest event."""
    epoch: str = ""
    """Changes with every start of the service; event ids count within one epoch."""


def job_to_json(job: TakeJob | VariantJob) -> dict[str, Any]:
    """A job as plain JSON values."""
    data, request = _shallow(job), _shallow(job.request)
    for name in _PATHS:
        if name in request:
            request[name] = str(request[name])
    return {**data, "request": request, "output": str(job.output)}


def job_from_json(data: Any) -> TakeJob | VariantJob:
    """A job from JSON. Raises InputError naming the field, what was found and what would be valid."""
    if not isinstance(data, dict):
        raise InputError(f"a job is a JSON object; found {type(data).__name__}")
    kind = data.get("kind")
    if kind not in _REQUESTS:
        raise InputError(choose("kind of job", str(kind), _REQUESTS))
    request = data.get("request")
    if not isinstance(request, dict):
        raise InputError(f"job.request is a JSON object; found {type(request).__name__}")
    request_type = _REQUESTS[kind]
    made = _fill(
        request_type,
        {k: Path(v) if k in _PATHS and isinstance(v, str) else v for k, v in request.items()},
        "job.request",
    )
    rest = {k: v for k, v in data.items() if k not in ("request", "output")}
    output = data.get("output")
    if not isinstance(output, str) or not output:
        raise InputError(f"job.output is the path of the result's folder; found {output!r}")
    return _fill(TakeJob if kind == "take" else VariantJob, {**rest, "request": made, "output": Path(output)}, "job")


def record_to_json(record: JobRecord) -> dict[str, Any]:
    """A record as plain JSON values."""
    return {**_shallow(record), "output": str(record.output)}


def record_from_json(data: Any) -> JobRecord:
    """A record from JSON; fields of a newer worker are ignored. Raises InputError for anything that is no record."""
    if not isinstance(data, dict) or not isinstance(data.get("output"), str):
        raise InputError("the worker's answer is no job record; are client and worker of the same version?")
    return _fill(JobRecord, {**data, "output": Path(data["output"])}, "job record", ignore_unknown=True)


def status_to_json(status: WorkerStatus) -> dict[str, Any]:
    """A status as plain JSON values."""
    return asdict(status)


def status_from_json(data: Any) -> WorkerStatus:
    """A status from JSON; fields of a newer worker are ignored. Raises InputError for anything that is none."""
    if not isinstance(data, dict):
        raise InputError("the worker's answer is no status; are client and worker of the same version?")
    gpus = tuple(
        _fill(
            GpuDevice,
            {
                **gpu,
                "processes": tuple(
                    _fill(GpuProcess, p, "gpu process", ignore_unknown=True) for p in gpu.get("processes", [])
                ),
            },
            "gpu",
            ignore_unknown=True,
        )
        for gpu in data.get("gpus", [])
    )
    values = {**data, "gpus": gpus, "backends": tuple(data.get("backends", [])), "roots": tuple(data.get("roots", []))}
    return _fill(WorkerStatus, values, "status", ignore_unknown=True)


def _shallow(record: Any) -> dict[str, Any]:
    """Fields by name, values shared (`asdict` copies deeply, which dominates the cost of queueing thousands of jobs)."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


_KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float, int),
    "str": (str,),
    "bool": (bool,),
    "Path": (Path,),
}


def _fill(kind: Any, values: Mapping[str, Any], where: str, *, ignore_unknown: bool = False) -> Any:
    """A record from a mapping, with names and plain types checked. Raises InputError."""
    fields = kind.__dataclass_fields__
    unknown = [name for name in values if name not in fields]
    if unknown and not ignore_unknown:
        raise InputError(f"{where}: {choose('field', str(unknown[0]), fields)}")
    chosen = {name: value for name, value in values.items() if name in fields}
    for name, value in chosen.items():
        declared = str(fields[name].type).partition("[")[0]
        wanted = _KINDS.get(declared)
        wrong = wanted and (not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted))
        wrong = wrong or (isinstance(value, float) and not math.isfinite(value))
        if wrong or (declared == "dict" and not isinstance(value, dict)):
            raise InputError(f"{where}.{name} needs a {declared}; found {value!r}")
    try:
        return kind(**chosen)
    except TypeError as error:
        raise InputError(f"{where}: {str(error).partition(') ')[2] or error}") from error
