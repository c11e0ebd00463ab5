# SPDX-License-Identifier: Apache-2.0
"""The report of a run: one page that opens from disk, shows every video in step, and names what it was made from."""

from retake.core.report.page import make_report

__all__ = ["make_report"]
