# SPDX-License-Identifier: Apache-2.0
"""Every row of language of some windows of a pick and drop, word for word against what was said before.

`python tests/test_export_language_golden.py` writes it anew where the language was changed on purpose.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from golden_values import compare, load, store, summed_up
from test_export_language import KEY, LENGTH, pick_and_drop

from retake.core.episode import Episode
from retake.core.export.language import language_rows

GOLDEN = Path(__file__).parent / "golden" / "export" / "language.json"
WINDOWS = [(0, LENGTH), (0, 6), (3, 9), (9, 14), (12, LENGTH - 12), (LENGTH - 4, 4)]
WORDS: list[dict[str, str]] = [{}, {"subject": "a red mug", "surface": "the oak table"}]


def said(episode: Episode) -> dict[str, dict[str, Any]]:
    out = {}
    for number, (start, length) in enumerate(WINDOWS):
        for words in WORDS:
            rows = language_rows(episode, {KEY: (192, 96)}, start, length, words=words, seed=number)
            events = {str(k): list(event) for k, event in rows.events.items()}
            name = f"{start}+{length}{' in words' if words else ''}"
            out[name] = summed_up({"persistent": list(rows.persistent), "events": events})
    return out


@pytest.fixture(scope="module")
def episode(tmp_path_factory: pytest.TempPathFactory) -> Episode:
    return pick_and_drop(tmp_path_factory.mktemp("language") / "e")


def test_what_is_said_is_what_was_said(episode: Episode) -> None:
    found, known = said(episode), load(GOLDEN)
    assert list(found) == list(known)
    assert [line for name in found for line in compare(found[name], known[name], 1e-6)] == []


def test_rows_stand_by_time_style_and_role(episode: Episode) -> None:
    rows = language_rows(episode, {KEY: (192, 96)}, 0, LENGTH, words={}, seed=3)
    order = [(row["timestamp"], row["style"], row["role"]) for row in rows.persistent]
    assert order == sorted(order)
    assert [row["style"] for row in rows.persistent[:2]] == ["plan", "subtask"]
    for event in rows.events.values():
        order = [(row["style"], row["role"], row["camera"]) for row in event]
        assert order == sorted(order)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        store(GOLDEN, said(pick_and_drop(Path(folder) / "e")))
    sys.exit(0)
