# SPDX-License-Identifier: Apache-2.0
"""`retake doctor`: what works on this machine, and the one next step. Runs inside and outside Kit, and changes nothing.

Each line is a small function that answers for itself; none of them may fail the others, load torch, or take long.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from retake.core.errors import RetakeError, install_hint
from retake.core.host import sync_command
from retake.core.video import codec_available

MARKS = {"good": "✓", "missing": "–", "bad": "✗"}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    area: str
    status: str
    """good, missing (something optional), bad (something needed)."""
    text: str
    step: str = ""
    """What to do about it."""


def main(argv: list[str]) -> int:
    """Print the report; exit code 0 unless something needed is broken."""
    parser = argparse.ArgumentParser(prog="retake doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv)
    findings = examine()
    step = next_step(findings)
    if options.json:
        print(json.dumps({"findings": [asdict(f) for f in findings], "next": step}, indent=2))
    else:
        for finding in findings:
            print(f"{MARKS[finding.status]} {finding.area:<20}{finding.text}")
        print(f"\nnext: {step}")
    return 2 if any(f.status == "bad" for f in findings) else 0


def examine() -> list[Finding]:
    """Every finding, in the order of the arrow."""
    out: list[Finding] = []
    for check in (_python, _core, _kit, _usd, _newton, _video, _gpu, _worker, _model, _licences, _disk):
        try:
            out.append(check())
        except Exception as error:  # a report about a broken machine must survive it
            out.append(
                Finding(check.__name__.strip("_"), "bad", f"the check itself failed: {type(error).__name__}: {error}")
            )
    return out


def next_step(findings: list[Finding]) -> str:
    """The one thing to do now: the first thing needed that is broken, else the first optional one, else a demo."""
    for status in ("bad", "missing"):
        for finding in findings:
            if finding.status == status and finding.step:
                return finding.step
    return "retake run --run runs/demo"


def _has(name: str) -> bool:
    """Whether a module could be imported, without importing it."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return name in sys.modules


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "?"


def version() -> str:
    """Of Retake: of the installed package, or of the checkout's manifest (inside Kit nothing is installed)."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("isaac-retake")
    with contextlib.suppress(OSError):
        manifest = (Path(__file__).resolve().parents[4] / "extension.toml").read_text("utf-8")
        if found := re.search(r'^version = "([^"]+)"', manifest, re.M):
            return found[1]
    return "of an unknown version"


def _python() -> Finding:
    version = platform.python_version()
    return Finding("Python", "good", f"{version} on {platform.system()} ({sys.executable or 'embedded'})")


def _core() -> Finding:
    missing = [name for name in ("numpy", "cv2", "yaml") if not _has(name)]
    if missing:
        return Finding("core", "bad", f"missing: {', '.join(missing)}", sync_command(".venv"))
    from retake.core.variants.worlds import load_catalogue

    presets = len(load_catalogue().sections["presets"])
    return Finding("core", "good", f"retake {_version('isaac-retake')}, numpy {_version('numpy')}, {presets} worlds")


def _kit() -> Finding:
    if "omni.kit.app" in sys.modules:
        app = sys.modules["omni.kit.app"].get_app()
        name = f"{app.get_app_name()} {app.get_app_version()}, Kit {app.get_kit_version()}"
        return Finding("Isaac Sim", "good", f"running inside {name}")
    for variable in ("ISAAC_PATH", "ISAACSIM_PATH"):
        path = os.environ.get(variable)
        if path and (Path(path) / "VERSION").is_file():
            version = (Path(path) / "VERSION").read_text("utf-8").strip()
            return Finding("Isaac Sim", "good", f"{version} at {path}; not running", "start it with --enable retake.ui")
    return Finding("Isaac Sim", "missing", "not running here; the embedded simulator makes episodes without it")


def _usd() -> Finding:
    if _has("pxr"):
        return Finding("USD", "good", "pxr is importable")
    return Finding("USD", "missing", "pxr cannot be imported", install_hint("usd"))


def _newton() -> Finding:
    if "omni.kit.app" in sys.modules:
        return Finding("embedded simulator", "good", "not needed inside Isaac Sim")
    if _has("newton") and _has("warp"):
        return Finding("embedded simulator", "good", f"newton {_version('newton')}, warp {_version('warp-lang')}")
    return Finding("embedded simulator", "missing", "newton is not installed", sync_command(".venv"))


def _video() -> Finding:
    codec = codec_available()
    if codec == "h264":
        return Finding("video", "good", f"H.264 through PyAV {_version('av')}")
    return Finding("video", "missing", f"{codec}; browsers may not play it", install_hint("video"))


def _gpu() -> Finding:
    program = shutil.which("nvidia-smi")
    if program is None:
        return Finding("GPU", "missing", "no NVIDIA driver; composite takes and verdicts work on the CPU")
    query = "--query-gpu=name,driver_version,memory.free,memory.total"
    done = subprocess.run([program, query, "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=10)
    if done.returncode != 0 or not done.stdout.strip():
        return Finding(
            "GPU", "bad", (done.stderr or done.stdout).strip() or "nvidia-smi failed", "repair the NVIDIA driver"
        )
    name, driver, free, total = (part.strip() for part in done.stdout.splitlines()[0].split(","))
    return Finding(
        "GPU", "good", f"{name}, driver {driver}, {int(free) / 1024:.1f} of {int(total) / 1024:.1f} GiB free"
    )


def _worker() -> Finding:
    from retake.core.worker_client import WorkerClient

    try:
        status = WorkerClient.discover(timeout_s=2.0).status()
    except RetakeError as error:
        environment = Path(__file__).resolve().parents[4] / ".venv-worker"
        step = "retake worker --root runs" if environment.is_dir() else sync_command(".venv-worker")
        useful = shutil.which("nvidia-smi") is not None
        first = str(error).splitlines()[0]
        return Finding("worker", "missing", f"not running: {first}", f"for the video model: {step}" if useful else "")
    return Finding(
        "worker", "good", f"{status.executor}, backends: {', '.join(status.backends) or 'none'}, {status.counts}"
    )


def _model() -> Finding:
    folders = [os.environ.get("RETAKE_MODELS", ""), str(Path.home() / ".cache" / "huggingface" / "hub")]
    found = sorted(
        path.name.removeprefix("models--").replace("--", "/")
        for folder in folders
        if folder and Path(folder).is_dir()
        for path in Path(folder).iterdir()
        if path.is_dir() and ("oscar" in path.name.lower() or "cosmos" in path.name.lower())
    )
    if found:
        return Finding("models", "good", ", ".join(found))
    return Finding("models", "missing", "no OSCAR weights found; composite takes need none")


def _licences() -> Finding:
    if os.environ.get("OMNI_KIT_ACCEPT_EULA", "").lower() in ("yes", "y", "1"):
        return Finding("licences", "good", "Isaac Sim's EULA is accepted in this environment (OMNI_KIT_ACCEPT_EULA)")
    from retake.core.licences import commercial_obstacle, facts_of

    oscar = "LicenseRef-OSCAR-2B"
    known = "; ".join(fact.partition(": ")[2] for fact in facts_of(oscar))
    return Finding(
        "licences",
        "good",
        f"nothing to accept for the defaults. OSCAR-2B: {known}. With --only-commercial: "
        f"{commercial_obstacle(oscar) or 'allowed'}. Table and policy: config/licences.yaml; more in docs/licences.md",
    )


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    text = f"{free / 1e9:.0f} GB free in {Path.cwd()}"
    if free < 2e9:
        return Finding("disk", "bad", text, "free some space: an episode of 81 frames takes about 0.4 GB")
    return Finding("disk", "good", text)
