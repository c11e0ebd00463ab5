# SPDX-License-Identifier: Apache-2.0
"""End effectors of a robot: found from its kinematics and geometry, or declared by its user (docs/robots.md)."""

from retake.core.ends.search import find_ends
from retake.core.ends.tree import Shapes, no_shapes

__all__ = ["Shapes", "find_ends", "no_shapes"]
