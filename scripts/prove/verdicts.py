# SPDX-License-Identifier: Apache-2.0
"""Proof of the verdicts: run (or resume) the fault bench, calibrate on one half, test on the other, write the tables.

    python scripts/prove/verdicts.py                 # full counts; resumable: every judged video is kept
    python scripts/prove/verdicts.py --report-only   # tables from the videos judged so far
    python scripts/prove/verdicts.py --report-only --calibrate   # also rewrite the limits in config/verdicts.yaml

Writes docs/proof/verdicts.md and docs/proof/verdicts.json. Counts in the tables are videos that were judged.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from fault_bench import SPLIT, read_cache
from faults import FAULTS

from retake.core.config import config_path
from retake.core.files import write_bytes, write_json
from retake.core.verdicts.reroll import Budget, reroll
from retake.core.verdicts.settings import Threshold, VerdictSettings, load_settings

ROOT = Path(__file__).resolve().parents[2]
FLOORS = {
    "arm_offset": 2.2, "link_offset": 3.5, "lag": 0.5, "local_lag": 1.5, "gripper_openness": 0.45,
    "object_before": 9.0, "object_held": 10.0, "object_released": 10.0, "object_settled": 9.0, "object_present": 2.5,
    "object_unique": 0.45, "background_drift": 1.5, "flicker": 0.012, "colour_shift": 0.04, "seams": 0.04,
    "sharpness_loss": 0.35, "darkness": 0.01, "frozen": 5.5, "robot_identity": 0.12, "first_frame": 0.08,
}  # fmt: skip
"""No limit is calibrated below these: what a warp of 2 px, a noisy frame or a coarse bin can do to a faithful take."""
HEADROOM = 1.3
"""A limit lies this far beyond the worst clean video of the tuning split."""
TARGETS = {
    ("arm_offset", 4.0): 0.98, ("arm_offset", 6.0): 0.98, ("arm_offset", 10.0): 0.98, ("arm_offset", 20.0): 0.98,
    ("lag", 2.0): 0.98, ("lag", 3.0): 0.98, ("lag", 6.0): 0.98,
}  # fmt: skip
OBJECT_TARGET = 0.95
MIN_FAULTY, MIN_CLEAN = 12, 300
"""A target is called held or missed only from these counts on."""


def calibrate(rows: list[dict], settings: VerdictSettings) -> tuple[dict[str, float], float, float]:
    """Limits from the tuning split's clean videos, and slope and bias of the probability from all its videos."""
    clean = [r for r in rows if r["split"] == "tune" and r["kind"] == "clean"]
    limits = {}
    for name, floor in FLOORS.items():
        values = [r["values"][name] for r in clean if r["values"].get(name) is not None]
        limits[name] = round(max([floor, *(HEADROOM * v for v in values)]), 4)
    support = [r["values"]["support"] for r in clean if r["values"].get("support") is not None]
    if support:
        limits["support"] = round(min(1.6, 1 + (min(support) - 1) / HEADROOM), 4)
    tuned = {n: replace(t, limit=limits.get(n, t.limit)) for n, t in settings.thresholds.items()}
    tune = [r for r in rows if r["split"] == "tune"]
    x = np.log(np.maximum([severity(r, tuned) for r in tune], 1e-3))
    y = np.array([r["kind"] == "clean" for r in tune], float)
    slope, bias = _logistic(x, y)
    return limits, slope, bias


