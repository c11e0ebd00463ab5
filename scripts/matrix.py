# SPDX-License-Identifier: Apache-2.0
"""`make matrix`: the demo and the tests of core and usd under every supported Python of this machine.

Looks for Pythons on the PATH, in /usr/bin and /usr/local/bin, in pyenv's versions and among `uv python list`; takes one of
each minor version, and the system's own beside it where that is another patch release. Each gets an environment of its own
in .cache/matrix (kept between calls), installed as `make demo` installs it. Says what it skipped and why; writes a table to
docs/proof/matrix.md and returns 1 when anything failed.

usage: matrix.py [PYTHON …] [--all] [--only NAME]      PYTHON: an interpreter or a version such as 3.12
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".cache" / "matrix"
OUT = ROOT / "docs" / "proof"
SUPPORTED = ("3.10", "3.11", "3.12", "3.13")
KIT_PYTHONS = ("3.10", "3.11", "3.12")
"""Kit's own: there the adapters are tested with `--all` as well."""
TOOLS = ["pytest", "hypothesis", "jaxtyping", "beartype", "pytest-timeout"]
CORE_AND_USD = (
    "camera", "capture_pairing", "config", "episode_io", "geometry", "oscar_episode", "robot", "run_store", "skeleton",
    "takes", "urdf", "usd_articulation", "usd_camera", "variants_sampler", "verdicts_input", "video", "export_formats",
)  # fmt: skip
"""What depends on the Python and on the versions of numpy, OpenCV, PyYAML, pyarrow, PyAV and usd-core; about a minute."""
ADAPTERS = ("isaac_bad_input", "isaac_capture", "isaac_writer", "ui_panel", "ui_view_model")
FACTS = "import platform; print(platform.python_version())"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", nargs="*", metavar="PYTHON", help="only these (default: all that are found)")
    parser.add_argument("--all", action="store_true", help="also the Kit adapters against their fakes")
    parser.add_argument("--only", action="append", metavar="NAME", help="only the test file tests/test_NAME.py")
    options = parser.parse_args()
    found, skipped = interpreters(options.pythons)
    for text in skipped:
        print(f"skipped: {text}", flush=True)
    rows = [examine(version, python, options) for version, python in found]
    if not rows:
        print(f"no Python of {', '.join(SUPPORTED)} found")
        return 1
    print("\n" + table(rows, skipped))
    if not options.only and not options.pythons:
        OUT.joinpath("matrix.md").write_text(page(rows, skipped), "utf-8")
        kept = [{name: value for name, value in row.items() if name != "interpreter"} for row in rows]
        OUT.joinpath("matrix.json").write_text(json.dumps({"rows": kept, "skipped": skipped}, indent=2) + "\n", "utf-8")
    return 0 if all(row["good"] for row in rows) else 1


