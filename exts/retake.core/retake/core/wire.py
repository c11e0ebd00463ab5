# SPDX-License-Identifier: Apache-2.0
"""The wire: every record that client and worker exchange, and its JSON. Paths travel, pixels stay on disk.

A job is a request plus where its result goes. `output` is the result's own folder, `takes/<id>` or `variants/<id>`;
its JSON sidecar is written last, so a folder with a sidecar is whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from retake.core.codec import decode, encode
from retake.core.errors import InputError, unknown_name
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
    kind: Literal["take"] = "take"


@dataclass(frozen=True)
class VariantJob:
    """One first frame to make."""

    request: VariantRequest
    output: Path
    backend: str = "procedural"
    priority: int = 0
    max_attempts: int = 3
    kind: Literal["variant"] = "variant"


Job = TakeJob | VariantJob
_JOBS: dict[str, type[TakeJob] | type[VariantJob]] = {"take": TakeJob, "variant": VariantJob}
_VERSIONS = "the worker's answer (are client and worker of the same version?)"


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
    uuid: str = ""
    """The card's own name, the same in NVML and CUDA; a MIG slice has one, too."""


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
    return encode(job)


def job_from_json(data: Any) -> TakeJob | VariantJob:
    """A job from JSON. Raises InputError naming the field, what was found and what would be valid."""
    if not isinstance(data, dict):
        raise InputError(f"a job is a JSON object; found {type(data).__name__}")
    if (kind := data.get("kind")) not in _JOBS:
        raise InputError(unknown_name("kind of job", str(kind), _JOBS))
    return decode(_JOBS[kind], data, "job")


def record_to_json(record: JobRecord) -> dict[str, Any]:
    """A record as plain JSON values."""
    return encode(record)


def record_from_json(data: Any) -> JobRecord:
    """A record from JSON; fields of a newer worker are ignored. Raises InputError for anything that is no record."""
    return decode(JobRecord, data, _VERSIONS, ignore_unknown=True)


def status_to_json(status: WorkerStatus) -> dict[str, Any]:
    """A status as plain JSON values."""
    return encode(status)


def status_from_json(data: Any) -> WorkerStatus:
    """A status from JSON; fields of a newer worker are ignored. Raises InputError for anything that is none."""
    return decode(WorkerStatus, data, _VERSIONS, ignore_unknown=True)
