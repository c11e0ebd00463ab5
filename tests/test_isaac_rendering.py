# SPDX-License-Identifier: Apache-2.0
"""Asynchronous rendering is off while it is held, whoever else has an opinion on it, and back afterwards."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from retake.core.errors import InputError
from retake.isaac import settings_guard
from retake.isaac.async_rendering import PATHS, SETTLED_UPDATES, THROTTLING, AsyncRendering


class Settings(dict):
    """carb.settings over a dictionary."""

    def set(self, path: str, value: Any) -> None:
        assert isinstance(path, str)
        self[path] = value


@pytest.fixture
def carb(monkeypatch: pytest.MonkeyPatch) -> Settings:
    found = Settings({THROTTLING: True, **dict.fromkeys(PATHS, True)})
    monkeypatch.setattr(settings_guard, "require", lambda name: SimpleNamespace(get_settings=lambda: found))
    return found


@pytest.mark.any_application
@pytest.mark.parametrize("playing", [False, True])
def test_asynchronous_rendering_is_off_while_held_and_back_afterwards(carb: Settings, playing: bool) -> None:
    before, guard = dict(carb), settings_guard.SettingsGuard()
    rendering = AsyncRendering(guard)
    rendering.remember(playing=playing)
    rendering.hold()
    assert not carb[THROTTLING], "the application's own switch is out of the way"
    assert not any(carb[path] for path in PATHS)
    assert not rendering.ready
    for _ in range(SETTLED_UPDATES):
        rendering.update(recording=False)
    assert rendering.ready
    carb[PATHS[0]] = True  # somebody else
    rendering.update(recording=False)
    assert not carb[PATHS[0]]
    assert not rendering.ready
    rendering.restore(playing=False)
    guard.restore()
    assert carb == before


@pytest.mark.any_application
def test_somebody_who_switches_it_on_while_recording_ends_the_recording(carb: Settings) -> None:
    rendering = AsyncRendering(settings_guard.SettingsGuard())
    rendering.remember(playing=True)
    rendering.hold()
    carb[PATHS[2]] = True
    with pytest.raises(InputError, match="while recording"):
        rendering.update(recording=True)
