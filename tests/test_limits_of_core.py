# SPDX-License-Identifier: Apache-2.0
"""What core says at the limits of what it can tell: ranges that a gripper's entry may have been meant in, takes that a
measurement does not apply to."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from retake.core.errors import InputError
from retake.core.importers.lerobot_vectors import StateVectors
from retake.core.verdicts import load_settings
from retake.core.verdicts.trackers import measure_tracked


@pytest.mark.parametrize(
    ("low", "high", "stated", "likely"),
    [
        (0.0, 1.0, (0.0, 0.5), "0 1"), (0.25, 0.75, (0.0, 0.5), "0 1"), (0.0, 100.0, None, "0 100"), (0.0, 1.1, None, "0 100"),
        (0.0, 101.0, None, "0 255"), (0.0, 255.0, None, "0 255"), (-1.0, 1.0, None, "-1 1"), (-0.1, 0.5, None, "-1 1"),
        (0.0, 256.0, None, ""), (-1.1, 0.0, None, ""),
    ],
)  # fmt: skip
def test_the_narrowest_usual_range_that_holds_an_entry_is_the_likely_one(
    low: float, high: float, stated: tuple[float, float] | None, likely: str
) -> None:
    reader: Any = SimpleNamespace(
        entries=SimpleNamespace(openness={"hand": "grip"}),
        options=SimpleNamespace(gripper_range=stated),
        names=["x", "grip"],
    )
    state = np.array([[9.0, low], [9.0, high]])
    with pytest.raises(InputError, match="state its range with --gripper-range") as refused:
        StateVectors._share(reader, "hand", state)
    assert str(refused.value).endswith(f", likely {likely} or the reverse" if likely else "--gripper-range CLOSED OPEN")


@pytest.mark.parametrize(
    ("low", "high", "fits"), [(0.0, 1.0, True), (-0.05, 1.05, True), (-0.051, 0.5, False), (0.5, 1.051, False)]
)
def test_an_entry_may_leave_its_range_by_a_twentieth(low: float, high: float, fits: bool) -> None:
    for closed, opened in ((0.0, 100.0), (100.0, 0.0), (2.0, 3.0)):
        reader: Any = SimpleNamespace(
            entries=SimpleNamespace(openness={"hand": "grip"}),
            options=SimpleNamespace(gripper_range=(closed, opened)),
            names=["grip"],
        )
        # A hair within, so that rounding decides nothing.
        share = np.array([low, high]) * (1 - 1e-9)
        state = (closed + share * (opened - closed))[:, None]
        if fits:
            assert np.allclose(StateVectors._share(reader, "hand", state), np.clip(share, 0, 1))
        else:
            with pytest.raises(InputError):
                StateVectors._share(reader, "hand", state)


def test_points_are_followed_where_a_tracker_is_named_and_depth_was_recorded() -> None:
    settings = load_settings().tracker
    camera = SimpleNamespace(channels=("rgb", "instances"))
    episode: Any = SimpleNamespace(header=SimpleNamespace(camera=lambda name: camera))
    nothing: Any = None
    for name, why in (("", "no point tracker is named"), ("lucas_kanade", "the camera recorded no depth")):
        found = measure_tracked(nothing, nothing, episode, "front", replace(settings, name=name))
        assert (found.value, found.applies) == (None, False)
        assert why in found.note
