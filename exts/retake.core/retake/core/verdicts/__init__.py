# SPDX-License-Identifier: Apache-2.0
"""Verdicts: does a take do what the simulation did? `judge()` answers per take, `verify_run()` for a run folder."""

from retake.core.verdicts.judge import examine
from retake.core.verdicts.recorded import judge, judge_recording
from retake.core.verdicts.records import Check, Verdict
from retake.core.verdicts.reroll import Budget, RerollReport, reroll, reroll_run
from retake.core.verdicts.run import verify_run, verify_take
from retake.core.verdicts.settings import VerdictSettings, load_settings
from retake.core.verdicts.worlds import compare_worlds

__all__ = [
    "Budget",
    "Check",
    "RerollReport",
    "Verdict",
    "VerdictSettings",
    "compare_worlds",
    "examine",
    "judge",
    "judge_recording",
    "load_settings",
    "reroll",
    "reroll_run",
    "verify_run",
    "verify_take",
]
