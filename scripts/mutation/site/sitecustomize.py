# SPDX-License-Identifier: Apache-2.0
"""Measures the Python processes that a measured test starts (traced.py names test, folder and sources in the environment)."""

from __future__ import annotations

import os

if folder := os.environ.get("RETAKE_TRACE_FOLDER"):
    import atexit

    import coverage

    measured = coverage.Coverage(
        data_file=f"{folder}/data", data_suffix=True, include=[os.environ["RETAKE_TRACE_SOURCES"]], messages=False,
        context=os.environ.get("RETAKE_TRACE_TEST") or None, config_file=False,
    )  # fmt: skip
    measured.start()
    atexit.register(lambda: (measured.stop(), measured.save()))
