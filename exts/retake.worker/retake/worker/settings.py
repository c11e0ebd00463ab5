# SPDX-License-Identifier: Apache-2.0
"""WorkerSettings: config/worker.yaml as frozen records; the user's file overrides single values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retake.core.config import config_path, load_yaml, merge
from retake.core.errors import InputError, choose

GIB = 1 << 30


@dataclass(frozen=True)
class BackendSpec:
    """One named backend."""

    name: str
    kind: str
    """`take` or `variant`."""
    target: str
    """"module:Class", imported on use in the executor."""
    options: dict[str, Any] = field(default_factory=dict)
    tiers: tuple[tuple[str, int], ...] = ()
    """(name, bytes of GPU memory), best first; empty = needs no GPU."""


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

    backends: dict[str, Any] = field(default_factory=dict)
    queue: QueueSettings = QueueSettings()
    executor: ExecutorSettings = ExecutorSettings()
    waiting: WaitingSettings = WaitingSettings()
    service: ServiceSettings = ServiceSettings()

    def backend_specs(self) -> dict[str, BackendSpec]:
        """The configured backends by name. Raises InputError for a malformed entry."""
        return {name: _backend(name, entry) for name, entry in self.backends.items()}


def load_settings(path: Path | None = None) -> WorkerSettings:
    """Defaults of config/worker.yaml, then the user's file. Raises InputError naming file, setting and valid values."""
    default = config_path("worker.yaml")
    settings = merge(WorkerSettings(), load_yaml(default) or {}, str(default))
    if path is None:
        return settings
    data = load_yaml(path)
    if data is None:
        return settings
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a mapping of settings, found {type(data).__name__}")
    extra = data.get("backends") or {}
    if not isinstance(extra, dict):
        raise InputError(f"{path}: backends is a mapping of names, found {type(extra).__name__}")
    changed = merge(settings, {**data, "backends": {**settings.backends, **extra}}, str(path))
    changed.backend_specs()
    return changed


def _backend(name: str, entry: Any) -> BackendSpec:
    where = f"backend {name!r}"
    if not isinstance(entry, dict):
        raise InputError(f"{where}: expected kind, target, options, tiers; found {entry!r}")
    for key in entry:
        if key not in ("kind", "target", "options", "tiers"):
            raise InputError(f"{where}: {choose('key', str(key), ('kind', 'target', 'options', 'tiers'))}")
    kind, target = entry.get("kind", "take"), entry.get("target", "")
    if kind not in ("take", "variant"):
        raise InputError(f"{where}: {choose('kind', str(kind), ('take', 'variant'))}")
    if not isinstance(target, str) or not all(target.partition(":")):
        raise InputError(f'{where}: target must be "module:Class"; found {target!r}')
    options, tiers = entry.get("options") or {}, entry.get("tiers") or {}
    if not isinstance(options, dict) or not isinstance(tiers, dict):
        raise InputError(f"{where}: options and tiers are mappings")
    if any(not isinstance(gib, int | float) or gib <= 0 for gib in tiers.values()):
        raise InputError(f"{where}: tiers map a name to GiB of GPU memory > 0; found {tiers}")
    return BackendSpec(name, kind, target, options, tuple((str(k), int(v * GIB)) for k, v in tiers.items()))
