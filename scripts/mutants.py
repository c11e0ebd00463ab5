# SPDX-License-Identifier: Apache-2.0
"""`make mutants`: do the tests notice a small fault? A random sample of faults per package, each planted alone in a copy.

A mutant (mutation/faults.py) is run against the tests that execute its line, those of the nearest files first, then of every
other file, up to the first that fails; which tests those are is measured once per test file (mutation/reach.py). Tests are
collected once, and each mutant lives in a fork (mutation/session.py); only one whose line importing executes gets a process of
its own. It is killed when a test hangs, or fails, passes without the fault, and fails with it again. Survivors that no test
can notice are named with the reason in mutation/equivalent.yaml and left out of the share.

A sample follows from the seed and from the code alone, and `--count 40` runs the 20 of `--count 20` first. Results are kept per
mutant in .cache/mutants, so an interrupted run goes on where it was; survivors are judged anew when the tests near them change.
docs/proof/mutants.md has every sample that was judged, by seed: `unseen` ones, for whose survivors no test was written, those
that were `earlier` unseen, and `tuned` ones. Once a test is written for a survivor of an unseen one, it is no longer that: run
its seed as `earlier` and draw another.

usage: mutants.py [PACKAGE …] [--as tuned|unseen] [--count N] [--seed S] [--minutes M]
       mutants.py --list [PACKAGE …] [--count N] [--seed S]      the sample, without judging it
       mutants.py --at FILE[:LINE] …      every fault of these lines, without a table
       mutants.py --measure TEST_FILE … [--minutes M]      what these execute, for the judging to come (tens of minutes for all)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from mutation import reach
from mutation.faults import Fault, faults, plant
from mutation.reach import (
    CACHE,
    COPY,
    MOST_ALL_S,
    MOST_UNMEASURED_S,
    NEAREST,
    ROOT,
    chosen_tests,
    make_copy,
    run,
    session_for,
    tests_of,
)

OUT = ROOT / "docs" / "proof"
EQUIVALENT = ROOT / "scripts" / "mutation" / "equivalent.yaml"
SAMPLED = ("core", "usd", "worker", "isaac")
KINDS = {
    "unseen": "Unseen: no test was written for any of these before it was judged",
    "earlier": "Earlier: unseen when it was judged; tests were written for the kinds of fault that survived since then",
    "tuned": "Tuned on: tests were written for the kinds of fault that survived here at first",
}
LEFT_OUT = {"tests", "bench.py"}
"""Kit's own tests, and measurements."""
MEASURE = [True]
"""Whether test files are measured first: worth it where many mutants of a module are judged."""
_moments = count(int(time.time()) % 10**8 * 4)


def modules(package: str) -> list[Path]:
    folder = ROOT / f"exts/retake.{package}/retake/{package}"
    return [path for path in sorted(folder.rglob("*.py")) if not LEFT_OUT & {*path.parts[-3:]}]


def name_of(module: Path) -> str:
    return str(module.relative_to(ROOT / "exts"))


def sample(package: str, seed: int, count: int) -> list[tuple[Path, Fault]]:
    """A random sample of a package's faults, each with the same chance; an edit elsewhere changes (nearly) nothing of it."""
    found = [(path, fault) for path in modules(package) for fault in faults(path.read_text("utf-8"), name_of(path))]
    return sorted(found, key=lambda pair: _unit(seed, pair[1].key))[:count]


def _unit(seed: int, text: str) -> float:
    """A number in (0, 1) that looks random."""
    return (int(hashlib.sha256(f"{seed}:{text}".encode()).hexdigest()[:12], 16) + 1) / (16**12 + 1)


def known_result(module: Path, fault: Fault) -> dict[str, Any] | None:
    """What was found about this mutant before, if its module is still the same."""
    kept = CACHE / "results" / f"{fault.key}.json"
    known = json.loads(kept.read_text()) if kept.is_file() else None
    same = known is not None and known["source"] == _digest(module.read_text("utf-8"))
    return {**known, "line": fault.line} if known and same else None


