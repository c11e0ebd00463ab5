# SPDX-License-Identifier: Apache-2.0
"""Several recordings in one application: what one switched stays so until the last one ends; then all is as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes.kit import FakeKit
from isaac_support import finished, motion, request
from pxr import Sdf, Usd

from retake.core.errors import InputError
from retake.isaac.contacts import API
from retake.isaac.host_settings import CAPTURE_ON_PLAY
from retake.isaac.live_capture import LiveCapture
from retake.isaac.picture_quality import ANTIALIASING, DLSS_MODE
from retake.isaac.tick_rates import TICK_RATE

CAMERA = "/World/Camera0"


def reports(stage: Usd.Stage) -> bool:
    applied = stage.GetPrimAtPath("/World/Packet").GetMetadata("apiSchemas")
    return bool(applied) and API in applied.GetAppliedItems()


@pytest.mark.any_application
@pytest.mark.parametrize("first_ends_first", [True, False])
def test_what_recordings_share_is_given_back_by_the_last_one(tmp_path: Path, first_ends_first: bool) -> None:
    source = motion()
    rate = source.stage.GetPrimAtPath(CAMERA).CreateAttribute(TICK_RATE, Sdf.ValueTypeNames.Float)
    rate.Set(30.0)

    def found() -> tuple[Any, ...]:
        """(looping, capture on play, antialiasing, tick rate, whether the packet reports contacts)."""
        carb = kit.settings
        return kit.looping, carb[CAPTURE_ON_PLAY], carb.get(ANTIALIASING), rate.Get(), reports(source.stage)

    try:
        with FakeKit("6.x", source, "base") as kit:
            kit.settings[ANTIALIASING] = 1
            kit.settings[CAPTURE_ON_PLAY] = False
            before = found()
            both = [LiveCapture(request(tmp_path / name, antialiasing="dlaa")) for name in "ab"]
            for capture in both:
                capture.start()
            kit.play()
            kit.update(14)
            during = found()
            assert during == (False, True, 4, 0.0, True)
            for capture in both if first_ends_first else both[::-1]:
                assert found() == during, "the other one still records"
                capture.stop()
                finished(capture, kit)
            assert found() == before
    finally:
        source.stage.GetPrimAtPath(CAMERA).RemoveProperty(TICK_RATE)


@pytest.mark.any_application
@pytest.mark.parametrize(
    ("runs", "comes", "setting"),
    [
        ({"mode": "live"}, {"mode": "stepped"}, CAPTURE_ON_PLAY),
        ({"mode": "stepped"}, {"mode": "live"}, CAPTURE_ON_PLAY),
        ({"antialiasing": "dlaa"}, {"antialiasing": "dlss-quality"}, ANTIALIASING),
        ({"antialiasing": "as-is"}, {"antialiasing": "dlaa"}, ANTIALIASING),
        ({"antialiasing": "as-is"}, {"antialiasing": "dlss-quality"}, DLSS_MODE),
    ],
)
@pytest.mark.parametrize("on_play", [True, False, None])
def test_a_recording_that_would_spoil_another_is_refused_before_anything_is_changed(
    tmp_path: Path, runs: dict[str, Any], comes: dict[str, Any], setting: str, on_play: bool | None
) -> None:
    """Until the other one has ended; then all is as it was, and it may record."""
    with FakeKit("6.x", motion(), "base") as kit:
        kit.settings.update({ANTIALIASING: 3, DLSS_MODE: 0, CAPTURE_ON_PLAY: on_play})
        if on_play is None:
            del kit.settings[CAPTURE_ON_PLAY]
        before = dict(kit.settings)
        first = LiveCapture(request(tmp_path / "a", **runs))
        first.start()
        during, layers = dict(kit.settings), kit.motion.stage.GetSessionLayer().ExportToString()
        second = LiveCapture(request(tmp_path / "b", **comes))
        with pytest.raises(InputError, match=f"{setting} is .* for a recording that has not ended, and this one needs"):
            second.start()
        assert (dict(kit.settings), kit.motion.stage.GetSessionLayer().ExportToString()) == (during, layers)
        assert not (tmp_path / "b").exists()
        first.close()
        assert dict(kit.settings) == before
        later = LiveCapture(request(tmp_path / "b", **comes))
        later.start()
        assert kit.settings[CAPTURE_ON_PLAY] == (comes.get("mode") != "stepped")
        later.close()
        assert dict(kit.settings) == before


@pytest.mark.any_application
def test_a_recording_that_takes_pictures_as_they_are_keeps_them_so(tmp_path: Path) -> None:
    """It began beside one that had chosen, and goes on when that one has ended; a user's own change is left alone."""
    with FakeKit("6.x", motion(), "base") as kit:
        kit.settings.update({ANTIALIASING: 3, DLSS_MODE: 0})
        chose, takes = (LiveCapture(request(tmp_path / how, antialiasing=how)) for how in ("dlaa", "as-is"))
        chose.start()
        takes.start()
        chose.close()
        assert kit.settings[ANTIALIASING] == 4
        takes.close()
        assert kit.settings[ANTIALIASING] == 3
        alone = LiveCapture(request(tmp_path / "c"))
        alone.start()
        kit.settings[ANTIALIASING] = 1
        alone.close()
        assert kit.settings[ANTIALIASING] == 1
