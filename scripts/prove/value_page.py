# SPDX-License-Identifier: Apache-2.0
"""The page of the value experiment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.files import write_bytes

LEAST_UNCHANGED, LEAST_LOSS, LEAST_AXES = 0.80, 0.25, 2
"""The stop rule: simulated-only must reach this rate unchanged, and lose this much on at least so many axes."""


SHEET = "looks.jpg"
_COLUMNS, _LARGER, _LINE = 3, 2, 18
"""Of the sheet: pictures in a row, times by which they are enlarged, px of a name."""
_POINTS = 6
"""Of a learning curve that are told."""


def look_sheet(looks: Sequence[str], loops: Path, out: Path) -> None:
    """One picture of all looks, both cameras of the first rollout; only where a policy of this clone has been played in all."""
    named = [name.replace(":", "-").replace("/", "-") + ".jpg" for name in looks]
    folder = next((f for f in sorted(loops.glob("*/looks")) if all((f / name).exists() for name in named)), None)
    if folder is None:
        return
    tiles = []
    for look, name in zip(looks, named, strict=True):
        image = cv2.imread(str(folder / name))
        assert image is not None, name
        image = cv2.resize(image, None, fx=_LARGER, fy=_LARGER, interpolation=cv2.INTER_CUBIC)
        tile = np.full((image.shape[0] + _LINE, image.shape[1], 3), 255, np.uint8)
        tile[_LINE:] = image
        cv2.putText(tile, look, (4, _LINE - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        tiles.append(tile)
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % _COLUMNS)
    rows = [np.concatenate(tiles[k : k + _COLUMNS], axis=1) for k in range(0, len(tiles), _COLUMNS)]
    write_bytes(out, cv2.imencode(".jpg", np.concatenate(rows), [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes())


def report(result: dict[str, Any]) -> str:
    """value.md."""
    stop, sizes = result["stop_rule"], result["sizes"]
    lines = [
        "# Does training on takes make a policy better?",
        "",
        "In our simulator, with this probe; no claim about real robots. Terms: [closed_loop.md](../closed_loop.md).",
        "",
        *(["**A reduced run: it shows that the machinery works, and nothing else.**", ""] if result["reduced"] else []),
        *([_part_said(result), ""] if _is_part(result.get("part", {})) else []),
        f"{sizes['episodes']} simulated episodes, {sizes['steps']} optimiser steps for every arm (but where a name says twice "
        f"the steps; `a quarter` is the share of takes in each batch, else a half), training seeds "
        f"{', '.join(map(str, sizes['seeds']))}, {sizes['rollouts']} paired rollouts per seed and look"
        + (", each arm with those trainings that are made so far. " if result.get("part", {}).get("kept") else ". ")
        + f"Commit `{result['commit']}`.",
        "",
        f"**Stop rule.** Simulated-only succeeds unchanged in {stop['unchanged']:.0%} (at least {LEAST_UNCHANGED:.0%} asked) and "
        f"loses {LEAST_LOSS:.0%} or more on {len(stop['axes_lost'])} axes (at least {LEAST_AXES} asked): "
        + ("met." if stop["met"] else "**not met, so nothing is claimed**; the task or the probe is at fault."),
        "",
        "| arm | " + " | ".join(result["looks"]) + " |",
        "|---" * (1 + len(result["looks"])) + "|",
    ]
    lines += _rows(result["cells"])
    if result.get("easier"):
        lines += [
            "",
            "## An easier task, with the same policies",
            "",
            "The hand comes within 3 cm of the point above the packet.",
            "",
            "| arm | " + " | ".join(result["looks"]) + " |",
            "|---" * (1 + len(result["looks"])) + "|",
            *_rows(result["easier"]),
        ]
    for arm, told in result["comparisons"].items():
        rows, (plainly, cheaply) = told["axes"], (told["seeds_with_simulated"], told["seeds_with_cheap"])
        lines += [
            "",
            f"## {arm}",
            "",
            f"Pairs of training seed and rollout: seeds {_list(plainly)} with simulated, {_list(cheaply)} with "
            f"{_list(told['rivals'])}."
            + (
                "" if told["claimed"] else " Thought of when results of other arms had been seen: no part of the claim."
            ),
            "",
            "| axis | over simulated, points | over the best cheap baseline, points |",
            "|---|---|---|",
        ]
        for axis, row in rows.items():
            cheap = _points(row["over_best_cheap"])
            lines.append(f"| {axis} | {_points(row['over_simulated'])} | {cheap} ({row['best_cheap'] or 'none'}) |")
    if both := result["open_loop"]:
        lines += [
            "",
            f"**Open loop and closed loop**, over {both['policies']} policies: Pearson {_two(both['pearson'])}, Spearman "
            f"{_two(both['spearman'])}; {PICKS[both['picks_the_right_policy']]}.",
            "",
            "| policy | open-loop score | closed-loop rate over every look but the unchanged one |",
            "|---|---|---|",
            *(f"| {name} | {score:.1f} | {rate:.0%} |" for name, (score, rate) in both["score_and_rate"].items()),
        ]
    lines += [
        "",
        "**Failures** (all looks): "
        + "; ".join(
            f"{arm}: {', '.join(f'{kind} {n}' for kind, n in kinds.items()) or 'none'}"
            for arm, kinds in result["failures"].items()
        )
        + ".",
    ]
    if result.get("notes"):
        lines += ["", result["notes"]]
    lines += _trainings(result.get("trainings", {}))
    if result.get("sheet"):
        lines += ["", "## The looks", "", f"![what a policy sees in each look, both cameras]({result['sheet']})"]
    controls = result["controls"]
    if controls is None:
        return "\n".join(lines)
    lines += [
        "", "## Controls", "",
        f"- The expert: {', '.join(f'{look} {s}/{n}' for look, (s, n) in controls['expert'].items())}; "
        f"states bit-equal across looks: {'yes' if controls['expert_states_equal_across_looks'] else '**no**'}.",
        *(f"- Blinded (grey pictures), {look}: {s}/{n}." for look, (s, n) in controls.get("blinded", {}).items()),
    ]  # fmt: skip
    return "\n".join(lines)


def _trainings(trainings: dict[str, Any]) -> list[str]:
    """Learning curves and times, one line for each training."""
    known = {name: one for name, one in trainings.items() if one.get("curve")}
    if not known:
        return []
    lines = [
        "",
        "## Trainings",
        "",
        "Loss, smoothed over a hundred steps, along the way; one core, shared with others.",
        "",
    ]
    lines += ["| arm | parameters | seconds | step: loss |", "|---|---|---|---|"]
    for name, one in known.items():
        curve = one["curve"]
        points = [curve[k] for k in np.unique(np.linspace(0, len(curve) - 1, _POINTS).round().astype(int))]
        told = ", ".join(f"{step}: {loss:.3f}" for step, loss in points)
        lines.append(f"| {name} | {one['parameters']} | {one['training_s']:.0f} | {told} |")
    return lines


def _each(cell: dict[str, Any]) -> str:
    """Rates of the trainings of a cell, where there are several: they scatter more than rollouts do."""
    rates = cell["by_training"]
    return "" if len(rates) < 2 else f" [{', '.join(f'{rate:.0%}' for rate in rates)}]"


def _rows(cells: dict[str, Any]) -> list[str]:
    """A table's row for each arm."""
    return [
        f"| {arm} | "
        + " | ".join(f"{c['successes']}/{c['count']} ({c['low']:.0%}–{c['high']:.0%}){_each(c)}" for c in row.values())
        + " |"
        for arm, row in cells.items()
    ]


