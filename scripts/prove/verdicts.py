# SPDX-License-Identifier: Apache-2.0
"""Proof of the verdicts: run (or resume) the fault bench, calibrate on one half, test on the other, write the tables.

    python scripts/prove/verdicts.py                 # full counts; resumable: every video and every verdict is kept
    python scripts/prove/verdicts.py --report-only   # tables from the videos judged so far
    python scripts/prove/verdicts.py --report-only --calibrate   # also rewrite the limits in config/verdicts.yaml

Writes docs/proof/verdicts_rematerialised.md and .json. Counts in the tables are videos that were judged.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from bounds import upper_bound
from fault_bench import SPLIT, read_cache
from faults import FAULTS
from verdict_laws import summary as law_summary

from retake.core.config import config_path
from retake.core.files import write_bytes, write_json
from retake.core.verdicts.reroll import Budget, reroll
from retake.core.verdicts.settings import Threshold, VerdictSettings, load_settings

ROOT = Path(__file__).resolve().parents[2]
FLOORS = {
    "arm_offset": 2.2, "link_offset": 3.5, "lag": 0.5, "local_lag": 1.5, "gripper_openness": 0.45,
    "object_before": 6.0, "object_held": 7.0, "object_released": 8.0, "object_settled": 6.0, "object_present": 2.5,
    "background_drift": 1.5, "flicker": 0.012, "colour_shift": 0.04, "seams": 0.04,
    "sharpness_loss": 0.35, "darkness": 0.01, "frozen": 5.5, "robot_identity": 0.1, "first_frame": 0.08,
}  # fmt: skip
"""No limit is calibrated below these: what a warp of 2 px, a noisy frame or a coarse bin can do to a faithful take."""
COUNTS = {
    "tune": ["--clean", "4", "--faulty", "1", "--quick"],
    "final": ["--clean", "20", "--faulty", "2"],
}
"""Arguments of the bench per split: 96 clean videos to tune on, 480 to test on. The figures come from `final` alone."""
HEADROOM = 1.3
"""A limit lies this far beyond the worst clean video of the tuning split."""
TARGETS = {
    ("arm_offset", 4.0): 0.98, ("arm_offset", 6.0): 0.98, ("arm_offset", 10.0): 0.98, ("arm_offset", 20.0): 0.98,
    ("lag", 2.0): 0.98, ("lag", 3.0): 0.98, ("lag", 6.0): 0.98,
}  # fmt: skip
OBJECT_TARGET = 0.95
MIN_FAULTY, MIN_CLEAN = 12, 300
"""A target is called held or missed only from these counts on."""


def calibrate(rows: list[dict], settings: VerdictSettings) -> tuple[dict[str, float], dict[str, float], float, float]:
    """Limits and bounds of doubt from the clean videos of the tuning split; slope and bias of the probability from all."""
    clean = [r for r in rows if r["split"] == "tune" and r["kind"] == "clean"]
    limits, doubts = {}, {}
    for name, floor in FLOORS.items():
        values = [r["values"][name] for r in clean if r["values"].get(name) is not None]
        limits[name] = round(max([floor, *(HEADROOM * v for v in values)]), 4)
    copies = [r["values"]["object_unique"] for r in clean if r["values"].get("object_unique") is not None]
    doubts["object_unique"] = round(max([0.45, *(HEADROOM * v for v in copies)]), 4)
    limits["object_unique"] = max(0.55, doubts["object_unique"])
    support = [r["values"]["support"] for r in clean if r["values"].get("support") is not None]
    if support:
        doubts["support"] = round(min(1.6, 1 + (min(support) - 1) / HEADROOM), 4)
    tuned = {n: replace(t, limit=limits.get(n, t.limit)) for n, t in settings.thresholds.items()}
    tune = [r for r in rows if r["split"] == "tune"]
    x = np.log(np.maximum([severity(r, tuned) for r in tune], 1e-3))
    y = np.array([r["kind"] == "clean" for r in tune], float)
    slope, bias = _logistic(x, y)
    return limits, doubts, slope, bias


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
    unmeasured = any(v is None and n in row.get("unsure", []) for n, v in row["values"].items())
    doubtful = any(v is not None and thresholds[n].doubtful(v) for n, v in row["values"].items())
    return "unsure" if unmeasured or doubtful else "pass"


def auc(clean: np.ndarray, bad: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a faulty video is worse than a clean one, ties counting half."""
    wins = (bad[:, None] > clean[None, :]).mean() + 0.5 * (bad[:, None] == clean[None, :]).mean()
    return float(wins)


