# SPDX-License-Identifier: Apache-2.0
"""End effectors of a robot: found from its kinematics and geometry, or declared by its user (docs/robots.md)."""

from retake.core.ends.declaration import RobotDeclaration, beside, declaration_text, declare, load_declarations
from retake.core.ends.search import find_ends
from retake.core.ends.tree import Shapes, no_shapes

__all__ = [
    "RobotDeclaration",
    "Shapes",
    "beside",
    "declaration_text",
    "declare",
    "find_ends",
    "load_declarations",
    "no_shapes",
]
