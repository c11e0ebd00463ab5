# SPDX-License-Identifier: Apache-2.0
"""Backends by name → "module:Class", imported on use (only the executor does).

A backend is any class with the methods of `retake.core.takes.VideoBackend` or `retake.core.variants.ImageBackend`. It
may have, beyond that:

- `preview`: an attribute the executor sets to a callable taking uint8 RGB (h, w, 3); call it with pictures of work in
  progress. Backends that yield frames one by one need not: their frames are the preview.
- `use_card(uuid)`, `use_tier(name)`: called before each job with the card that was chosen and the memory tier that fits
  there now ("auto": plan yourself, "cpu": run without a card); `tier`: the one that really ran.
- `margin_bytes`: set before each job; what a plan of its own must leave free for the renderer.
- `close()`: called before another backend is loaded.
- `model`, `revision`: what the sidecar states.

Constructor keywords are the `options` of config/worker.yaml. Third parties register `[project.entry-points."retake.backends"]
take.name = "module:Class"` (or `variant.name`).
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from retake.core import plugins
from retake.core.codec import decode, encode
from retake.core.errors import InputError, MissingDependencyError, unknown_name
from retake.core.files import sha256_json
from retake.worker.settings import BackendSpec, Kind

GROUPS: dict[str, Kind] = {
    "retake.video_backends": "take",
    "retake.image_backends": "variant",
    "retake.backends": "take",
}
"""Entry-point group → what a plain name in it makes. The first two are also those of `retake takes` and `retake variants`."""
EXTRAS = {"oscar": "oscar"}


def registry(configured: Mapping[str, BackendSpec]) -> dict[str, BackendSpec]:
    """Configured backends plus those of other packages (names `take.x` / `variant.x` say the kind; `x` alone is a take)."""
    found: dict[str, BackendSpec] = {}
    for group, usual in GROUPS.items():
        for point in entry_points(group=group):
            kind, dot, name = point.name.partition(".")
            if dot and kind in ("take", "variant"):
                found[name] = BackendSpec(name, kind, point.value)
            else:
                found[point.name] = BackendSpec(point.name, usual, point.value)
    return {**found, **configured}


def find(table: Mapping[str, BackendSpec], name: str, kind: str) -> BackendSpec:
    """The backend of that name and kind. Raises InputError listing the valid names."""
    spec = table.get(name)
    if spec is None or spec.kind != kind:
        raise InputError(unknown_name(f"{kind} backend", name, (s.name for s in table.values() if s.kind == kind)))
    return spec


def identity(spec: BackendSpec) -> str:
    """What of a backend belongs to a job's content hash: its class and options (model, revision, steps …)."""
    return sha256_json({"name": spec.name, "target": spec.target, "options": spec.options})


def create(spec: BackendSpec) -> Any:
    """An instance. Raises MissingDependencyError naming the extra, InputError for options it does not take."""
    made = plugins.load(spec.target, extra=EXTRAS.get(spec.name, ""))
    try:
        inspect.signature(made).bind(**spec.options)
    except TypeError as error:
        raise InputError(
            f"backend {spec.name!r} ({spec.target}) does not take options {spec.options}: {error}"
        ) from error
    return plugins.construct(made, f"backend {spec.name!r}", EXTRAS.get(spec.name, ""), **spec.options)


def obstacle(spec: BackendSpec) -> str:
    """Why a backend cannot work on this machine, and the remedy; empty when nothing is known to be in the way.

    Asked by the service, so only Retake's own classes are imported for it; of others the package must be there.
    """
    package = spec.target.partition(":")[0].partition(".")[0]
    if package != "retake":
        return "" if importlib.util.find_spec(package) else f"its package {package!r} is not installed here"
    try:
        check = getattr(plugins.load(spec.target, extra=EXTRAS.get(spec.name, "")), "obstacle", None)
    except MissingDependencyError as error:
        return str(error)
    return str(check(**spec.options)) if callable(check) else ""


def spec_to_json(spec: BackendSpec) -> dict[str, Any]:
    """For the executor's command line."""
    return encode(spec)


def spec_from_json(data: dict[str, Any]) -> BackendSpec:
    """Reverse of `spec_to_json`."""
    return decode(BackendSpec, data, "the executor's backend")
