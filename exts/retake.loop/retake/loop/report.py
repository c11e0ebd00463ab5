# SPDX-License-Identifier: Apache-2.0
"""report.html of a closed loop: success per look with its interval, what failed, pictures; videos lie beside it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from retake.core.files import write_bytes
from retake.core.robustness.analysis import SIGNIFICANCE
from retake.core.robustness.report import STYLE

_MORE = """
.cell{position:relative;width:220px;height:22px}.line{position:absolute;top:10px;height:2px;background:var(--line);left:0;right:0}
.span{position:absolute;top:7px;height:8px;border-radius:4px;background:var(--bar);opacity:.35}
.dot{position:absolute;top:5px;width:12px;height:12px;border-radius:6px;background:var(--bar);margin-left:-6px}
.lost .span,.lost .dot{background:var(--warn)}.cards img{width:100%!important}video{width:100%;border-radius:6px}
.strip{overflow-x:auto}.strip img{max-width:none!important;width:auto!important}
"""


def write_report(out: Path, content: dict[str, Any]) -> None:
    """The page; pictures are inside it, videos are files beside it."""
    write_bytes(out / "report.html", ("\n".join(_page(out, content)) + "\n").encode())


def _page(out: Path, c: dict[str, Any]) -> Iterator[str]:
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Closed loop</title>'
    yield f'<meta name="viewport" content="width=device-width"><style>{STYLE}{_MORE}</style></head><body>'
    yield f"<h1>{escape(c['policy'])} in closed loop</h1>"
    seeds = len(c["seeds"])
    yield (
        f"<p class='soft'>Task {escape(c['task'])}: “{escape(c['instruction'])}”. "
        f"{seeds} seed{'s' * (seeds != 1)}, the same in every look, "
        f"{c['frames']} actions each. Only what is seen differs; the physics does not.</p>"
    )
    yield f"<p class='verdict'>{escape(sentence(c))}</p>"
    if c["same_states"] and len(c["looks"]) > 1:
        yield "<p class='soft'>Every seed gave bit-equal states in all looks.</p>"
    if c["no_change"]:
        yield (
            f"<p class='verdict'>Nothing to see in: {escape(', '.join(c['no_change']))}. The first picture is the unchanged one, "
            "because the stage has nothing there that the look changes; its row says nothing about the policy.</p>"
        )
    yield "<h2>Axes</h2>" + _table(c["axes"])
    yield "<h2>Looks</h2>" + _table(c["looks"])
    yield (
        "<p class='soft'>Success rate with its 95 % Wilson interval. Difference to the unchanged look over the same seeds, "
        "with a 95 % interval over seeds and McNemar's exact p. Of an axis with several looks the share of its "
        "looks that succeeded counts, per seed.</p>"
    )
    yield "<h2>What was seen</h2><div class='cards'>"
    for row in c["looks"]:
        if picture := _inline(out / "looks" / f"{_slug(row['name'])}.jpg"):
            drawn = "the painter" if row["drawn_by"] == "painter" else "the simulator"
            yield (
                f"<div class='card'><img alt='{escape(row['name'])}' src='{picture}'><p><b>{escape(row['name'])}</b> "
                f"<span class='soft'>drawn by {drawn}</span></p></div>"
            )
    yield "</div><h2>First failures</h2>"
    yield from _failures(out, c)
    yield "</body></html>"


def _failures(out: Path, c: dict[str, Any]) -> Iterator[str]:
    any_shown = False
    for made in c["rollouts"]:
        name = f"{_slug(made['look'])}--{made['seed']}"
        strip = _inline(out / "failures" / f"{name}.jpg")
        if made["outcome"]["success"] or not strip:
            continue
        any_shown = True
        film = (
            f" <a href='failures/{escape(name)}.mp4'>video</a>" if (out / "failures" / f"{name}.mp4").exists() else ""
        )
        yield (
            f"<div class='card' style='margin-bottom:12px'><div class='strip'><img alt='frames' src='{strip}'></div><p>"
            f"<b>{escape(made['look'])}</b>, seed {made['seed']}: {escape(made['outcome']['failure'])} "
            f"<span class='soft'>at frame {made['outcome']['frame']}</span>{film}</p></div>"
        )
    if not any_shown:
        yield "<p class='soft'>None.</p>"


def sentence(c: dict[str, Any]) -> str:
    """The result in words."""
    rows = {row["name"]: row for row in c["looks"]}
    base = rows.get("unchanged")
    text = ""
    if base is not None:
        text = f"Unchanged, it succeeds in {base['successes']} of {base['count']}. "
    worse = [a for a in c["axes"] if _is_loss(a["difference"])]
    if worse:
        worst = sorted(worse, key=lambda a: a["difference"]["value"])
        named = ", ".join(f"{a['name']} ({100 * a['difference']['value']:+.0f} points)" for a in worst)
        return f"{text}It loses beyond chance to: {named}."
    if not c["axes"]:
        return text.strip()
    count = len(c["seeds"])
    return f"{text}No axis costs more than {count} seed{'s' * (count != 1)} can tell from chance."


def _is_loss(d: dict[str, Any] | None) -> bool:
    """Worse beyond chance: by the interval and by the exact test."""
    return d is not None and d["high"] < 0 and d["p_value"] < SIGNIFICANCE


def _table(rows: list[dict[str, Any]]) -> str:
    head = "<tr><th></th><th>success</th><th></th><th>difference, points</th><th>lost / won</th><th>p</th><th>failures</th></tr>"
    return f"<table>{head}{''.join(_row(row) for row in rows)}</table>"


def _row(row: dict[str, Any]) -> str:
    d = row["difference"]
    rate = row["successes"] / row["count"] if row["count"] else 0.0
    lost = " class='lost'" if _is_loss(d) else ""
    told = ""
    if d:
        told = f"{100 * d['value']:+.0f} ({100 * d['low']:+.0f} … {100 * d['high']:+.0f})"
    counts = f"{d['lost']} / {d['won']}" if d else ""
    p_value = f"{d['p_value']:.3f}" if d else ""
    failures = ", ".join(f"{escape(kind)} {count}" for kind, count in row["failures"].items())
    bar = (
        "<div class='cell'><div class='line'></div>"
        f"<div class='span' style='left:{100 * row['low']:.1f}%;width:{100 * (row['high'] - row['low']):.1f}%'></div>"
        f"<div class='dot' style='left:{100 * rate:.1f}%'></div></div>"
    )
    return (
        f"<tr{lost}><td>{escape(row['name'])}</td><td class='n'>{row['successes']} / {row['count']}</td><td>{bar}</td>"
        f"<td class='n'>{told}</td><td class='n'>{counts}</td><td class='n'>{p_value}</td><td>{failures}</td></tr>"
    )


def _slug(name: str) -> str:
    return name.replace(":", "-").replace("/", "-")


def _inline(path: Path) -> str:
    if not path.is_file():
        return ""
    return "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode()