def _logistic(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """p(clean) = 1 / (1 + exp(slope·x + bias)) by Newton's method, both classes weighing the same, slope held ≥ 0.

    A weak prior (variance 25) keeps separable data from an infinite slope.
    """
    if y.min() == y.max():
        return 4.0, 0.0
    weight = np.where(y > 0, 0.5 / y.mean(), 0.5 / (1 - y.mean()))
    A, w = np.stack([x, np.ones_like(x)], 1), np.zeros(2)
    for _ in range(100):
        p = 1 / (1 + np.exp(np.clip(A @ w, -40, 40)))
        gradient = A.T @ (weight * (y - p)) + w / 25
        hessian = (A * (weight * p * (1 - p))[:, None]).T @ A + np.eye(2) / 25
        w = w - np.linalg.solve(hessian, gradient)
    return max(float(w[0]), 0.0), float(w[1])


def severity(row: dict, thresholds: dict[str, Threshold]) -> float:
    """Worst check of a video, 1 = at its limit."""
    return max(thresholds[n].severity(v) for n, v in row["values"].items() if v is not None and n in thresholds)


def status(row: dict, thresholds: dict[str, Threshold]) -> str:
    """pass, fail or unsure, as judge() says it."""
    if severity(row, thresholds) > 1:
        return "fail"
    unsure = [n for n, v in row["values"].items() if v is None and n in row.get("unsure", [])]
    return "unsure" if unsure else "pass"


def auc(clean: np.ndarray, bad: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a faulty video is worse than a clean one, ties counting half."""
    wins = (bad[:, None] > clean[None, :]).mean() + 0.5 * (bad[:, None] == clean[None, :]).mean()
    return float(wins)


def upper_bound(failures: int, n: int, confidence: float = 0.95) -> float:
    """One-sided Clopper-Pearson upper bound of a rate."""
    if n == 0:
        return 1.0
    low, high = failures / n, 1.0
    for _ in range(80):
        p = (low + high) / 2
        tail = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(failures + 1))
        low, high = (p, high) if tail > 1 - confidence else (low, p)
    return high


def evaluate(rows: list[dict], settings: VerdictSettings) -> dict:
    """All figures of the test split."""
    thresholds = settings.thresholds
    test = [r for r in rows if r["split"] == "test"]
    clean = [r for r in test if r["kind"] == "clean"]
    base = np.array([severity(r, thresholds) for r in clean])
    alarm = float(np.quantile(base, 0.99)) if len(base) else math.inf
    false = sum(s > 1 for s in base)
    faults = []
    for kind, (unit, levels) in FAULTS.items():
        for level in levels:
            group = [r for r in test if r["kind"] == kind and r["level"] == level]
            if not group or not len(base):
                continue
            bad = np.array([severity(r, thresholds) for r in group])
            enough = len(group) >= MIN_FAULTY and len(clean) >= MIN_CLEAN
            target = TARGETS.get((kind, float(level)), OBJECT_TARGET if kind.startswith("object_") else None)
            value = auc(base, bad)
            faults.append(
                {"kind": kind, "level": level, "unit": unit, "n": len(group), "auc": value, "target": target,
                 "holds": None if target is None or not enough else bool(value >= target),
                 "failed": float((bad > 1).mean()), "at_1_percent": float((bad > max(alarm, 1e-9)).mean())}
            )  # fmt: skip
    medians = [r["metrics"]["reprojection_median_px"] for r in clean if "reprojection_median_px" in r["metrics"]]
    lags = [r["values"]["lag"] for r in clean if r["values"].get("lag") is not None]
    return {
        "clean": len(clean), "false_alarms": int(false), "false_alarm_bound_95": upper_bound(int(false), len(clean)),
        "unsure": sum(status(r, thresholds) == "unsure" for r in clean),
        "warped": sum(r["warp_px"] > 0 for r in clean),
        "false_alarm_checks": sorted({n for r in clean for n, v in r["values"].items()
                                      if v is not None and thresholds[n].severity(v) > 1}),
        "faulty": len(test) - len(clean), "faults": faults,
        "reprojection_median_px": float(np.median(medians)) if medians else None,
        "reprojection_worst_px": float(np.max(medians)) if medians else None,
        "lag_exact": sum(round(v) == 0 for v in lags), "lag_measured": len(lags),
        "tune": {"clean": sum(r["split"] == "tune" and r["kind"] == "clean" for r in rows),
                 "faulty": sum(r["split"] == "tune" and r["kind"] != "clean" for r in rows)},
        "cpu_s_per_verdict": float(np.median([r["cpu_s"][1] for r in rows])) if rows else None,
    }  # fmt: skip


@dataclass(frozen=True)
class _Answer:
    overall: str
    probability: float
    reasons: tuple[str, ...]


def reroll_proof(rows: list[dict], settings: VerdictSettings, faults: list[dict], attempts: int = 600) -> dict | None:
    """The re-roll loop over a backend that plants faults: takes are drawn from the judged test videos.

    Half of what the backend makes is faulty, with faults at levels that fail at the shipped limits (95 % or more). The
    draws repeat videos when there are fewer than `attempts`, so `distinct` is the number behind the rates.
    """
    thresholds, seconds_each = settings.thresholds, 7.0
    found = {(f["kind"], f["level"]) for f in faults if f["failed"] >= 0.95}
    test = [r for r in rows if r["split"] == "test"]
    clean = [r for r in test if r["kind"] == "clean"]
    bad = [r for r in test if (r["kind"], r["level"]) in found]
    if not clean or not bad:
        return None
    rng, now = np.random.default_rng(1), [0.0]
    made: list[dict] = []

    def make(slot: int, number: int) -> dict:
        now[0] += seconds_each
        pool = bad if rng.random() < 0.5 else clean
        made.append(pool[int(rng.integers(len(pool)))])
        return made[-1]

    def judge(row: dict) -> _Answer:
        worst = severity(row, thresholds)
        reasons = [n for n, v in row["values"].items() if v is not None and thresholds[n].severity(v) > 1]
        return _Answer(
            status(row, thresholds), settings.calibration.probability(worst), tuple(f"{n}:" for n in reasons)
        )

    report = reroll(make, judge, attempts, Budget(4, total_attempts=attempts), clock=lambda: now[0])
    delivered = [a.take for a in report.delivered.values()]
    good = [a for a in report.attempts if a.take["kind"] == "clean"]
    return {
        "attempts": len(report.attempts), "distinct": len({r["key"] for r in made}),
        "faulty_attempts": sum(r["kind"] != "clean" for r in made),
        "delivered": len(delivered), "escapes": sum(r["kind"] != "clean" for r in delivered),
        "clean_yield": sum(a.status == "pass" for a in good) / len(good),
        "cost_right": bool(abs(report.cost_s - seconds_each * len(made)) < 1e-6),
        "cost_per_accepted_s": report.cost_per_accepted_s, "seconds_per_attempt": seconds_each,
        "budget_respected": len(report.attempts) <= attempts, "rejected_for": report.rejected_for,
    }  # fmt: skip


def floors_table(faults: list[dict]) -> list[tuple[str, str]]:
    """Per kind the smallest level from which on 95 % of the videos are found at 1 % false alarms."""
    out = []
    for kind, (unit, levels) in FAULTS.items():
        found = [f for f in faults if f["kind"] == kind]
        if not found:
            continue
        order = sorted(found, key=lambda f: abs(f["level"] - 1) if unit == "× speed" else f["level"])
        floor = "not found"
        for index, entry in enumerate(order):
            if all(e["at_1_percent"] >= 0.95 for e in order[index:]):
                floor = f"{entry['level']:g} {unit}".strip() if len(levels) > 1 or unit else "found"
                break
        out.append((kind, floor))
    return out


def markdown(result: dict) -> str:
    """The committed tables."""
    lines = [
        "# Verdicts: what the fault bench measured",
        "",
        "Made by `scripts/prove/verdicts.py`. Videos are re-materialised from the embedded simulator's ids, normals and "
        "depth (other materials, light, scenery, blur, noise, H.264 at CRF 18-28; six in ten locally warped by 0.8 to "
        "2 px) and judged from the file. No episode is in both splits and the bench gives each split its own worlds. The floors "
        "of the limits were set by hand from pilot videos of other episodes, and those pilots showed every world family: "
        "the episodes of the test split are unseen, its worlds are not.",
        "",
        f"- tuning split {SPLIT['tune']}: {result['tune']['clean']} clean, {result['tune']['faulty']} faulty videos",
        f"- test split {SPLIT['test']}: {result['clean']} clean ({result['warped']} warped), {result['faulty']} faulty",
        f"- false alarms on clean test videos: {result['false_alarms']} of {result['clean']} "
        f"(95 % upper bound {100 * result['false_alarm_bound_95']:.2f} %), unsure: {result['unsure']}"
        + (f"; by {', '.join(result['false_alarm_checks'])}" if result["false_alarm_checks"] else ""),
    ]
    if result["reprojection_median_px"] is not None:
        lines.append(
            f"- recovery on clean test videos: median reprojection error {result['reprojection_median_px']:.2f} px, worst "
            f"video {result['reprojection_worst_px']:.2f} px; lag exact in {result['lag_exact']} of {result['lag_measured']}"
        )
    if result["cpu_s_per_verdict"] is not None:
        lines.append(
            f"- {result['cpu_s_per_verdict']:.2f} s of one core per verdict (81 frames of 640x480, 5.4 s of video)"
        )
    if result["clean"] < 300:
        lines += ["", f"**Not the full count yet**: {result['clean']} of 300 clean test videos are judged, so the bound above is "
                  "loose and the last column is measured against the worst clean video so far. "
                  "`python scripts/prove/verdicts.py` goes on from here."]  # fmt: skip
    lines += ["", "| fault | level | videos | ROC AUC | target | failed at the shipped limits | found at 1 % false alarms |",
              "|---|---|---|---|---|---|---|"]  # fmt: skip
    for f in result["faults"]:
        target = (
            ""
            if f["target"] is None
            else f"{f['target']:.2f} {'too few videos' if f['holds'] is None else '✓' if f['holds'] else '✗'}"
        )
        lines.append(
            f"| {f['kind']} | {f['level']:g} {f['unit']} | {f['n']} | {f['auc']:.3f} | {target} | "
            f"{100 * f['failed']:.0f} % | {100 * f['at_1_percent']:.0f} % |"
        )
    lines += [
        "",
        "Smallest level from which on at least 95 % are found at 1 % false alarms:",
        "",
        "| fault | from |",
        "|---|---|",
    ]
    lines += [f"| {kind} | {floor} |" for kind, floor in result["floors"]]
    if loop := result.get("reroll"):
        lines += [
            "",
            f"Re-roll loop with a backend that plants a fault in half of its takes: {loop['attempts']} attempts "
            f"({loop['faulty_attempts']} faulty, drawn from {loop['distinct']} judged test videos), {loop['delivered']} "
            f"delivered, {loop['escapes']} of them faulty; {100 * loop['clean_yield']:.1f} % of the clean attempts "
            f"accepted; cost {'reported right' if loop['cost_right'] else 'WRONG'} "
            f"({loop['cost_per_accepted_s']:.2f} s per accepted take at {loop['seconds_per_attempt']:g} s per attempt); "
            f"budget {'respected' if loop['budget_respected'] else 'EXCEEDED'}.",
        ]
    return "\n".join(lines) + "\n"


def write_config(limits: dict[str, float], slope: float, bias: float, data: str) -> None:
    """Replace limits, sources and the calibration line in config/verdicts.yaml; comments stay."""
    path = config_path("verdicts.yaml")
    text = path.read_text("utf-8")
    for name, limit in limits.items():
        text = re.sub(rf"(?m)^(  {name}: \{{limit: )[-0-9.e]+", rf"\g<1>{limit:g}", text)
    line = f"calibration: {{data: '{data}', slope: {slope:.4g}, bias: {bias:.4g}}}"
    text = re.sub(r"(?m)^calibration: .*$", line, text)
    write_bytes(path, text.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "verdicts")
    parser.add_argument("--clean", type=int, default=26)
    parser.add_argument("--faulty", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--report-only", action="store_true")
    parser.add_argument("--calibrate", action="store_true", help="rewrite the limits in config/verdicts.yaml")
    options = parser.parse_args()
    if not options.report_only:
        bench = [sys.executable, str(Path(__file__).parent / "fault_bench.py"), "--cache", str(options.cache)]
        counts = ["--clean", str(options.clean), "--faulty", str(options.faulty), "--minutes", str(options.minutes)]
        subprocess.run([*bench, *counts], check=True)
    rows = list(read_cache(options.cache / "rows.jsonl").values())
    settings = load_settings()
    if options.calibrate:
        limits, slope, bias = calibrate(rows, settings)
        tune = [r for r in rows if r["split"] == "tune"]
        clean = sum(r["kind"] == "clean" for r in tune)
        data = f"fault bench, tuning split ({clean} clean and {len(tune) - clean} faulty videos)"
        if clean == len(tune):
            data += ", slope assumed"
        write_config(limits, slope, bias, data)
        settings = load_settings()
    result = evaluate(rows, settings)
    result["floors"] = floors_table(result["faults"])
    result["reroll"] = reroll_proof(rows, settings, result["faults"])
    write_json(ROOT / "docs" / "proof" / "verdicts.json", result)
    text = markdown(result)
    write_bytes(ROOT / "docs" / "proof" / "verdicts.md", text.encode())
    print(text)
    print(json.dumps({k: result[k] for k in ("clean", "false_alarms", "false_alarm_bound_95", "unsure")}))


if __name__ == "__main__":
    main()
