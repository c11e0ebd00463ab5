# SPDX-License-Identifier: Apache-2.0
"""Whether stated licence terms allow commercial use. Fails closed: what is not on the list is not allowed.

Sources: the SPDX licence list and the texts themselves. OpenRAIL-M licences allow commercial use with use restrictions.
"""

from __future__ import annotations

import re

COMMERCIAL = {
    "apache-2.0": "Apache-2.0",
    "mit": "MIT",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "isc": "ISC",
    "zlib": "Zlib",
    "cc0-1.0": "CC0-1.0",
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-3.0": "CC-BY-3.0",
    "cc-by-sa-4.0": "CC-BY-SA-4.0",
    "odc-by-1.0": "ODC-By-1.0",
    "pddl-1.0": "PDDL-1.0",
    "unlicense": "Unlicense",
    "openrail++": "OpenRAIL++",
    "creativeml-openrail-m": "CreativeML-OpenRAIL-M",
    "nvidia-open-model-license": "NVIDIA-Open-Model-License",
    "own": "own work",
}
"""Lower-case identifier → how it is written. `own` is the user's statement that the asset is theirs."""


def commercial_obstacle(licence: object) -> str | None:
    """None when the terms allow commercial use, else the reason they do not count as allowing it.

    Several terms joined by ` AND ` must all allow it; any other expression is unknown and therefore refused.
    """
    text = licence.strip() if isinstance(licence, str) else ""
    if not text or text.lower() in ("unknown", "none", "not stated", "unstated", "other"):
        return "no licence is stated"
    for part in re.split(r"\s+AND\s+", text):
        name = part.strip().lower()
        if re.search(r"(^|[-_ ])nc([-_ ]|$)|non-?commercial|research-only", name):
            return f"{part!r} forbids commercial use"
        if name not in COMMERCIAL:
            return f"{part!r} is not among the terms known to allow commercial use"
    return None
