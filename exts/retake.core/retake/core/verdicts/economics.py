# SPDX-License-Identifier: Apache-2.0
"""What an operating point costs: attempts and GPU time per accepted take, and the faulty takes that slip through.

A stricter judge rejects faithful takes as well, so more is generated for each that is accepted. Rates of an operating point
are measured on the bench (config/verdicts.yaml); the share of faulty takes is the video model's own and must be estimated.
"""

from __future__ import annotations

from dataclasses import dataclass

from retake.core.errors import InputError
from retake.core.verdicts.settings import OperatingPoint


@dataclass(frozen=True)
class Economics:
    """Expectations over many takes at one operating point."""

    accepted_share: float
    """Of all attempts."""
    attempts_per_accepted: float
    """Infinite where nothing is accepted."""
    seconds_per_accepted: float
    """Generation time; judging runs on a CPU beside it."""
    faulty_share: float
    """Of the accepted takes."""


def economics(point: OperatingPoint, faulty_share: float, seconds_per_take: float) -> Economics:
    """Expected cost and purity when `faulty_share` (0..1) of what a model makes is faulty and a take costs so many seconds.

    Attempts are independent: a model that fails at one episode again and again costs more. Raises InputError for a share
    outside 0..1, a negative duration, or an operating point without measured rates.
    """
    if not 0 <= faulty_share <= 1:
        raise InputError(f"the share of faulty takes must lie in 0..1; found {faulty_share:g}")
    if seconds_per_take < 0:
        raise InputError(f"seconds per take cannot be negative; found {seconds_per_take:g}")
    if point.clean_passed is None or point.faulty_passed is None:
        raise InputError(
            "this operating point has no measured rates; config/verdicts.yaml gives those of strict and balanced"
        )
    good, bad = (1 - faulty_share) * point.clean_passed, faulty_share * point.faulty_passed
    accepted = good + bad
    if accepted <= 0:
        return Economics(0.0, float("inf"), float("inf"), 0.0)
    return Economics(accepted, 1 / accepted, seconds_per_take / accepted, bad / accepted)


def faulty_share_of(point: OperatingPoint, accepted_share: float) -> float:
    """The share of faulty takes that explains how many were accepted, 0..1."""
    if point.clean_passed is None or point.faulty_passed is None or point.clean_passed <= point.faulty_passed:
        raise InputError(
            "an operating point tells the share of faulty takes only if it passes more faithful than faulty ones"
        )
    share = (point.clean_passed - accepted_share) / (point.clean_passed - point.faulty_passed)
    return min(max(share, 0.0), 1.0)
