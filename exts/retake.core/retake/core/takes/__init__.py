# SPDX-License-Identifier: Apache-2.0
"""Takes: generated videos, one per variant."""

from retake.core.takes.base import Take, TakeRequest, VideoBackend
from retake.core.takes.make import make_take, open_take, read_take

__all__ = ["Take", "TakeRequest", "VideoBackend", "make_take", "open_take", "read_take"]
