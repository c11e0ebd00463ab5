# SPDX-License-Identifier: Apache-2.0
"""Closed loop: a policy acts in a simulation while only the world's look changes (docs/closed_loop.md).

`environment` is what a simulator offers and names none; `embedded` offers it with `retake.newton`.
"""

from retake.loop.environment import Environment, Facts, Goal, Moment
from retake.loop.looks import Look, load_looks
from retake.loop.study import Study, closed_loop

__all__ = ["Environment", "Facts", "Goal", "Look", "Moment", "Study", "closed_loop", "load_looks"]