def judge(module: Path, fault: Fault, package: str) -> dict[str, Any]:
    """Plant one fault in the copy, run the tests of the files near it, nearest first, put the module back. It is kept."""
    source, kept = module.read_text("utf-8"), CACHE / "results" / f"{fault.key}.json"
    files = [file for file in tests_of(module, package) if not reach.ONLY or file in reach.ONLY]
    asked = _digest(source + "".join((ROOT / file).read_text("utf-8") for file in files))
    known = known_result(module, fault)
    if known and (known["killed"] or known["asked"] == asked or fault.key in equivalents()):
        return known
    row = {
        "package": package, "module": name_of(module), "line": fault.line, "fault": fault.what, "text": fault.text,
        "key": fault.key, "asked": asked, "source": _digest(source), "tests": 0, "killed": False, "by": "",
        "first": known and known.get("first", known["killed"]),
    }  # fmt: skip
    started = time.monotonic()
    left = most_s()
    for near in (True, False):  # the nearest files alone first: most mutants live no longer
        listed = [
            (file, chosen_tests(file, module, fault, measure=MEASURE[0]))
            for file in (files[:NEAREST] if near else files[NEAREST:])
        ]
        if not near:  # as many files as the time allows: each knows something else
            listed.sort(key=lambda pair: sum(s for _, s in pair[1]))
        for worker in (False, True):
            tests = []
            for file, own in listed:
                if own and file.startswith("tests/worker/") == worker and (cost := sum(s for _, s in own)) <= left:
                    left -= cost
                    tests += own
            if tests and not row["killed"]:
                row["tests"] += len(tests)
                row["by"] = _run_against(module, fault, source, tests)
                row["killed"] = bool(row["by"])
        if row["killed"]:
            break
    row |= {"files": files, "seconds": round(time.monotonic() - started, 1)}
    if row["first"] is None:
        row["first"] = row["killed"]
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps(row))
    return row


def most_s() -> float:
    """Processor time of one mutant's tests, s."""
    return MOST_ALL_S if MEASURE[0] else MOST_UNMEASURED_S


def _run_against(module: Path, fault: Fault, source: str, tests: list[tuple[str, float]]) -> str:
    """The first of the tests that fails with the fault planted, or how they end otherwise; empty when all pass."""
    target = COPY / "exts" / name_of(module)
    limit_s = 60 + 15 * sum(seconds for _, seconds in tests)
    before = target.stat().st_mtime
    order = {"module": name_of(module), "source": source, "span": fault.span, "cpu_s": most_s()}
    session = session_for(tests[0][0])

    def found(names: list[str], *, planted: bool) -> dict[str, Any]:
        text = plant(source, fault.number) if planted else source
        target.write_text(text, "utf-8")  # for the processes that tests start
        os.utime(target, (before, 1e9 + next(_moments)))  # what is compiled of one mutant is not taken for the next
        if not planted or fault.in_function:
            out = session.obey({**order, "number": fault.number if planted else None, "tests": names}, limit_s)
        return _in_a_fresh_process(names, limit_s) if planted and (not fault.in_function or out.get("fresh")) else out

    try:
        names = [name for name, _ in tests]
        first = found(names, planted=True)
        if first["hangs"]:
            return "" if found(names, planted=False)["hangs"] else f"hangs for {limit_s:.0f} s"
        if first.get("crashed"):
            return "" if found(names, planted=False).get("crashed") else "the process dies"
        if not (failed := str(first["failed"])):
            return ""
        # A test that fails without the fault, too, says nothing about it; nor does one that fails once on a busy machine.
        if failed not in names:
            return failed
        plain = found([failed], planted=False)
        if plain["hangs"] or plain.get("failed"):
            return ""
        for some in ([failed], names[: names.index(failed) + 1]):
            again = found(some, planted=True)
            if again["hangs"] or again.get("crashed") or again.get("failed"):
                return failed
        return ""
    finally:
        target.write_text(source, "utf-8")
        os.utime(target, (before, before))


