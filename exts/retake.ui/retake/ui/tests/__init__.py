# SPDX-License-Identifier: Apache-2.0
"""Run inside Isaac Sim by omni.kit.test."""

from retake.ui.tests.test_window_in_kit import TestWindow

__all__ = ["TestWindow"]
