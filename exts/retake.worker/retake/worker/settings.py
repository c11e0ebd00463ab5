# SPDX-License-Identifier: Apache-2.0
"""WorkerSettings: config/worker.yaml as frozen records; the user's file overrides single values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from retake.core.codec import merged
from retake.core.config import config_path, load_yaml
from retake.core.errors import InputError
from retake.worker.memory import GIB

Kind = Literal["take", "variant"]


@dataclass(frozen=True)
class BackendSpec:
    """One named backend."""

    name: str
    kind: Kind
    target: str
    """"module:Class", imported on use in the executor."""
    options: dict[str, Any] = field(default_factory=dict)
    tiers: tuple[tuple[str, int], ...] = ()
    """(name, bytes of GPU memory), best first; empty = needs no GPU."""


@dataclass(frozen=True)
class BackendEntry:
    """One backend as config/worker.yaml has it."""

    kind: Kind = "take"
    target: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    tiers: dict[str, float] = field(default_factory=dict)
    """Name → GiB of GPU memory, best first."""

    def spec(self, name: str) -> BackendSpec:
        """With its name, in bytes. Raises InputError for a target that names no class and for a tier without memory."""
        if not all(self.target.partition(":")):
            raise InputError(f'backend {name!r}: target must be "module:Class"; found {self.target!r}')
        if any(gib <= 0 for gib in self.tiers.values()):
            raise InputError(f"backend {name!r}: tiers map a name to GiB of GPU memory > 0; found {self.tiers}")
        tiers = tuple((tier, int(gib * GIB)) for tier, gib in self.tiers.items())
        return BackendSpec(name, self.kind, self.target, self.options, tiers)


@dataclass(frozen=True)
class QueueSettings:
    """How often work is tried."""

    max_attempts: int = 3
    max_crashes: int = 2
    max_interruptions: int = 20
    retry_delay_s: float = 2.0
    backup_s: float = 30.0


@dataclass(frozen=True)
class ExecutorSettings:
    """Time limits of the executor process."""

    start_s: float = 600.0
    no_progress_s: float = 1200.0
    cancel_grace_s: float = 2.5
    idle_release_s: float = 600.0


@dataclass(frozen=True)
class WaitingSettings:
    """When a job waits instead of starting."""

    memory_wait_s: float = 3600.0
    memory_margin_gib: float = 1.0
    disk_floor_gib: float = 1.0


@dataclass(frozen=True)
class ServiceSettings:
    """Limits of the HTTP side."""

    max_body_bytes: int = 8 << 20
    gallery_limit: int = 2000


@dataclass(frozen=True)
class WorkerSettings:
    """Everything of config/worker.yaml."""

    backends: dict[str, BackendEntry] = field(default_factory=dict)
    queue: QueueSettings = QueueSettings()
    executor: ExecutorSettings = ExecutorSettings()
    waiting: WaitingSettings = WaitingSettings()
    service: ServiceSettings = ServiceSettings()

    def backend_specs(self) -> dict[str, BackendSpec]:
        """The configured backends by name. Raises InputError for a malformed entry."""
        return {name: entry.spec(name) for name, entry in self.backends.items()}


def load_settings(path: Path | None = None) -> WorkerSettings:
    """Defaults of config/worker.yaml, then the user's file. Raises InputError naming file, setting and valid values."""
    settings = WorkerSettings()
    for source in (config_path("worker.yaml"), *([] if path is None else [path])):
        settings = merged(settings, load_yaml(source) or {}, str(source))
        settings.backend_specs()
    return settings