def _in_a_fresh_process(names: list[str], limit_s: float) -> dict[str, Any]:
    """The same answer as a session's, from a process that imports everything anew."""
    listed = CACHE / "chosen.json"
    listed.write_text(json.dumps(names))
    code, text = run(names[0], ["scripts/mutation/chosen.py", str(listed)], limit_s + 60)
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", text, re.M)
    return {
        "hangs": code is None,
        "failed": "" if code == 0 else failed[1] if failed else "the tests cannot be collected",
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def shown(row: dict[str, Any]) -> str:
    mark = "killed  " if row["killed"] else "SURVIVED"
    by = row["by"] or (f"{row['tests']} tests" if row["tests"] else "no test executes it")
    return f"{mark} {row['key']} {row['module']}:{row['line']} {row['fault']} | {row['text'][:90]} ({by})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=f"any of {', '.join(SAMPLED)} (default: all)")
    parser.add_argument("--count", type=int, default=40, help="mutants per package (40)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=0, help="then only what is known already (0: no limit)")
    parser.add_argument(
        "--as", dest="kind", choices=KINDS, default="tuned", help="which sample of the page this is (tuned)"
    )
    parser.add_argument("--list", action="store_true", help="print the sample without judging it")
    parser.add_argument(
        "--tests", nargs="+", default=[], metavar="FILE", help="with --at: look at these test files alone"
    )
    parser.add_argument("--unmeasured", action="store_true", help="run test files that were never measured as they are")
    parser.add_argument(
        "--measure", nargs="+", metavar="FILE", help="measure what these test files execute, and no more"
    )
    parser.add_argument("--at", nargs="+", metavar="FILE[:LINE]", help="every fault of these lines, without a table")
    options = parser.parse_args()
    if unknown := set(options.packages) - set(SAMPLED):
        parser.error(f"unknown package {sorted(unknown)[0]!r}; valid: {', '.join(SAMPLED)}")
    if options.list:
        for package in options.packages or SAMPLED:
            for module, fault in sample(package, options.seed, options.count):
                print(f"{fault.key} {name_of(module)}:{fault.line} {fault.what} | {fault.text}")
        return 0
    reach.ONLY.update(options.tests)
    MEASURE[0] = not options.unmeasured
    make_copy()
    if options.measure:
        return measure(options.measure, options.minutes)
    if options.at:
        return at(options.at)
    print(f"seed {options.seed}, {options.count} mutants per package", flush=True)
    packages, until = options.packages or SAMPLED, time.monotonic() + 60 * options.minutes
    samples = {package: sample(package, options.seed, options.count) for package in packages}
    if options.unmeasured:
        mutants = [(module, package) for package in packages for module, _ in samples[package]]
        reach.ONLY.update(file for module, package in mutants for file in tests_of(module, package))
    rows = []
    for number in range(options.count):  # in turn, so that a run that is stopped has as many of each
        for package in packages:
            if number >= len(samples[package]):
                continue
            module, fault = samples[package][number]
            late = options.minutes and time.monotonic() > until
            if (row := known_result(module, fault) if late else judge(module, fault, package)) is not None:
                rows.append(row)
                print(shown(row), flush=True)
    kept = OUT / "mutants.json"
    before = json.loads(kept.read_text("utf-8"))["samples"] if kept.is_file() else []
    asked = {package: len(own) for package, own in samples.items()}
    judged = {"kind": options.kind, "seed": options.seed, "asked": asked, "mutants": [_public(row) for row in rows]}
    samples_kept = with_sample(before, judged)
    kept.write_text(json.dumps({"samples": samples_kept}, indent=1) + "\n", "utf-8")
    text = page(samples_kept, equivalents())
    OUT.joinpath("mutants.md").write_text(text, "utf-8")
    print(text)
    return 0


def measure(files: list[str], minutes: float) -> int:
    """Measure test files for the judging to come, as far as the time goes; 1 when some are left."""
    until, left = time.monotonic() + 60 * (minutes or 1e6), 0
    reach.ONLY.update(files)
    somewhere = modules("core")[0]
    for file in files:
        if time.monotonic() > until:
            left += not reach.is_measured(file, somewhere)
        else:
            reach.trace_of(file, somewhere)
    print(f"{left} files are left")
    return 1 if left else 0


def at(places: list[str]) -> int:
    """Judge every fault of some lines; 1 when one survives."""
    survived = 0
    for place in places:
        file, _, line = place.partition(":")
        module = (ROOT / file).resolve()
        package = module.relative_to(ROOT / "exts").parts[0].removeprefix("retake.")
        for fault in faults(module.read_text("utf-8"), name_of(module)):
            if not line or fault.line == int(line):
                row = judge(module, fault, package)
                survived += not row["killed"]
                print(shown(row), flush=True)
    return 1 if survived else 0


def equivalents() -> dict[str, str]:
    """Key of a mutant -> why no test can notice it."""
    return yaml.safe_load(EQUIVALENT.read_text("utf-8")) or {}


def _public(row: dict[str, Any]) -> dict[str, Any]:
    names = ("package", "module", "line", "fault", "text", "key", "killed", "by", "seconds")
    return {**{name: row[name] for name in names}, "first": first_killed(row)}


def first_killed(row: dict[str, Any]) -> bool:
    """Whether the tests of that time killed it when it was judged first: before any test was written for its kind."""
    return bool(row.get("first", row["killed"]))


def with_sample(before: Sequence[dict[str, Any]], judged: dict[str, Any]) -> list[dict[str, Any]]:
    """The page's samples with one more, or with some packages of one judged anew, maybe as another kind; notes stay."""
    out: list[dict[str, Any]] = []
    new = {**judged}
    for one in before:
        if one["seed"] == judged["seed"]:
            asked = {package: count for package, count in one["asked"].items() if package not in judged["asked"]}
            rows = [row for row in one["mutants"] if row["package"] in asked]
            one = {**one, "asked": asked, "mutants": rows}
            if one["kind"] == judged["kind"]:
                new = {**one, **judged, "asked": {**asked, **judged["asked"]}, "mutants": [*rows, *judged["mutants"]]}
                continue
        out += [one] if one["asked"] else []
    new["mutants"] = sorted(new["mutants"], key=lambda row: SAMPLED.index(row["package"]))
    return sorted([new, *out], key=lambda one: [*KINDS].index(one["kind"]))


def page(samples: Sequence[dict[str, Any]], reasons: dict[str, str]) -> str:
    lines = [
        "# Proof: mutants", "",
        "`make mutants`: small faults planted one at a time, each fault of a package with the same chance; one is killed when",
        "a test that executes its line fails or hangs. The shares are of those that a test could notice.",
    ]  # fmt: skip
    for sample in samples:
        rows, heading = sample["mutants"], f"## {KINDS[sample['kind']]}"
        judged = (
            f"Seed {sample['seed']}; {len(rows)} of {sum(sample['asked'].values())} judged. {sample.get('note', '')}"
        )
        lines += ["", heading, ""] if heading not in lines else [""]
        lines += [judged.strip()]
        lines += [
            "", "| package | mutants | equivalent | killed at first | killed now | of them by hanging | median seconds |",
            "|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        lines += [
            _row(package, own, reasons) for package in SAMPLED if (own := [r for r in rows if r["package"] == package])
        ]
        survivors = [row for row in rows if not row["killed"]]
        lines += ["", "| survivor | line | fault | why |", "|---|---|---|---|"] if survivors else []
        for row in survivors:
            text, why = row["text"].replace("|", "\\|"), reasons.get(row["key"], "no test that was run notices it")
            lines.append(f"| {row['module']}:{row['line']} | `{text}` | {row['fault']} | {why} |")
    return "\n".join(lines) + "\n"


def _row(package: str, rows: list[dict[str, Any]], reasons: dict[str, str]) -> str:
    killed = [row for row in rows if row["killed"]]
    same = sum(not row["killed"] and row["key"] in reasons for row in rows)
    hanging, rest = sum(row["by"].startswith("hangs") for row in killed), len(rows) - same
    times = [row["seconds"] for row in rows if row.get("seconds") is not None]
    return (
        f"| {package} | {len(rows)} | {same} | {_share(sum(row['first'] for row in rows), rest)} | "
        f"{_share(len(killed), rest)} | {hanging} | {f'{median(times):.0f}' if times else 'not noted'} |"
    )


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole}: {part / max(whole, 1):.0%}"


if __name__ == "__main__":
    sys.exit(main())