def interpreters(asked: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """(version, interpreter) to run, and a sentence for each that is left out."""
    paths: dict[str, None] = {}
    for folder in (*os.environ.get("PATH", "").split(os.pathsep), "/usr/bin", "/usr/local/bin"):
        if "/shims" in folder or not folder:  # pyenv's shims stand for the versions below
            continue
        for path in sorted(Path(folder).glob("python3*")):
            if re.fullmatch(r"python3(\.\d+)?", path.name) and os.access(path, os.X_OK):
                paths[str(path)] = None
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    paths.update(dict.fromkeys(str(path) for path in sorted(pyenv.glob("versions/*/bin/python3"))))
    if uv := shutil.which("uv"):
        listed = subprocess.run([uv, "python", "list", "--only-installed"], capture_output=True, text=True, check=False)
        paths.update(dict.fromkeys(re.findall(r"\S+\s+(/\S+)", listed.stdout)))
    if explicit := [name for name in asked if "/" in name]:
        paths = dict.fromkeys(explicit)
    chosen: dict[tuple[str, str], str] = {}
    skipped = []
    for path in paths:
        if str(ROOT) in str(Path(path).absolute()):
            continue  # an environment of this checkout is no Python of the machine
        done = subprocess.run([path, "-c", FACTS], capture_output=True, text=True, check=False)
        if done.returncode:
            skipped.append(f"{path} does not run ({(done.stderr.strip().splitlines() or ['no text'])[-1]})")
            continue
        version = done.stdout.strip()
        if asked and not explicit and not any(version == a or version.startswith(f"{a}.") for a in asked):
            continue
        if ".".join(version.split(".")[:2]) in SUPPORTED:
            # The same patch release twice tells nothing new.
            chosen.setdefault((version, ""), path)
        elif (text := f"Python {version}: supported are {', '.join(SUPPORTED)}") not in skipped:
            skipped.append(text)
    missing = sorted(set(SUPPORTED) - {".".join(version.split(".")[:2]) for version, _ in chosen})
    if not asked:
        skipped += [f"Python {minor}: none found on this machine" for minor in missing]
    ordered = sorted(chosen.items(), key=lambda item: [int(part) for part in re.findall(r"\d+", item[0][0])])
    return [(version, path) for (version, _), path in ordered], skipped


def examine(version: str, python: str, options: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    started = time.monotonic()
    folder = HOME / version
    row: dict[str, Any] = {"python": version, "interpreter": python, "good": False, "demo": "", "tests": "", "note": ""}
    print(f"\n== Python {version} ({python})", flush=True)
    if not (folder / ".ready").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if problem := install(python, folder):
            return {**row, "note": problem, "seconds": round(time.monotonic() - started)}
        (folder / ".ready").touch()
    row["newton"] = (folder / ".newton").is_file()
    own = folder / "bin" / "python"
    if row["newton"]:
        run = HOME / f"demo-{version}"
        shutil.rmtree(run, ignore_errors=True)
        done = subprocess.run(
            [folder / "bin" / "retake", "run", "--preset", "short", "--run", run], cwd=ROOT, check=False, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        row["demo"] = "passed" if done.returncode == 0 and (run / "report.html").is_file() else "FAILED"
        if row["demo"] == "FAILED":
            print(done.stdout[-3000:])
        shutil.rmtree(run, ignore_errors=True)
    else:
        row["demo"] = "skipped: no wheels of the embedded simulator"
    names = options.only or [*CORE_AND_USD]
    if options.all and version.rpartition(".")[0] in KIT_PYTHONS:
        names = [*names, *ADAPTERS]
    files = [f"tests/test_{name}.py" for name in names if (ROOT / f"tests/test_{name}.py").is_file()]
    done = subprocess.run([own, "-m", "pytest", "-q", *files], cwd=ROOT, check=False, text=True, stdout=subprocess.PIPE)
    last = (done.stdout.strip().splitlines() or ["no output"])[-1]
    row["tests"] = re.sub(r" in [\d.:]+s.*$", "", last.strip("= "))
    row["skips"] = re.findall(r"^SKIPPED \[\d+\] \S+ (.*)$", done.stdout, re.M)
    if done.returncode:
        print(done.stdout[-4000:])
    row["good"] = done.returncode == 0 and row["demo"] != "FAILED"
    row["seconds"] = round(time.monotonic() - started)
    print(f"demo {row['demo']}; tests: {row['tests']}; {row['seconds']} s", flush=True)
    return row


def install(python: str, folder: Path) -> str:
    """An environment like `make demo`'s with the tools of tests; a sentence when that cannot be had."""
    steps = [[python, "-m", "venv", str(folder)]]
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-qq", "-c", "constraints.txt"]
    for step in steps:
        done = subprocess.run(step, cwd=ROOT, check=False, capture_output=True, text=True)
        if done.returncode:
            return f"`{' '.join(step)}` failed: {_last(done)}"
    whole = subprocess.run(
        [*pip, "-e", ".[video,newton,export]", *TOOLS], cwd=ROOT, check=False, capture_output=True, text=True
    )
    if whole.returncode == 0:
        (folder / ".newton").touch()
        return ""
    print(f"without the embedded simulator: {_last(whole)}")
    done = subprocess.run(
        [*pip, "-e", ".[video,usd,export]", *TOOLS], cwd=ROOT, check=False, capture_output=True, text=True
    )
    return "" if done.returncode == 0 else f"cannot be installed: {_last(done)}"


def _last(done: subprocess.CompletedProcess[str]) -> str:
    return ((done.stderr or done.stdout).strip().splitlines() or ["no text"])[-1]


def table(rows: list[dict[str, Any]], skipped: list[str]) -> str:
    """For a person, on a terminal and in the page."""
    lines = ["| Python | demo | tests of core and usd | s |", "|---|---|---|---|"]
    for row in rows:
        lines.append(f"| {row['python']} | {row['demo']} | {row['tests'] or row['note']} | {row['seconds']} |")
    under: dict[str, list[str]] = {}
    for row in rows:
        for text in row.get("skips", ()):
            under.setdefault(text, []).append(row["python"])
    reasons = [f"a test under {', '.join(pythons)}: {text}" for text, pythons in sorted(under.items())]
    return "\n".join([*lines, "", *(f"- skipped: {text}" for text in [*skipped, *reasons])])


def page(rows: list[dict[str, Any]], skipped: list[str]) -> str:
    return (
        "# Proof: Pythons\n\n"
        "`make matrix`: under each Python found, an environment as `make demo` makes it, the demo itself (`retake run --preset\n"
        "short`, to the report) and these test files of core and usd, at reduced counts: "
        f"{', '.join(CORE_AND_USD)}. Seconds include the installation where it was new.\n\n"
        f"{table(rows, skipped)}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
