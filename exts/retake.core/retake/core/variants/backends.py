# SPDX-License-Identifier: Apache-2.0
"""First-frame backends by name; heavy ones are imported only when asked for."""

from __future__ import annotations

import inspect
from typing import Any

from retake.core import plugins
from retake.core.errors import InputError
from retake.core.variants.base import ImageBackend
from retake.core.variants.worlds import Catalogue

BACKENDS = {
    "procedural": "retake.core.painter.procedural:ProceduralBackend",
    "folder": "retake.core.variants.folder:FolderBackend",
    "auto": "retake.worker.first_frame.choose:auto_backend",
    "z-image": "retake.worker.first_frame.z_image:ZImageBackend",
    "flux2-klein": "retake.worker.first_frame.flux2_klein:Flux2KleinBackend",
    "qwen-edit": "retake.worker.first_frame.qwen_edit:QwenEditBackend",
    "sdxl": "retake.worker.first_frame.sdxl:SdxlBackend",
    "cosmos-transfer": "retake.worker.first_frame.cosmos_transfer:CosmosTransferBackend",
}
EXTRAS: dict[str, str] = {name: "oscar" for name, target in BACKENDS.items() if target.startswith("retake.worker.")}


def image_backend(
    name: str, *, only_commercial: bool = False, catalogue: Catalogue | None = None, **settings: Any
) -> ImageBackend:
    """The backend of that name; one that chooses among models is told of `only_commercial`, and one that looks worlds up
    of the `catalogue` they are in (where its constructor has them).

    Raises InputError listing the valid names or settings, MissingDependencyError naming the extra.
    """
    made = plugins.pick("image backend", name, "retake.image_backends", BACKENDS, EXTRAS)
    if only_commercial and "only_commercial" in inspect.signature(made).parameters:
        settings["only_commercial"] = True
    if catalogue is not None and "catalogue" in inspect.signature(made).parameters:
        settings["catalogue"] = catalogue
    try:
        inspect.signature(made).bind(**settings)
    except TypeError as error:
        names = ", ".join(inspect.signature(made).parameters) or "none"
        raise InputError(f"settings of image backend {name!r}: {error}; it has: {names}") from error
    return made(**settings)