def evaluate(rows: list[dict], settings: VerdictSettings) -> dict:
    """All figures of the final split."""
    thresholds = settings.thresholds
    test = [r for r in rows if r["split"] == "final"]
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
        "cpu_s_per_verdict": float(np.median([r["cpu_s"] for r in rows])) if rows else None,
    }  # fmt: skip


@dataclass(frozen=True)
class _Answer:
    overall: str
    probability: float
    reasons: tuple[str, ...]


def reroll_proof(rows: list[dict], settings: VerdictSettings, floors: dict[str, float]) -> dict | None:
    """The re-roll loop over a backend that plants faults: each attempt is another judged final video, none comes twice.

    `floors` is the smallest level per kind that is found at the shipped limits; smaller faults are left out. Videos are
    drawn in random order, so about as many attempts are faulty as there are faulty videos.
    """
    thresholds, seconds_each = settings.thresholds, 7.0
    test = [r for r in rows if r["split"] == "final"]
    pool = [r for r in test if r["kind"] == "clean" or above_floor(r["kind"], r["level"], floors)]
    if len({r["kind"] == "clean" for r in pool}) < 2:
        return None
    order = np.random.default_rng(1).permutation(len(pool))
    made: list[dict] = []
    now = [0.0]

    def make(slot: int, number: int) -> dict:
        now[0] += seconds_each
        made.append(pool[order[len(made)]])
        return made[-1]

    def judge(row: dict) -> _Answer:
        worst = severity(row, thresholds)
        reasons = [n for n, v in row["values"].items() if v is not None and thresholds[n].severity(v) > 1]
        return _Answer(
            status(row, thresholds), settings.calibration.probability(worst), tuple(f"{n}:" for n in reasons)
        )

    total = len(pool)
    report = reroll(make, judge, max(total // 2, 1), Budget(4, total_attempts=total), clock=lambda: now[0])
    delivered = [a.take for a in report.delivered.values()]
    good = [a for a in report.attempts if a.take["kind"] == "clean"]
    faulty = len(report.attempts) - len(good)
    escapes = sum(r["kind"] != "clean" for r in delivered)
    return {
        "attempts": len(report.attempts), "distinct": len({r["key"] for r in made}), "faulty_attempts": faulty,
        "slots": max(total // 2, 1), "delivered": len(delivered), "escapes": escapes,
        "escapes_of_faulty": escapes / max(faulty, 1), "escapes_of_delivered": escapes / max(len(delivered), 1),
        "escaped": sorted(r["key"] for r in delivered if r["kind"] != "clean"),
        "clean_yield": sum(a.status == "pass" for a in good) / max(len(good), 1),
        "cost_right": bool(abs(report.cost_s - seconds_each * len(made)) < 1e-6),
        "cost_per_accepted_s": report.cost_per_accepted_s, "seconds_per_attempt": seconds_each,
        "budget": total, "budget_respected": len(report.attempts) <= total, "rejected_for": report.rejected_for,
    }  # fmt: skip


def size_of(kind: str, level: float) -> float:
    """How large a fault is, comparable within its kind."""
    return abs(math.log(level)) if FAULTS[kind][0] == "× speed" else level


def graded(kind: str) -> bool:
    """Whether a larger level is a larger fault (another joint is another fault, not a larger one)."""
    return FAULTS[kind][0] != "joint"


def above_floor(kind: str, level: float, floors: dict[str, float]) -> bool:
    """Whether a fault is at least as large as the smallest that is found."""
    return kind in floors and (not graded(kind) or size_of(kind, level) >= floors[kind] - 1e-9)


def monotone(rows: list[dict], settings: VerdictSettings) -> dict:
    """Pairs of final videos of one view, world and look whose fault differs in size only: is the larger one worse?"""
    groups: dict[tuple, list[dict]] = {}
    for r in rows:
        if r["split"] == "final" and r["kind"] != "clean" and graded(r["kind"]):
            look = r["key"].rsplit(":", 1)[1]
            groups.setdefault((r["view"], r["kind"], r["world"], look), []).append(r)
    pairs, wrong = 0, []
    for mine in groups.values():
        mine.sort(key=lambda r: size_of(r["kind"], r["level"]))
        for a, b in itertools.pairwise(mine):
            pairs += 1
            if severity(b, settings.thresholds) < min(severity(a, settings.thresholds), 1.0):
                wrong.append(f"{b['key']} below {a['level']:g}")
    return {"pairs": pairs, "wrong": len(wrong), "which": wrong[:12]}


def floors_of(faults: list[dict], column: str) -> dict[str, float]:
    """Kind -> size of the smallest fault from which on at least 95 % of the videos are found, by a column of the table."""
    out = {}
    for kind in FAULTS:
        found = [f for f in faults if f["kind"] == kind]
        if not graded(kind):
            if found and sum(f[column] * f["n"] for f in found) >= 0.95 * sum(f["n"] for f in found):
                out[kind] = 0.0
            continue
        order = sorted(found, key=lambda f: size_of(kind, f["level"]))
        for index, entry in enumerate(order):
            if all(e[column] >= 0.95 for e in order[index:]):
                out[kind] = size_of(kind, entry["level"])
                break
    return out


def floors_table(faults: list[dict], floors: dict[str, float]) -> list[tuple[str, str]]:
    """Kind and, in words, the smallest level that is found."""
    out = []
    for kind, (unit, levels) in FAULTS.items():
        mine = [f for f in faults if f["kind"] == kind]
        if not mine:
            continue
        if kind not in floors:
            out.append((kind, "not found"))
        elif not graded(kind) or len(levels) == 1:
            out.append((kind, "found"))
        else:
            level = next(f["level"] for f in mine if abs(size_of(kind, f["level"]) - floors[kind]) < 1e-9)
            out.append((kind, f"{level:g} {unit}"))
    return out


def markdown(result: dict) -> str:
    """The committed tables."""
    lines = [
        "# Verdicts: what the fault bench measured",
        "",
        "Made by `scripts/prove/verdicts.py`. Videos are re-materialised from the embedded simulator's ids, normals and "
        "depth (other materials, light, scenery, blur, noise, H.264 at CRF 18-28; six in ten locally warped by 0.8 to "
        "2 px) and judged from the file. No episode and no world is in two splits; limits and probability come from the tuning "
        "split alone. Two earlier splits (`test`, `blind`) had been held out until a false alarm of each led to a correction "
        "of the estimators (the last: `object_unique` 0.72 where a red packet lay on a red table); every figure here comes "
        "from the final split, which was painted and judged once, after the last change to estimators and limits. One "
        "of its episodes moves a can instead of the packet.",
        "",
        f"- tuning split {SPLIT['tune']}: {result['tune']['clean']} clean, {result['tune']['faulty']} faulty videos",
        f"- final split {SPLIT['final']}: {result['clean']} clean ({result['warped']} warped), {result['faulty']} faulty",
        f"- false alarms (verdict fail) on clean final videos: {result['false_alarms']} of {result['clean']} "
        f"(95 % upper bound {100 * result['false_alarm_bound_95']:.2f} %), unsure: {result['unsure']}"
        + (f"; by {', '.join(result['false_alarm_checks'])}" if result["false_alarm_checks"] else ""),
    ]
    if result["reprojection_median_px"] is not None:
        lines.append(
            f"- recovery on clean final videos: median reprojection error {result['reprojection_median_px']:.2f} px, worst "
            f"video {result['reprojection_worst_px']:.2f} px; lag exact in {result['lag_exact']} of {result['lag_measured']}"
        )
    if result["cpu_s_per_verdict"] is not None:
        lines.append(
            f"- {result['cpu_s_per_verdict']:.2f} s of one core per verdict (81 frames of 640x480, 5.4 s of video)"
        )
    if result["clean"] < 300:
        lines += ["", f"**Not the full count yet**: {result['clean']} of 300 clean final videos are judged, so the bound above "
                  "is loose and the last column is measured against the worst clean video so far. "
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
        "Smallest level from which on at least 95 % are found, at the shipped limits (the operating point of the false "
        "alarms above) and at the sharper ones that would alarm on exactly 1 % of these clean videos:",
        "",
        "| fault | shipped limits | 1 % false alarms |",
        "|---|---|---|",
    ]
    lines += [f"| {kind} | {floor} | {sharp} |" for kind, floor, sharp in result["floors"]]
    grown = result["monotone"]
    lines += [
        "",
        f"Monotone in the size of the fault: {grown['pairs'] - grown['wrong']} of {grown['pairs']} pairs of videos of one "
        "view and world (the worst check of the larger fault is not below that of the smaller, or both are beyond the limit). "
        "Colours, light and the direction of a displacement are drawn for each video, so a pair differs in more than the size; "
        "tests/test_verdicts.py holds everything else equal.",
    ]
    if laws := result.get("laws"):
        lines += [
            "",
            f"Laws on {laws['videos']} final videos ({laws['clean']} clean):",
            "",
            "| law | verdicts changed | single checks changed |",
            "|---|---|---|",
        ]
        names = {"twice": "judged twice (whole JSON)", "darker": "gain 0.75-1, offset -8-0", "brighter":
                 "gain 1-1.1, offset 0-12", "crf23": "encoded again, CRF 23", "crf28": "encoded again, CRF 28"}  # fmt: skip
        for law, found in laws["laws"].items():
            lines.append(f"| {names[law]} | {found['verdicts_changed']} | {found['checks_changed']} |")
    if loop := result.get("reroll"):
        lines += [
            "",
            f"Re-roll loop with a backend that plants faults of at least the size in the shipped column: "
            f"{loop['attempts']} attempts "
            f"({loop['faulty_attempts']} faulty; {loop['distinct']} distinct judged final videos) for {loop['slots']} slots, "
            f"{loop['delivered']} delivered, {loop['escapes']} of them faulty ({100 * loop['escapes_of_delivered']:.2f} % of "
            f"the delivered, {100 * loop['escapes_of_faulty']:.2f} % of the faulty); {100 * loop['clean_yield']:.1f} % of "
            f"the clean attempts accepted; cost {'reported right' if loop['cost_right'] else 'WRONG'} "
            f"({loop['cost_per_accepted_s']:.2f} s per accepted take at {loop['seconds_per_attempt']:g} s per attempt); "
            f"budget of {loop['budget']} attempts {'respected' if loop['budget_respected'] else 'EXCEEDED'}.",
        ]
    return "\n".join(lines) + "\n"


def write_config(limits: dict[str, float], doubts: dict[str, float], slope: float, bias: float, data: str) -> None:
    """Replace limits, sources and the calibration line in config/verdicts.yaml; comments stay."""
    path = config_path("verdicts.yaml")
    text = path.read_text("utf-8")
    for name, limit in limits.items():
        text = re.sub(rf"(?m)^(  {name}: \{{limit: )[-0-9.e]+", rf"\g<1>{limit:g}", text)
    for name, bound in doubts.items():
        text = re.sub(rf"(?m)^(  {name}: \{{limit: [-0-9.e]+, unsure: )[-0-9.e]+", rf"\g<1>{bound:g}", text)
    line = f"calibration: {{data: '{data}', slope: {slope:.4g}, bias: {bias:.4g}}}"
    text = re.sub(r"(?m)^calibration: .*$", line, text)
    write_bytes(path, text.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "verdicts")
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--report-only", action="store_true")
    parser.add_argument("--calibrate", action="store_true", help="rewrite the limits in config/verdicts.yaml")
    options = parser.parse_args()
    if not options.report_only:
        bench = [sys.executable, str(Path(__file__).parent / "fault_bench.py"), "--cache", str(options.cache)]
        for split, counts in COUNTS.items():
            minutes = ["--minutes", str(options.minutes)]
            subprocess.run([*bench, "--split", split, *counts, *minutes], check=True)
    rows = list(read_cache(options.cache / "rows.jsonl").values())
    settings = load_settings()
    if options.calibrate:
        limits, doubts, slope, bias = calibrate(rows, settings)
        tune = [r for r in rows if r["split"] == "tune"]
        clean = sum(r["kind"] == "clean" for r in tune)
        data = f"fault bench, tuning split ({clean} clean and {len(tune) - clean} faulty videos)"
        if clean == len(tune):
            data += ", slope assumed"
        write_config(limits, doubts, slope, bias, data)
        settings = load_settings()
    result = evaluate(rows, settings)
    floors = floors_of(result["faults"], "failed")
    sharp = dict(floors_table(result["faults"], floors_of(result["faults"], "at_1_percent")))
    result["floors"] = [(kind, found, sharp[kind]) for kind, found in floors_table(result["faults"], floors)]
    result["monotone"] = monotone(rows, settings)
    result["reroll"] = reroll_proof(rows, settings, floors)
    result["laws"] = law_summary(options.cache / "laws.jsonl")
    write_json(ROOT / "docs" / "proof" / "verdicts_rematerialised.json", result)
    text = markdown(result)
    write_bytes(ROOT / "docs" / "proof" / "verdicts_rematerialised.md", text.encode())
    print(text)
    print(json.dumps({k: result[k] for k in ("clean", "false_alarms", "false_alarm_bound_95", "unsure")}))


if __name__ == "__main__":
    main()
