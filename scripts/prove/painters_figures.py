# SPDX-License-Identifier: Apache-2.0
"""What rows of judged videos add up to: rates with their bounds, AUCs, operating points, how honest probabilities are."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import numpy as np
from bounds import upper_bound
from film_episodes import LARGE
from film_faults import FAULTS

from retake.core.verdicts.settings import VerdictSettings

SCALES = (0.6, 0.7, 0.85, 1.0, 1.25, 1.5, 2.0)
"""Factors of all limits in the operating curve."""
GROUPS = {"front": "fixed", "side": "fixed", "wrist": "wrist", "moving": "moving"}


def severity(row: dict, settings: VerdictSettings) -> float:
    """Worst measured check of a video in units of its limit."""
    known = [
        settings.thresholds[n].severity(v)
        for n, v in row["values"].items()
        if v is not None and n in settings.thresholds
    ]
    return max(known, default=0.0)


def auc(clean: np.ndarray, bad: np.ndarray) -> float | None:
    """Chance that a faulty video is worse than a clean one, ties counting half."""
    if not len(clean) or not len(bad):
        return None
    return float((bad[:, None] > clean).mean() + 0.5 * (bad[:, None] == clean).mean())


def auc_bound(value: float, n: int, confidence: float = 0.95) -> float:
    """One-sided lower bound of an AUC of n faulty videos against these clean ones. Of each faulty video the AUC averages the
    share of clean ones below it, which lies within 0 and 1 and so varies no more than a yes or no: the bound is that of a
    rate, with misses rounded up."""
    return 1 - upper_bound(min(math.ceil(n * (1 - value) - 1e-9), n), n, confidence) if n else 0.0


def counts(rows: list[dict]) -> dict[str, Any]:
    """Videos, and how many failed, were unsure, passed."""
    found = Counter(r["overall"] for r in rows)
    return {"n": len(rows), "fail": found["fail"], "unsure": found["unsure"], "pass": found["pass"]}


def deciders(rows: list[dict], most: int = 3) -> str:
    """The checks that failed most often, with their counts."""
    found = Counter(n for r in rows for n, s in r["status"].items() if s == "fail")
    return ", ".join(f"{name} {count}" for name, count in found.most_common(most))


def word(row: dict, settings: VerdictSettings) -> str:
    """pass, fail or unsure of a row at the limits of `settings` (another operating point than it was judged at)."""
    known = {n: v for n, v in row["values"].items() if v is not None and n in settings.thresholds}
    if any(settings.thresholds[n].fails(v) for n, v in known.items()):
        return "fail"
    untold = any(row["status"][n] == "unsure" for n, v in row["values"].items() if v is None)
    return "unsure" if untold or any(settings.thresholds[n].doubtful(v) for n, v in known.items()) else "pass"


def at_limits(row: dict, settings: VerdictSettings) -> dict:
    """A row with its words at the limits of `settings`: values are kept, limits may have changed since."""
    status = dict(row["status"])
    for name, value in row["values"].items():
        if value is not None and name in settings.thresholds:
            limit = settings.thresholds[name]
            status[name] = "fail" if limit.fails(value) else "unsure" if limit.doubtful(value) else "pass"
    found = set(status.values())
    overall = "fail" if "fail" in found else "unsure" if "unsure" in found else "pass"
    return {**row, "status": status, "overall": overall}


def at_points(rows: list[dict], settings: VerdictSettings) -> list[dict[str, Any]]:
    """Shares of clean and faulty videos at every operating point."""
    out = []
    for name in settings.operating_points:
        sharp = settings.at(name)
        tally = {
            kind: Counter(word(r, sharp) for r in rows if (r["kind"] == "clean") == (kind == "clean"))
            for kind in ("clean", "faulty")
        }
        n = {kind: sum(c.values()) for kind, c in tally.items()}
        if all(n.values()):
            out.append({
                "point": name, "splits": sorted({r["split"] for r in rows}), "clean": n["clean"], "faulty": n["faulty"],
                "clean_passed": tally["clean"]["pass"] / n["clean"], "clean_failed": tally["clean"]["fail"] / n["clean"],
                "faulty_passed": tally["faulty"]["pass"] / n["faulty"], "faulty_failed": tally["faulty"]["fail"] / n["faulty"],
            })  # fmt: skip
    return out


def reliability(rows: list[dict]) -> list[dict[str, Any]]:
    """How often takes are faithful per stated probability, clean and faulty videos weighing alike."""
    out, n = [], Counter(r["kind"] == "clean" for r in rows)
    for low, high in itertools.pairwise((0.0, 0.1, 0.5, 0.9, 0.99, 1.0001)):
        mine = [r for r in rows if low <= r["probability"] < high]
        weight = {kind: sum((r["kind"] == "clean") == kind for r in mine) / max(n[kind], 1) for kind in (True, False)}
        total = sum(weight.values())
        if total:
            stated = sum(r["probability"] / max(n[r["kind"] == "clean"], 1) for r in mine) / total
            out.append(
                {"low": low, "high": min(high, 1.0), "n": len(mine), "stated": stated, "faithful": weight[True] / total}
            )
    return out


def evaluate(rows: list[dict], settings: VerdictSettings) -> dict[str, Any]:
    """Everything the tables of one split say."""
    clean = [r for r in rows if r["kind"] == "clean"]
    out: dict[str, Any] = {"clean": {}, "looks": [], "faults": [], "curve": []}
    for group in ("fixed", "wrist", "moving"):
        mine = [r for r in clean if GROUPS[r["camera"]] == group]
        if mine:
            tally = counts(mine)
            out["clean"][group] = {
                **tally,
                "bound_95": upper_bound(tally["fail"], tally["n"]),
                "checks": deciders(mine),
            }
    for look in dict.fromkeys(r["look"] for r in clean):
        mine = [r for r in clean if r["look"] == look]
        out["looks"].append({"look": look, **counts(mine), "checks": deciders(mine)})
    for kind, (unit, levels, target) in FAULTS.items():
        for level in levels:
            for group in ("fixed", "wrist", "moving"):
                mine = [r for r in rows if r["kind"] == kind and r["level"] == level and GROUPS[r["camera"]] == group]
                if not mine:
                    continue
                base = np.array([severity(r, settings) for r in clean if GROUPS[r["camera"]] == group])
                value = auc(base, np.array([severity(r, settings) for r in mine]))
                out["faults"].append(
                    {"kind": kind, "level": level, "unit": unit, "view": group, "target": target, "auc": value, **counts(mine),
                     "renders": len({(r["robot"], r["camera"], r["family"]) for r in mine}), "checks": deciders(mine),
                     "auc_bound": None if value is None else auc_bound(value, len(mine))}
                )  # fmt: skip
    out["together"] = together(out["faults"])
    out["by_shown"] = by_shown(rows)
    faulty = [r for r in rows if r["kind"] != "clean"]
    for scale in SCALES:
        failed = [np.mean([severity(r, settings) > scale for r in part]) if part else None for part in (clean, faulty)]
        out["curve"].append({"scale": scale, "false_alarms": failed[0], "found": failed[1]})
    out["points"] = at_points(rows, settings)
    out["reliability"] = reliability(rows) if clean and faulty else []
    out["doubts"] = [
        (n, c) for n, c in Counter(n for r in clean for n, s in r["status"].items() if s == "unsure").most_common(6)
    ]
    out["speed_s"] = speeds(rows)
    out["versions"] = sorted({r.get("version", "11") for r in rows})
    out["films"] = sorted({r["key"].split("/")[1].replace("-", " ") for r in rows})
    return out


SHOWN_PX = (0.0, 150.0, 500.0, np.inf)
"""Pixels (of 640x480) in which a fault changes what is seen: a sliver, something, a thing."""


def by_shown(rows: list[dict]) -> list[dict[str, Any]]:
    """Faulty videos by how much of the fault shows, where that was counted."""
    out = []
    for kind in dict.fromkeys(r["kind"] for r in rows if r.get("changed_px") is not None):
        for low, high in itertools.pairwise(SHOWN_PX):
            mine = [
                r
                for r in rows
                if r["kind"] == kind and r.get("changed_px") is not None and low <= r["changed_px"] < high
            ]
            if mine:
                out.append({"kind": kind, "low": low, "high": None if np.isinf(high) else high, **counts(mine)})
    return out


def together(faults: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Faults of several views as one row: an AUC is the mean of the views' (each against clean videos of its view), weighing
    by videos."""
    out = []
    for key, group in itertools.groupby(faults, key=lambda r: (r["kind"], r["level"])):
        mine = [r for r in group if r["auc"] is not None]
        if len(mine) < 2:
            continue
        n = sum(r["n"] for r in mine)
        value = sum(r["auc"] * r["n"] for r in mine) / n
        summed = {word: sum(r[word] for r in mine) for word in ("renders", "fail", "unsure", "pass")}
        told = {word: mine[0][word] for word in ("unit", "target")}
        out.append(
            {"kind": key[0], "level": key[1], "view": "all", **told, "n": n, **summed, "auc": value,
             "auc_bound": auc_bound(value, n), "checks": ""}
        )  # fmt: skip
    return out


def speeds(rows: list[dict]) -> dict[str, float]:
    """Median CPU seconds of a verdict per size of picture."""
    by_size: dict[str, list[float]] = {}
    for row in rows:
        seed = int(row["key"].split("/")[1].split("-")[0].rsplit("_", 1)[1])
        width, height = LARGE.get(seed, (640, 480))
        by_size.setdefault(f"{width}x{height}", []).append(row["cpu_s"])
    return {size: float(np.median(every)) for size, every in sorted(by_size.items())}
