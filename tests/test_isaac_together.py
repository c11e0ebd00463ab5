# SPDX-License-Identifier: Apache-2.0
"""Several recordings in one application: what one switched stays so until the last one ends; then all is as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes.kit import FakeKit
from isaac_support import finished, motion, request
from pxr import Sdf, Usd

from retake.isaac.contacts import API
from retake.isaac.hooks import CAPTURE_ON_PLAY
from retake.isaac.live_capture import LiveCapture
from retake.isaac.picture_quality import ANTIALIASING
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
