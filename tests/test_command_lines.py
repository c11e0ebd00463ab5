# SPDX-License-Identifier: Apache-2.0
"""Options are what they were: one that goes, or whose default or values change by accident, is seen.

`python tests/test_command_lines.py` writes them anew where they were changed on purpose.
"""

from __future__ import annotations

import pytest
from command_lines import load, parser_of, store, told

pytest.importorskip("pxr")
ENTRIES = (
    "retake.core.cli:_parser", "retake.core.verdicts.cli:main", "retake.core.verdicts.bench:main", "retake.core.gap.cli:main",
    "retake.core.bench:main", "retake.core.export.cli:export_parser", "retake.core.export.cli:mix_parser",
    "retake.core.export.restore:main", "retake.core.export.convert:parser", "retake.core.config_cli:main",
    "retake.core.robustness.cli:parser", "retake.core.variants.bench:main", "retake.core.doctor:main",
    "retake.core.importers.cli:main", "retake.core.importers.episode_recorder:parser", "retake.core.importers.lerobot_cli:parser",
    "retake.core.importers.sage:parser", "retake.core.importers.isaaclab:parser", "retake.core.migrate:main",
    "retake.core.masks.cli:main", "retake.isaac.bench:main", "retake.isaac.standalone:main", "retake.usd.robot_cli:parser",
    "retake.worker.cli:_parser", "retake.worker.bench:main", "retake.worker.probe.cli:parser",
)  # fmt: skip


@pytest.mark.parametrize("entry", ENTRIES)
def test_options_are_what_they_were(entry: str) -> None:
    assert told(parser_of(entry)) == load("plain")[entry]


if __name__ == "__main__":
    store("plain", ENTRIES)
