# SPDX-License-Identifier: Apache-2.0
"""Capture: joining rendered frames with physics states (`pairing`), writing them off-thread (`recorder`)."""

from retake.core.capture.pairing import (
    FramePairer,
    PairedFrame,
    PairingCounts,
    PairingError,
    StageReader,
    StateSample,
    TimeKey,
    is_before,
    is_same_time,
    key_of_seconds,
    stride_of,
    time_key,
)
from retake.core.capture.recorder import Recorder, RecorderStatus, WhenFull

__all__ = [
    "FramePairer",
    "PairedFrame",
    "PairingCounts",
    "PairingError",
    "Recorder",
    "RecorderStatus",
    "StageReader",
    "StateSample",
    "TimeKey",
    "WhenFull",
    "is_before",
    "is_same_time",
    "key_of_seconds",
    "stride_of",
    "time_key",
]
