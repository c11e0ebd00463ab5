# SPDX-License-Identifier: Apache-2.0
"""Of which shapes painted fronts and subjects are drawn, number by number, against what they were drawn of: in a picture a line
that is a millimetre off is nothing.

`python tests/test_painter_panels_golden.py` writes the numbers anew where a look was changed on purpose.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_values import compare, load, store, summed_up

from retake.core.painter import panels, subjects
from retake.core.painter.panels import PANELS, Canvas
from retake.core.painter.textures import linear

GOLDEN = Path(__file__).parent / "golden" / "painter" / "panels.json"
SHARE = 2e-5
"""Of a number: what is drawn where is arithmetic alone."""
COLOURS = ["#8a5a30", "#c8b090", "#34506a", "#a04030", "#d0d0c8"]
SIZES = ((1.7, 1.1), (0.9, 0.62), (3.1, 2.3), (0.5, 0.9))


def columns(rows: list[tuple[float, ...]]) -> list[np.ndarray]:
    """Number by number over all shapes."""
    return [*np.array(rows, float).T] if rows else []


def fronts(patched: pytest.MonkeyPatch) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for number, (name, paint) in enumerate(PANELS.items()):
        for width, height in SIZES:
            for count in (
                (5, 2, 0) if name not in ("racking", "goods", "pictures", "cabinets", "books", "machine") else (5, 2)
            ):
                drawn: dict[str, list[tuple[float, ...]]] = {"rect": [], "disc": [], "ellipse": []}

                def noted(kind: str, drawn: dict[str, list[tuple[float, ...]]] = drawn) -> Any:
                    places = 3 if kind == "disc" else 4

                    def note(self: Canvas, *given: Any) -> None:
                        shade = given[places + 1] if len(given) > places + 1 else 1.0
                        drawn[kind].append((*given[:places], *panels._rgb(given[places]), shade))

                    return note

                for kind in drawn:
                    patched.setattr(Canvas, kind, noted(kind))
                patched.setattr(Canvas, "texture", lambda self, rng, grime=0.04: grime)
                grime = paint(np.random.default_rng(number), width, height, COLOURS[:count])
                out[f"{name} {width} {count}"] = [
                    {k: columns(rows) for k, rows in drawn.items()},
                    grime if name != "windows" else 0,
                ]
    return out


def spots(patched: pytest.MonkeyPatch) -> dict[str, Any]:
    out: dict[str, Any] = {}
    options = {"bun": ({}, {"slashes": 3, "seeds": 9, "filling": "#80a040"}), "carton": ({}, {"tape": True})}
    for kind, (paint, _) in subjects.KINDS.items():
        for k, more in enumerate(options.get(kind, ({},))):
            for side in ("front", "side", "top"):
                drawn: list[tuple[float, ...]] = []
                patched.setattr(
                    subjects, "_spot",
                    lambda image, x, y, rx, ry, colour, turn=0, drawn=drawn: drawn.append((x, y, rx, ry, *colour, turn)),
                )  # fmt: skip
                paint(np.random.default_rng(3), [linear(c) for c in COLOURS], more, side)
                out[f"{kind} {k} {side}"] = columns(drawn)
    return out


CASES = {"fronts": fronts, "spots": spots}


@pytest.mark.parametrize("case", CASES)
def test_a_picture_is_drawn_of_what_it_was_drawn_of(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not compare(summed_up(CASES[case](monkeypatch)), load(GOLDEN)[case], SHARE)


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patched:
        store(GOLDEN, {case: summed_up(made(patched)) for case, made in CASES.items()})
    sys.exit(0)
