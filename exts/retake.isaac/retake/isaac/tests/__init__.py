# SPDX-License-Identifier: Apache-2.0
"""Run inside Isaac Sim by omni.kit.test."""

from retake.isaac.tests.test_capture_in_kit import TestAdapters, TestCapture

__all__ = ["TestAdapters", "TestCapture"]
