# SPDX-License-Identifier: Apache-2.0
"""The World that scripts step themselves: `omni.isaac.core` in 4.2, `isaacsim.core.api` in 4.5 to 6.x (deprecated there)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fakes.kit import FakeKit

MODULES = {"4.2": "omni.isaac.core"}


class _World:
    """One world per application. `reset` without `soft` stops and plays; `step` renders with an update, or only steps physics."""

    def __init__(self, kit: FakeKit, rendering_dt_s: float) -> None:
        self._kit, self._rendering_dt_s = kit, rendering_dt_s

    def reset(self, soft: bool = False) -> None:
        """5.1 simulation_context.py:624-646: stop (committed with the following play), play, commit; soft moves objects only."""
        if not soft:
            self._kit.stop()
            self._kit.play()

    def step(self, render: bool = True, update_fabric: bool = False) -> None:
        """simulation_context.py:700-714: an update, or physics alone; with a rendering interval of 0 physics, then a render."""
        kit = self._kit
        if not render:
            if kit.playing:
                kit.physics_step()
        elif self._rendering_dt_s == 0:
            if kit.playing:
                kit.physics_step()
            kit.update_without_physics()
        else:
            kit.update()

    def get_rendering_dt(self) -> float:
        """Seconds between renders; 0 = as often as asked."""
        return self._rendering_dt_s

    def is_playing(self) -> bool:
        """Whether the timeline runs."""
        return self._kit.playing

    def play(self) -> None:
        """Play, committed."""
        self._kit.play()

    def stop(self) -> None:
        """Stop."""
        self._kit.stop()


def add_worlds(kit: FakeKit, module: Any, strict: Any) -> None:
    """The module that has World, where this version has one."""
    name = MODULES.get(kit.version, "isaacsim.core.api")

    def world(rendering_dt: float = 1 / 60, **unused: Any) -> Any:
        made = _World(kit, rendering_dt)
        # A script may set attributes on its World, and Retake wraps `reset` on it.
        proxy = strict(f"{name}.World", made)
        proxy.__dict__["_may_set"] = ("reset", "step")
        return proxy

    module(name, SimpleNamespace(), World=world)
