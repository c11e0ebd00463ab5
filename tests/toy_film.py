# SPDX-License-Identifier: Apache-2.0
"""A small film for tests of the bench's renderers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts" / "prove"))
from film import HIDDEN_M, Film, box, item

COUNT = 6


def toy() -> Film:
    """A link, a packet that is lifted, a tray, a table, and a prop out of sight; seen off the optical axis."""
    poses = {o: np.broadcast_to(np.eye(4), (COUNT, 4, 4)).copy() for o in ("/R/link", "/P", "/T", "prop:second")}
    poses["/R/link"][:, :3, 3] = [0.2, 0.15, 0.2]
    poses["/P"][:, 2, 3] = np.linspace(0.05, 0.25, COUNT)
    poses["/T"][:, :3, 3] = [-0.3, 0.1, 0.02]
    poses["prop:second"][:, 2, 3] = HIDDEN_M
    poses["/Table"] = np.broadcast_to(np.eye(4), (COUNT, 4, 4)).copy()
    poses["/Table"][:, 2, 3] = -0.02
    small = [item(o, o, *box((0.08, 0.06, 0.1)), (0.6, 0.5, 0.4)) for o in poses if o != "/Table"]
    table = item("/Table", "top", *box((1.4, 1.4, 0.02)), (0.5, 0.5, 0.5))
    T = np.broadcast_to(np.array([[1.0, 0, 0, 0], [0, 0, -1, 0.2], [0, 1, 0, 1.5], [0, 0, 0, 1]]), (COUNT, 4, 4))
    K = np.broadcast_to(np.array([[150.0, 0, 70], [0, 150, 66], [0, 0, 1]]), (COUNT, 3, 3))
    return Film((*small, table), poses, K, T, (160, 120), {"R": ("/R/link",)}, "/P", "/T")
