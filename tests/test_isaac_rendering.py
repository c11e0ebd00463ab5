# SPDX-License-Identifier: Apache-2.0
"""Asynchronous rendering is off while it is held, whoever else has an opinion on it, and back afterwards."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from retake.core.errors import InputError
from retake.isaac import async_rendering, settings_guard
from retake.isaac.async_rendering import PATHS, SETTLED_UPDATES, THROTTLING, AsyncRendering


class Settings(dict):
    """carb.settings over a dictionary."""

    def set(self, path: str, value: Any) -> None:
        assert isinstance(path, str)
        self[path] = value


@pytest.fixture
def carb(monkeypatch: pytest.MonkeyPatch) -> Settings:
    found = Settings({THROTTLING: True, **dict.fromkeys(PATHS, True)})
    module = SimpleNamespace(get_settings=lambda: found)
    for user in (settings_guard, async_rendering):
        monkeypatch.setattr(user, "require", lambda name: module)
    return found


@pytest.mark.any_application
@pytest.mark.parametrize("playing", [False, True])
def test_asynchronous_rendering_is_off_while_held_and_back_afterwards(carb: Settings, playing: bool) -> None:
    before, rendering = dict(carb), AsyncRendering()
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
    assert carb == before
    rendering.restore(playing=True)
    assert carb == before, "given back once"


@pytest.mark.any_application
def test_somebody_who_switches_it_on_while_recording_ends_the_recording(carb: Settings) -> None:
    rendering = AsyncRendering()
    rendering.remember(playing=True)
    rendering.hold()
    carb[PATHS[2]] = True
    with pytest.raises(InputError, match="while recording"):
        rendering.update(recording=True)
    rendering.restore(playing=False)


@pytest.mark.any_application
@pytest.mark.parametrize("first_leaves", [True, False])
def test_of_two_recordings_the_last_one_gives_it_back(carb: Settings, first_leaves: bool) -> None:
    """The second waits as long as the first for frames that were begun before, and neither disturbs the other."""
    before, one, two = dict(carb), AsyncRendering(), AsyncRendering()
    one.remember(playing=False)
    one.hold()
    one.update(recording=False)
    two.remember(playing=False)
    two.hold()
    assert not two.ready, "it is off, and not yet for long enough"
    for _ in range(SETTLED_UPDATES - 1):
        one.update(recording=False)
        two.update(recording=False)
    assert one.ready
    assert two.ready
    leaves, stays = (one, two) if first_leaves else (two, one)
    leaves.restore(playing=True)
    stays.update(recording=True)
    assert not any(carb[path] for path in (*PATHS, THROTTLING))
    stays.restore(playing=False)
    assert carb == before
    third = AsyncRendering()
    third.remember(playing=False)
    third.hold()
    assert not third.ready
    third.restore(playing=False)
    assert carb == before


@pytest.mark.any_application
@pytest.mark.parametrize("stopped", [True, False])
def test_a_recording_of_a_running_simulation_leaves_what_throttling_would(carb: Settings, stopped: bool) -> None:
    """Replicator puts back, some updates after its writers have gone, what it found when they came."""
    throttled = PATHS[:2]
    carb.update(dict.fromkeys(throttled, False))  # the simulation runs
    rendering = AsyncRendering()
    rendering.remember(playing=True)
    found = {path: carb[path] for path in throttled}  # Replicator, as the writer is attached
    rendering.hold()
    assert not any(carb[path] for path in PATHS)
    rendering.restore(playing=not stopped)
    assert {path: carb[path] for path in throttled} == dict.fromkeys(throttled, stopped)
    if stopped:
        carb.update(found)
        assert all(carb[path] for path in throttled)


@pytest.mark.any_application
@pytest.mark.parametrize("older_ends_first", [True, False])
def test_an_application_that_has_gone_takes_nothing_from_the_one_that_came(
    monkeypatch: pytest.MonkeyPatch, older_ends_first: bool
) -> None:
    """A recording that its application left behind ends while two of the next application run: these still share one memory of
    what was before, and the last one puts it back."""
    settings = [Settings({THROTTLING: True, **dict.fromkeys(PATHS, True)}) for _ in range(2)]
    recordings = []
    for number, found in enumerate((settings[0], settings[1], settings[1])):
        module = SimpleNamespace(get_settings=lambda found=found: found)
        if number != 2:
            for user in (settings_guard, async_rendering):
                monkeypatch.setattr(user, "require", lambda name, module=module: module)
        elif older_ends_first:
            recordings[0].restore(playing=False)
        recording = AsyncRendering()
        recording.remember(playing=False)
        recording.hold()
        recordings.append(recording)
    if not older_ends_first:
        recordings[0].restore(playing=False)
    assert all(settings[0].values())
    recordings[1].restore(playing=False)
    assert not any(settings[1][path] for path in (*PATHS, THROTTLING)), "the other one still records"
    recordings[2].restore(playing=False)
    assert all(settings[1].values())
