# SPDX-License-Identifier: Apache-2.0
"""Proof of the worker: faults, queue size, fuzzing, cancel, release, Ray, overhead. Resumable: each part's result is kept
in `.cache/proof-worker/` and not measured again; remove a part's file there to measure it anew.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests")]

from retake.core.files import read_json, write_json  # noqa: E402

PARTS: dict[str, tuple[str, int, int]] = {
    "bench": ("`retake bench worker`: overhead per job ≤ 50 ms, latency to first progress", 200, 20),
    "big_queue": ("10,000 queued jobs: submit ≥ 500/s, first page < 50 ms, service < 200 MB", 10_000, 1000),
    "cancel": ("cancel within 5 s, also a job that does not listen", 5, 1),
    "release": ("`release`: the executor is gone, its memory returned", 1, 1),
    "disk_full": ("disk full during output", 1, 1),
    "corrupted": ("corrupted database page, with backup", 5, 1),
    "corrupted_no_backup": ("corrupted database page, no backup", 3, 1),
    "ray": ("Ray: two nodes, one killed; throughput ≥ 1.8 ×", 40, 8),
    "executor_kills": ("executor SIGKILLed at random points, ≥ 50 times", 50, 4),
    "service_kills": ("service SIGKILLed in mid-job, ≥ 20 times", 20, 2),
    "power_cuts": ("all processes SIGKILLed at once, restart", 10, 1),
    "two_clients": ("two clients submit the same 500 jobs", 500, 30),
    "fuzz": ("API fuzzed from its own description, ≥ 10,000 cases", 10_000, 300),
}


def prove(out_dir: Path, quick: bool) -> dict[str, Any]:
    """Measure every part that has no result yet; writes worker.json and worker.md. Raises for a claim that fails."""
    import worker_scenarios as scenarios

    from retake.worker.bench import measure

    cache = ROOT / ".cache" / ("proof-worker-quick" if quick else "proof-worker")
    calls: dict[str, Callable[[Path, int], dict[str, Any]]] = {
        "bench": measure,
        "big_queue": scenarios.big_queue,
        "cancel": scenarios.cancel_times,
        "release": lambda tmp, count: scenarios.release_memory(tmp),
        "disk_full": lambda tmp, count: scenarios.disk_full(tmp),
        "corrupted": scenarios.corrupted,
        "corrupted_no_backup": lambda tmp, count: scenarios.corrupted(tmp, count, with_backup=False),
        "ray": scenarios.ray_lost_node,
        "executor_kills": scenarios.executor_kills,
        "service_kills": scenarios.service_kills,
        "power_cuts": lambda tmp, count: scenarios.service_kills(tmp, count, everything=True),
        "two_clients": scenarios.two_clients,
        "fuzz": lambda tmp, count: fuzz_in_chunks(tmp, count, cache),
    }
    wanted = [name for name in os.environ.get("RETAKE_PROVE_PARTS", "").split(",") if name] or list(PARTS)
    for name in wanted:
        _, full, reduced = PARTS[name]
        kept = cache / f"{name}.json"
        if kept.exists() and (name != "fuzz" or read_json(kept)["cases"] >= (reduced if quick else full)):
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="retake-proof-") as folder:
            figures = calls[name](Path(folder), reduced if quick else full)
        write_json(
            kept, {**figures, "took_s": round(time.monotonic() - began), "load_average": round(os.getloadavg()[0], 1)}
        )
        print(f"{name}: {figures}", flush=True)
    found = {name: read_json(cache / f"{name}.json") for name in PARTS if (cache / f"{name}.json").exists()}
    result = {
        "quick": quick,
        "cores": os.cpu_count(),
        "not_run": [name for name in PARTS if name not in found],
        "parts": found,
        "claims": claims(found),
    }
    write_json(out_dir / "worker.json", result)
    (out_dir / "worker.md").write_text(table(result), "utf-8")
    return result


def fuzz_in_chunks(tmp: Path, cases: int, cache: Path) -> dict[str, Any]:
    """Fuzzing in portions of 1,000 with a seed each; finished portions are kept, so it can be stopped and gone on with.

    RETAKE_FUZZ_SECONDS bounds the time of one call; the figures say how many cases were really run.
    """
    import worker_scenarios as scenarios

    kept = cache / "fuzz-portions.json"
    portions = read_json(kept) if kept.exists() else []
    began, limit = time.monotonic(), float(os.environ.get("RETAKE_FUZZ_SECONDS", "inf"))
    while sum(p["cases"] for p in portions) < cases and (not portions or time.monotonic() - began < limit):
        folder = tmp / str(len(portions))
        folder.mkdir()
        portions.append(scenarios.fuzz(folder, min(1000, cases), seed=1000 * len(portions)))
        write_json(kept, portions)
    codes: dict[str, int] = {}
    for portion in portions:
        for code, number in portion["status_codes"].items():
            codes[str(code)] = codes.get(str(code), 0) + number
    return {
        "cases": sum(p["cases"] for p in portions), "operations": portions[0]["operations"],
        "status_codes": dict(sorted(codes.items())), "errors_5xx": sum(n for code, n in codes.items() if code.startswith("5")),
    }  # fmt: skip


def claims(found: dict[str, Any]) -> dict[str, bool]:
    """Which stated limits hold in what was measured."""
    checks: dict[str, tuple[str, Callable[[dict[str, Any]], bool]]] = {
        "overhead per job ≤ 50 ms": ("bench", lambda f: f["overhead, ms per job"] <= 50),
        "submit ≥ 500/s": ("big_queue", lambda f: f["submit_per_s"] >= 500),
        "first page < 50 ms": ("big_queue", lambda f: f["first_page_ms_median"] < 50),
        "service < 200 MB": ("big_queue", lambda f: f["service_memory_mb"] < 200),
        "cancel ≤ 5 s": ("cancel", lambda f: max(f["deaf_worst_s"], f["listening_worst_s"]) <= 5),
        "two Ray workers ≥ 1.8 ×": ("ray", lambda f: f["speed_up_2_workers"] >= 1.8),
        "every damaged database noticed": ("corrupted", lambda f: f["noticed"] == f["rounds"]),
        "no 5xx while fuzzing": ("fuzz", lambda f: f["errors_5xx"] == 0),
        "fuzzed with ≥ 10,000 cases": ("fuzz", lambda f: f["cases"] >= 10_000),
    }
    return {claim: bool(check(found[part])) for claim, (part, check) in checks.items() if part in found}


def table(result: dict[str, Any]) -> str:
    """worker.md."""
    lines = [
        "# Proof: the worker",
        "",
        f"Measured by `scripts/prove/worker.py`{' --quick (reduced counts)' if result['quick'] else ''} on {result['cores']} "
        "shared CPU cores, no GPU. Wall-clock figures depend on what else ran: each "
        "part states the load average at its end. "
        "Every fault part "
        "ends with the check that every take is present exactly once and equals, byte for byte, an undisturbed run.",
        "",
        "| Part | Figures | Load |",
        "|---|---|---|",
    ]
    for name, (title, _, _) in PARTS.items():
        figures = result["parts"].get(name)
        if figures is None:
            lines.append(f"| {title} | not run here | |")
            continue
        text = ", ".join(
            f"{k.replace('_', ' ')} {v}"
            for k, v in figures.items()
            if k not in ("load_average", "load average", "cores")
        )
        lines.append(f"| {title} | {text} | {figures['load_average']} |")
    lines += [
        "",
        "| Claim | Holds |",
        "|---|---|",
        *(f"| {claim} | {'yes' if ok else '**no**'} |" for claim, ok in result["claims"].items()),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    prove(ROOT / "docs" / "proof", "--quick" in sys.argv)
