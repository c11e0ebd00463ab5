# SPDX-License-Identifier: Apache-2.0
"""First-frame backends by name; heavy ones are imported only when asked for."""

from __future__ import annotations

from typing import Any

from retake.core import plugins
from retake.core.variants.base import ImageBackend

BACKENDS = {
    "procedural": "retake.core.variants.procedural:ProceduralBackend",
    "folder": "retake.core.variants.folder:FolderBackend",
}
EXTRAS: dict[str, str] = {}


def image_backend(name: str, **settings: Any) -> ImageBackend:
    """The backend of that name. Raises InputError listing the valid names, MissingDependencyError naming the extra."""
    return plugins.pick("image backend", name, "retake.image_backends", BACKENDS, EXTRAS)(**settings)
