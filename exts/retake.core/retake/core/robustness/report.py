# SPDX-License-Identifier: Apache-2.0
"""report.html: one page without scripts or network; pictures are inside it."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.array_types import UInt8
from retake.core.files import write_bytes
from retake.core.robustness.analysis import SIGNIFICANCE

STYLE = """
:root{color-scheme:light dark;--ink:#1c2024;--soft:#667;--line:#d9dce1;--paper:#fff;--bar:#4c7bd9;--warn:#d2553f;--good:#2f8f5b}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaee;--soft:#9aa3b2;--line:#333a45;--paper:#14171c}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:960px;margin:32px auto;padding:0 20px}
h1{font-size:24px;margin:0 0 4px}h2{font-size:17px;margin:36px 0 10px}.soft{color:var(--soft)}
.score{display:flex;gap:28px;align-items:center;margin:20px 0}.score b{font-size:56px;line-height:1}
.verdict{font-size:17px}table{border-collapse:collapse;width:100%}td,th{padding:6px 8px;border-bottom:1px solid var(--line);
text-align:left;vertical-align:middle}th{font-weight:600;color:var(--soft);font-size:13px}
td.n{font-variant-numeric:tabular-nums;white-space:nowrap}
.track{background:var(--line);height:12px;border-radius:6px;min-width:140px}
.fill{background:var(--bar);height:12px;border-radius:6px}
.weak .fill{background:var(--warn)}
.tag{background:var(--warn);color:#fff;border-radius:9px;padding:1px 8px;font-size:12px;margin-left:6px}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(420px,100%),1fr));gap:16px}
.card{border:1px solid var(--line);border-radius:10px;padding:10px;min-width:0}
.card img{width:49%;border-radius:6px}.card p{margin:6px 2px 0}
h1,td,.card p,.verdict{overflow-wrap:anywhere}td:first-child,td:last-child{min-width:110px}
@media(max-width:760px){table{display:block;overflow-x:auto}.score{flex-wrap:wrap}}
"""


@dataclass(frozen=True)
class Picture:
    """One world's worst frame, beside the simulator's."""

    run: str
    world: str
    divergence: float
    frame: int
    sim: UInt8[np.ndarray, "H W 3"]
    take: UInt8[np.ndarray, "H W 3"]


def write_report(path: Path, content: dict[str, Any], pictures: Sequence[Picture]) -> None:
    """The page."""
    write_bytes(path, ("\n".join(_page(content, pictures)) + "\n").encode())


def _page(c: dict[str, Any], pictures: Sequence[Picture]) -> Iterator[str]:
    score = c["score"]
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Robustness</title>'
    yield f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
    yield f"<h1>Robustness of {escape(c['policy'])}</h1>"
    windows = f"{c['windows']} simulated window" + "s" * (c["windows"] != 1)
    yield (
        f'<p class="soft">Same states, same task, {len(c["worlds"])} takes over {windows}, '
        f"{c['frames_per_window']} frames each: only the pixels differ.</p>"
    )
    colour = "var(--good)" if score["value"] >= 80 else "var(--warn)" if score["value"] < 50 else "var(--bar)"
    yield f'<div class="score">{_dial(score, colour)}<div><p class="verdict">{escape(c["verdict"])}</p>'
    yield (
        '<p class="soft">100: the pixels change nothing. 0: they change the actions as much as the whole task does. '
        f"95 % interval {score['low']:.1f} to {score['high']:.1f}.</p></div></div>"
    )
    yield "<h2>Visual axes</h2><table><tr><th>axis</th><th>explains</th><th></th><th>action change</th>"
    yield "<th>p</th><th>worst value</th></tr>"
    for axis in c["axes"]:
        yield _axis_row(axis)
    yield "</table><p class='soft'>Share of the variance between worlds, beyond chance; action change in standard "
    yield "deviations of the true actions.</p>"
    yield "<h2>Worst worlds</h2><div class='cards'>"
    for p in pictures:
        yield (
            f"<div class='card'><img alt='simulation' src='{data_uri(p.sim)}'> <img alt='take' src='{data_uri(p.take)}'>"
            f"<p><b>{escape(p.world)}</b> <span class='soft'>{escape(p.run)}, frame {p.frame}</span><br>"
            f"divergence {p.divergence:.3f}</p></div>"
        )
    yield "</div><h2>All takes</h2><table><tr><th>run</th><th>world</th><th>divergence</th><th></th>"
    yield "<th>error to the truth</th><th>over time</th></tr>"
    largest = max([w["divergence"] for w in c["worlds"]] + [1e-9])
    for w in c["worlds"][:200]:
        yield (
            f"<tr><td>{escape(w['run'])}</td><td>{escape(w['world'])}</td><td class='n'>{w['divergence']:.3f}</td>"
            f"<td>{_bar(w['divergence'] / largest)}</td><td class='n'>{w['truth_error']:.3f}</td>"
            f"<td>{_spark(w['per_frame'], largest)}</td></tr>"
        )
    if len(c["worlds"]) > 200:
        yield f"<tr><td colspan='6' class='soft'>… and {len(c['worlds']) - 200} more in report.json</td></tr>"
    yield "</table><h2>How to read this</h2><p>"
    yield (
        f"On the simulator's own frames the policy's error to the true actions is {c['sim_error']:.3f}; asked the same thing "
        f"twice it differs from itself by {c['noise']:.4f}. Entries compared: {escape(', '.join(c['action_entries']))}."
    )
    if c["left_out"]:
        yield f" Left out, because the demonstrations do not move them: {escape(', '.join(c['left_out']))}."
    yield "</p></body></html>"


def _axis_row(axis: dict[str, Any]) -> str:
    twins = (
        f" <span class='soft'>= {escape(', '.join(axis['confounded_with']))}</span>" if axis["confounded_with"] else ""
    )
    tag = "<span class='tag'>weakness</span>" if axis["weakness"] else ""
    if axis["values"] < 2:
        return f"<tr><td>{escape(axis['axis'])}</td><td colspan='5' class='soft'>the same in every world: not tested</td></tr>"
    weak = " class='weak'" if axis["weakness"] else ""
    # With few worlds a share may be large and mean nothing: no bar then, which would be read as a finding.
    significant = axis["p_value"] < SIGNIFICANCE
    share = f"{axis['explained']:.0%}" if significant else "–"
    bar = (
        _bar(axis["explained"])
        if significant
        else f"<span class='soft'>{axis['explained']:.0%}, as chance would</span>"
    )
    return (
        f"<tr{weak}><td>{escape(axis['axis'])}{tag}{twins}</td><td class='n'>{share}</td>"
        f"<td>{bar}</td><td class='n'>{axis['effect']:.3f}</td><td class='n'>{axis['p_value']:.3f}</td>"
        f"<td>{escape(axis['worst_value'])}</td></tr>"
    )


def _bar(share: float) -> str:
    return f"<div class='track'><div class='fill' style='width:{100 * min(max(share, 0), 1):.1f}%'></div></div>"


def _dial(score: dict[str, float], colour: str) -> str:
    """The score with its interval on a ruler from 0 to 100."""
    x = {k: 10 + 1.8 * v for k, v in score.items()}
    return (
        f"<div><b style='color:{colour}'>{score['value']:.0f}</b><span class='soft'> / 100</span>"
        "<svg width='200' height='34' role='img' aria-label='score with interval'>"
        "<line x1='10' x2='190' y1='14' y2='14' stroke='var(--line)' stroke-width='6' stroke-linecap='round'/>"
        f"<line x1='{x['low']:.1f}' x2='{x['high']:.1f}' y1='14' y2='14' stroke='{colour}' stroke-width='6' opacity='.45'/>"
        f"<circle cx='{x['value']:.1f}' cy='14' r='6' fill='{colour}'/>"
        "<text x='6' y='32' font-size='11' fill='var(--soft)'>0</text>"
        "<text x='178' y='32' font-size='11' fill='var(--soft)'>100</text></svg></div>"
    )


def _spark(values: Sequence[float], largest: float) -> str:
    """Divergence over the asked frames."""
    n = max(len(values) - 1, 1)
    points = " ".join(
        f"{2 + 96 * i / n:.1f},{22 - 20 * min(v / max(largest, 1e-9), 1):.1f}" for i, v in enumerate(values)
    )
    line = f"<polyline points='{points}' fill='none' stroke='var(--bar)' stroke-width='1.5'/>"
    return f"<svg width='100' height='24' aria-hidden='true'>{line}</svg>"


def data_uri(frame: UInt8[np.ndarray, "H W 3"]) -> str:
    """A JPEG as a data URI, at most 320 px wide."""
    if frame.shape[1] > 320:
        frame = np.asarray(
            cv2.resize(frame, (320, round(320 * frame.shape[0] / frame.shape[1])), interpolation=cv2.INTER_AREA)
        )
    _, data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
