# SPDX-License-Identifier: Apache-2.0
"""`make mutants`: do the tests notice a small fault? A random sample of faults per package, each planted alone in a copy.

A mutant (mutation/faults.py) is run against the tests that execute its line, shortest first, up to the first that fails; which
tests those are is measured once per test file (mutation/reach.py). It is killed when a test fails or hangs. Survivors that no
test can notice are named with the reason in mutation/equivalent.yaml and left out of the share.

The sample is one of modules and of faults in each (`sample`); it follows from the seed and from the code alone, and `--count 40`
runs the 20 of `--count 20` first. Results are kept per mutant in .cache/mutants, so an interrupted run goes on where it was;
survivors are judged anew when the tests near them change. The table goes to docs/proof/mutants.md.

usage: mutants.py [PACKAGE …] [--count N] [--seed S] [--minutes M]
       mutants.py --at FILE[:LINE] …      every fault of these lines, without a table
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from mutation.faults import Fault, faults, plant
from mutation.reach import CACHE, COPY, ROOT, chosen_tests, make_copy, run, tests_of

OUT = ROOT / "docs" / "proof"
EQUIVALENT = ROOT / "scripts" / "mutation" / "equivalent.yaml"
SAMPLED = ("core", "usd", "worker", "isaac")
LEFT_OUT = {"tests", "bench.py"}
"""Kit's own tests, and measurements."""
PER_MODULE = 5


def modules(package: str) -> list[Path]:
    folder = ROOT / f"exts/retake.{package}/retake/{package}"
    return [path for path in sorted(folder.rglob("*.py")) if not LEFT_OUT & {*path.parts[-3:]}]


def name_of(module: Path) -> str:
    return str(module.relative_to(ROOT / "exts"))


def sample(package: str, seed: int, count: int) -> list[tuple[Path, Fault]]:
    """A sample in two stages: modules, each with a chance that grows with its faults, and PER_MODULE faults of each.

    Both follow from hashes of names and texts with the seed, so that an edit elsewhere changes (nearly) nothing of it.
    """
    found = {path: faults(path.read_text("utf-8"), name_of(path)) for path in modules(package)}
    weighed = [(_unit(seed, name_of(path)) ** (1 / len(own)), path) for path, own in found.items() if own]
    out: list[tuple[Path, Fault]] = []
    for _, path in sorted(weighed, reverse=True)[: -(-count // PER_MODULE)]:
        out += [(path, fault) for fault in sorted(found[path], key=lambda f: _unit(seed, f.key))[:PER_MODULE]]
    return out[:count]


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
    files = tests_of(module, package)
    asked = _digest(source + "".join((ROOT / file).read_text("utf-8") for file in files))
    known = known_result(module, fault)
    if known and (known["killed"] or known["asked"] == asked or fault.key in equivalents()):
        return known
    row = {
        "package": package, "module": name_of(module), "line": fault.line, "fault": fault.what, "text": fault.text,
        "key": fault.key, "asked": asked, "source": _digest(source), "tests": 0, "killed": False, "by": "",
        "first": known and known.get("first", known["killed"]),
    }  # fmt: skip
    started, target = time.monotonic(), COPY / "exts" / name_of(module)
    listed = CACHE / "chosen.json"
    for file in files:
        tests = chosen_tests(file, module, fault)
        if not tests:
            continue
        row["tests"] += len(tests)
        listed.write_text(json.dumps([name for name, _ in tests]))
        limit_s = 120 + 20 * sum(seconds for _, seconds in tests)
        target.write_text(plant(source, fault.number), "utf-8")
        try:
            code, text = run(file, ["scripts/mutation/chosen.py", str(listed)], limit_s)
        finally:
            target.write_text(source, "utf-8")
        if code != 0:
            row["killed"] = True
            row["by"] = f"hangs for {limit_s:.0f} s" if code is None else _first_failure(text)
            break
    row |= {"files": files, "seconds": round(time.monotonic() - started)}
    if row["first"] is None:
        row["first"] = row["killed"]
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps(row))
    return row


def _first_failure(text: str) -> str:
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", text, re.M)
    return found[1] if found else "the tests cannot be collected"


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
    parser.add_argument("--at", nargs="+", metavar="FILE[:LINE]", help="every fault of these lines, without a table")
    options = parser.parse_args()
    if unknown := set(options.packages) - set(SAMPLED):
        parser.error(f"unknown package {sorted(unknown)[0]!r}; valid: {', '.join(SAMPLED)}")
    make_copy()
    if options.at:
        return at(options.at)
    print(f"seed {options.seed}, {options.count} mutants per package", flush=True)
    packages, until = options.packages or SAMPLED, time.monotonic() + 60 * options.minutes
    samples = {package: sample(package, options.seed, options.count) for package in packages}
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
    text = page(rows, options.seed, equivalents(), sum(map(len, samples.values())))
    OUT.joinpath("mutants.json").write_text(
        json.dumps({"seed": options.seed, "mutants": [_public(row) for row in rows]}, indent=1) + "\n", "utf-8"
    )
    OUT.joinpath("mutants.md").write_text(text, "utf-8")
    print(text)
    return 0


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
    names = ("package", "module", "line", "fault", "text", "key", "killed", "by")
    return {**{name: row[name] for name in names}, "first": first_killed(row)}


def first_killed(row: dict[str, Any]) -> bool:
    """Whether the tests of that time killed it when it was judged first: before any test was written for its kind."""
    return bool(row.get("first", row["killed"]))


def page(rows: list[dict[str, Any]], seed: int, reasons: dict[str, str], asked: int) -> str:
    lines = [
        "# Proof: mutants", "",
        f"`make mutants` (seed {seed}; {PER_MODULE} faults in each of some modules): small faults planted one at a time; a fault",
        "is killed when one of the tests that execute its line fails or hangs. The shares are of those a test could notice:",
        "when first judged, and after tests were written for the kinds that had survived (a new --seed draws others).",
        f"Judged so far: {len(rows)} of {asked} that were asked for.", "",
        "| package | mutants | equivalent | killed when first judged | killed | of them by hanging |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for package in SAMPLED:
        own = [row for row in rows if row["package"] == package]
        if own:
            killed = [row for row in own if row["killed"]]
            same = [row for row in own if not row["killed"] and row["key"] in reasons]
            hanging, rest = sum(row["by"].startswith("hangs") for row in killed), len(own) - len(same)
            lines.append(
                f"| {package} | {len(own)} | {len(same)} | {_share(sum(map(first_killed, own)), rest)} | "
                f"{_share(len(killed), rest)} | {hanging} |"
            )
    survivors = [row for row in rows if not row["killed"]]
    lines += ["", "| survivor | line | fault | why |", "|---|---|---|---|"] if survivors else []
    for row in survivors:
        text = row["text"].replace("|", "\\|")
        why = reasons.get(row["key"], "no test notices it")
        lines.append(f"| {row['module']}:{row['line']} | `{text}` | {row['fault']} | {why} |")
    return "\n".join(lines) + "\n"


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole}: {part / max(whole, 1):.0%}"


if __name__ == "__main__":
    sys.exit(main())
