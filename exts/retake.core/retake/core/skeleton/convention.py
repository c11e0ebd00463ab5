# SPDX-License-Identifier: Apache-2.0
"""The drawing convention of OSCAR's control video: every constant that a trained model has seen.

Source: OSCAR's public renderer (`wuzy2115/oscar` at 4dea2f6) as described in docs/skeleton.md. A control video that
differs in colour, thickness or axis length is outside the distribution the model was trained on.
"""

from __future__ import annotations

import math
from typing import Final

CONVENTION: Final = "oscar-skeleton/1"
"""Name of the drawing, part of every skeleton's input hash: a change of any constant below must change it."""

RGB = tuple[int, int, int]

LINK_RGB: Final[RGB] = (255, 255, 0)
LINK_THICKNESS_PX: Final = 3
JOINT_RGB: Final[RGB] = (0, 0, 255)
JOINT_RADIUS_PX: Final = 4

AXIS_RGB: Final[tuple[RGB, RGB, RGB]] = ((0, 0, 255), (0, 255, 0), (255, 0, 0))
"""X blue, Y green, Z red: the reverse of the usual order for X and Z."""
FINGER_RGB: Final[RGB] = (255, 0, 0)
ARROW_LENGTH_M: Final = 0.2
ARROW_THICKNESS_PX: Final = 5
ARROW_HEAD_SHARE: Final = 0.15
"""Barb length as a share of the clipped arrow, px / px."""
FINGER_ANGLE_RAD: Final = math.pi / 12
"""Angle of each finger to the approach axis at openness 1."""

ARROW_RGB: Final[tuple[RGB, ...]] = (*AXIS_RGB, FINGER_RGB, FINGER_RGB)
"""The five arrows in drawing order: X, Y, Z, left finger (+Y), right finger (-Y)."""

COINCIDENT_M: Final = 1e-4
"""A link origin nearer than this to the last kept one is dropped."""
NEAREST_DEPTH_M: Final = 1e-3
"""Depths below this are raised to it, x and y unchanged: a point behind the camera flies out in its own direction."""
PIXEL_LIMIT: Final = 1e5
"""Projected coordinates are clamped to ± this before rounding; dots beyond it are not drawn."""
