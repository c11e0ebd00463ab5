# SPDX-License-Identifier: Apache-2.0
"""The API's bodies and answers, for validation and for the OpenAPI description. The records are `retake.core.wire`'s."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(max_length=20_000)]
PathText = Annotated[
    str, Field(min_length=1, max_length=4096, description="Absolute path inside one of the worker's roots.")
]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Priority = Annotated[int, Field(ge=-1_000_000, le=1_000_000, description="Higher runs first.")]


class Strict(BaseModel):
    """No unknown fields, no silent conversions."""

    model_config = ConfigDict(extra="forbid", strict=True)


class TakeRequestBody(Strict):
    """`retake.core.takes.TakeRequest`."""

    episode: PathText
    camera: Name
    skeleton: PathText
    variant: PathText
    prompt: Text
    negative_prompt: Text = ""
    seed: Seed = 42
    frames: Count = 81
    start: Count = 0
    settings: dict[str, Any] = {}


class VariantRequestBody(Strict):
    """`retake.core.wire.VariantRequest`."""

    episode: PathText
    camera: Name
    world: dict[str, Any]
    seed: Seed = 0
    index: Count = 0
    settings: dict[str, Any] = {}
    gate: bool = True
    rerolls: Annotated[int, Field(ge=0, le=100)] = 2
    only_commercial: bool = False


class TakeJobBody(Strict):
    """A video to make."""

    kind: Literal["take"]
    request: TakeRequestBody
    output: PathText
    backend: Name = "composite"
    priority: Priority = 0
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3


class VariantJobBody(Strict):
    """A first frame to make."""

    kind: Literal["variant"]
    request: VariantRequestBody
    output: PathText
    backend: Name = "procedural"
    priority: Priority = 0
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3


JobBody = Annotated[TakeJobBody | VariantJobBody, Field(discriminator="kind")]


class SubmitBody(Strict):
    """Jobs to queue: all of them or, when one is wrong, none."""

    jobs: Annotated[list[JobBody], Field(min_length=1, max_length=5000)]


class PriorityBody(Strict):
    """A new priority."""

    priority: Priority


class ErrorAnswer(BaseModel):
    """Why a request was refused."""

    error: str


class JobAnswer(BaseModel):
    """`retake.core.wire.JobRecord`."""

    id: str
    kind: str
    backend: str
    state: str
    output: str
    request: dict[str, Any]
    content: str
    priority: int
    attempts: int
    max_attempts: int
    crashes: int
    created_s: float
    started_s: float
    finished_s: float
    done: int
    total: int
    note: str
    eta_s: float | None
    preview: int
    error: str
    result: dict[str, Any]


class SubmitAnswer(BaseModel):
    """One record per job, in the order given."""

    jobs: list[JobAnswer]
    created: int
    """How many of them were not known before."""


class JobsAnswer(BaseModel):
    """One page of the queue."""

    jobs: list[JobAnswer]
    counts: dict[str, int]


class LogAnswer(BaseModel):
    """A job's log."""

    log: str


class ChangesAnswer(BaseModel):
    """What changed since an event."""

    next: int
    epoch: str
    reset: bool
    jobs: list[JobAnswer]
    counts: dict[str, int]


class GpuProcessAnswer(BaseModel):
    """Who else is on the card."""

    pid: int
    name: str
    used_bytes: int
    ours: bool


class GpuAnswer(BaseModel):
    """One card."""

    index: int
    name: str
    total_bytes: int
    used_bytes: int
    free_bytes: int
    processes: list[GpuProcessAnswer]


class StatusAnswer(BaseModel):
    """`retake.core.wire.WorkerStatus`."""

    version: str
    paused: bool
    counts: dict[str, int]
    executor: str
    executor_pid: int
    executor_rss_bytes: int
    running: str
    tier: str
    waiting: str
    notice: str
    gpus: list[GpuAnswer]
    backends: list[str]
    roots: list[str]
    event: int
    epoch: str


class TakeAnswer(BaseModel):
    """A finished take as the gallery shows it."""

    key: str
    id: str
    run: str
    episode: str
    variant: str
    camera: str
    verdict: str
    """pass, fail, unsure, not judged, outdated or damaged."""
    reason: str
    """Why it is not a pass; empty for one."""
    backend: str
    domain: str
    prompt: str
    seed: int
    frames: int
    fps: float
    made_s: float
    parts: list[str]
    source: str
    """Equal for takes that show the same simulation and skeleton."""


class TakesAnswer(BaseModel):
    """Takes that match, newest first, and what can be filtered by."""

    takes: list[TakeAnswer]
    total: int
    episodes: list[str]
    variants: list[str]
    verdicts: list[str]


class VariantChoice(BaseModel):
    """A first frame that takes can start from."""

    id: str
    camera: str
    prompt: str
    negative_prompt: str
    folder: str
    outputs: dict[str, str]
    """Backend → folder of its take, with `{seed}` left open."""


class RunAnswer(BaseModel):
    """A run that takes can be asked for."""

    name: str
    path: str
    episode: str
    task: str
    cameras: list[str]
    skeletons: dict[str, str]
    """Camera → folder of its skeleton."""
    variants: list[VariantChoice]


class RunsAnswer(BaseModel):
    """Runs in the roots, and the backends that make takes."""

    runs: list[RunAnswer]
    take_backends: list[str]
    """Those that work on this machine."""
    unavailable: dict[str, str]
    """The others: name → why not, and the remedy."""


class TuningAnswer(BaseModel):
    """A training of `retake tune` in the roots."""

    key: str
    name: str
    folder: str
    state: str
    """running, stopped or finished."""
    step: int
    """Steps done, by its curves."""
    steps: int
    checkpoint: int
    """Step of the newest checkpoint: where it goes on from; 0 without one."""
    changed_s: float
    what: str
    """What is trained, in a few words."""
    seconds_per_step: float | None
    eta_s: float | None
    latest: dict[str, float]
    """The newest value of every curve."""
    pictures: list[str]
    """Names of its validation pictures, oldest first."""
    command: str
    """What was typed to start it; typed again, it goes on."""


class TuningsAnswer(BaseModel):
    """Running trainings first, then the newest."""

    tunings: list[TuningAnswer]


class CurvesAnswer(BaseModel):
    """Curve by name: pairs of step and value."""

    curves: dict[str, list[tuple[float, float]]]


class TakeView(str, Enum):
    """What of a take can be looked at."""

    take = "take"
    skeleton = "skeleton"
    simulation = "simulation"
    frame = "frame"
    sidecar = "sidecar"


ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorAnswer, "description": text}
    for code, text in (
        (400, "Malformed request, or a path that is not usable"),
        (401, "Missing or wrong token"),
        (403, "Foreign Host or Origin, or a path outside the roots"),
        (404, "No such thing"),
        (409, "Contradicts the queue's state"),
        (413, "Body too large"),
        (422, "A field is missing, unknown or of the wrong kind"),
    )
}