def _is_part(part: dict[str, Any]) -> bool:
    """Whether something is left out."""
    return bool(part.get("arms") or part.get("looks") or part.get("kept"))


def _part_said(result: dict[str, Any]) -> str:
    missing = [
        name
        for name, there in (
            ("the oracle", "oracle" in result["cells"]),
            ("the control on shuffled actions", "shuffled actions" in result["cells"]),
            ("the easier task", result.get("easier")),
            ("the open-loop comparison", result.get("open_loop")),
            ("the expert in every look and the blinded policy", result["controls"]),
        )
        if not there
    ]
    return (
        f"**A part of the experiment**: {len(result['cells'])} of its arms in {len(result['looks'])} looks; the looks were "
        "chosen before any arm was played."
        + (f" Missing yet, and run with the whole of it (`make value`): {', '.join(missing)}." if missing else "")
    )


PICKS = {
    True: "the policy with the best open-loop score is one of the best in closed loop",
    False: "the policy with the best open-loop score is **not** one of the best in closed loop",
    None: "all policies do equally well in closed loop, so none is the right one",
}


def _list(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values)) or "none"


def _two(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"


def _points(d: dict[str, Any] | None) -> str:
    return "–" if d is None else f"{100 * d['value']:+.0f} ({100 * d['low']:+.0f} … {100 * d['high']:+.0f})"
