# SPDX-License-Identifier: Apache-2.0
"""Writes tests/fakes/profile_facts.json: how each application of Isaac Sim starts and behaves, as far as the public sources say.

    git clone --bare https://github.com/isaac-sim/IsaacSim
    python scripts/kit_profiles.py --isaacsim IsaacSim.git            # or --check

An *application* is what a user starts: `base` (isaacsim.exp.base), `full` (isaac-sim.sh), `python` (SimulationApp), `newton`
(isaac-sim.newton.sh), `lab` (Isaac Lab's patches on top of python). Read are the settings in its .kit file and in those it
builds on, the defaults of extensions it loads, and for each behaviour the line of the extension that shows it. Each entry names
tag, path and line; what no public source shows is `unverified`, with the reason. Nothing of the sources is committed.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests/fakes/profile_facts.json"
TAGS = {"5.0": "v5.0.0", "5.1": "v5.1.0", "6.x": "v6.0.1"}
ASSUMED = {"4.5": "5.0", "4.2": "5.0"}
"""Versions whose .kit files are not public: taken to be like the oldest that is."""
CHAIN = {"base": ("base",), "full": ("full", "base"), "python": ("base.python", "base"),
         "newton": ("full.newton", "full", "base"), "lab": ("base.python", "base")}  # fmt: skip
APPLICATIONS = {"4.2": ("base", "full"), "4.5": ("base", "full", "python"), "5.0": ("base", "full", "python"),
                "5.1": ("base", "full", "python"), "6.x": ("base", "full", "python", "newton", "lab")}  # fmt: skip
SETTINGS = (
    "/exts/isaacsim.core.throttling/enable_async", "/exts/isaacsim.core.throttling/enable_manualmode",
    "/app/asyncRendering", "/app/asyncRenderingLowLatency", "/omni/replicator/asyncRendering",
    "/persistent/omni/replicator/captureOnPlay", "/app/settings/fabricDefaultStageFrameHistoryCount",
    "/rtx/hydra/supportMultiTickRate", "/rtx/post/dlss/execMode", "/app/player/useFixedTimeStepping",
    "/app/runLoops/main/manualModeEnabled", "/app/file/ignoreUnsavedStage", "/app/file/ignoreUnsavedOnExit",
    "/app/fastShutdown", "/app/hangDetector/timeout",
)  # fmt: skip
EXT = "source/extensions"
THROTTLING = f"{EXT}/isaacsim.core.throttling"
SETUP = f"{EXT}/isaacsim.app.setup"
CONTEXT = f"{EXT}/isaacsim.core.api/python/impl/simulation_context/simulation_context.py"
BEHAVIOURS: tuple[tuple[str, Any, tuple[str, ...], tuple[str, ...], str, str], ...] = (
    # name, value, versions, applications, path, text of the line
    ("throttling", "at once", ("5.1",), ("base", "full", "python"),
     f"{THROTTLING}/isaacsim/core/throttling/extension.py", '_settings.set("/app/asyncRendering", False)'),
    ("throttling", "next update", ("6.x",), ("base", "full", "python", "newton"),
     f"{THROTTLING}/isaacsim/core/throttling/extension.py", "self._defer_async_rendering_disable()"),
    ("throttling_back_after_updates", 10, ("5.1", "6.x"), ("base", "full", "python", "newton"),
     f"{THROTTLING}/isaacsim/core/throttling/extension.py", "self._frame_delay = 10"),
    ("throttling_leaves_async_to_replicator", True, ("6.x",), ("base", "full", "python", "newton"),
     f"{THROTTLING}/isaacsim/core/throttling/extension.py", "not self._is_replicator_managing_async_rendering()"),
    ("new_stage_after_updates", 1, ("5.0", "5.1"), ("full",),
     f"{SETUP}/isaacsim/app/setup/extension.py", "stage_templates.new_stage(template=None)"),
    ("new_stage_after_updates", 1, ("6.x",), ("full", "newton"),
     f"{SETUP}/isaacsim/app/setup/startup.py", "stage_templates.new_stage(template=None)"),
    ("timeline_is_deferred", True, ("5.0", "5.1"), ("base", "full", "python"), CONTEXT, "self._timeline.commit()"),
    ("timeline_is_deferred", True, ("6.x",), ("base", "full", "python", "newton", "lab"),
     f"{EXT}/isaacsim.core.experimental.utils/python/impl/app.py", "After committing the timeline state"),
    ("exit_codes", "every failure is 1", ("5.0", "5.1", "6.x"), ("python",),
     "source/scripts/python/linux-x86_64/python.sh", "|| error_exit"),
    ("renderer_clock_off_us", 1, ("6.x",), ("base", "full", "python", "newton", "lab"),
     "source/standalone_examples/testing/isaacsim.simulation_app/test_frame_delay.py", "1 us is just above"),
    ("missing_getters", ["get_dof_projected_joint_forces"], ("6.x",), ("newton",),
     f"{EXT}/isaacsim.physics.newton.tensors/src/base/BaseArticulationView.cpp", "is not implemented for the Newton"),
    ("missing_modules", ["omni.physx", "pxr.PhysicsSchemaTools"], ("6.x",), ("newton",),
     "source/apps/isaacsim.exp.full.newton.kit", '"omni.physx.bundle" = { enabled = false }'),
    ("close_watchdog_s", 120, ("6.x",), ("python",),
     f"{EXT}/isaacsim.simulation_app/isaacsim/simulation_app/simulation_app.py", 'get("shutdown_watchdog_timeout"'),
)  # fmt: skip
LAB = "isaac-sim/IsaacLab@604a7a49 source/isaaclab_physx/isaaclab_physx"
NOTED: tuple[tuple[str, Any, tuple[str, ...], tuple[str, ...], str], ...] = (
    ("manager", "replaced", ("6.x",), ("lab",), f"{LAB}/_simulation_manager_patch.py:52"),
    ("contacts_processed", False, ("6.x",), ("lab",), f"{LAB}/physics/physx_manager.py _configure_physics"),
    ("async_takes_effect_after_updates", 1, ("4.2", "4.5", "5.0", "5.1", "6.x"), ("base", "full", "python", "newton", "lab"),
     "unverified: when the renderer obeys a change of /app/asyncRendering is not public; one update is assumed"),
    ("unsaved_stage_vetoes_quit", True, ("5.0", "5.1", "6.x"), ("full", "newton"),
     "unverified: full.kit sets ignoreUnsaved… false; that a dirty stage vetoes post_quit is assumed"),
)  # fmt: skip


class Sources:
    """IsaacSim's git directory."""

    def __init__(self, isaacsim: Path) -> None:
        self.isaacsim = isaacsim

    @cache  # noqa: B019 - one instance per run
    def text(self, tag: str, path: str) -> str:
        """A file at a tag. Raises LookupError where there is none."""
        command = ["git", "-C", str(self.isaacsim), "show", f"{tag}:{path}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise LookupError(f"IsaacSim {tag} has no {path}")
        return done.stdout

    def line(self, tag: str, path: str, text: str) -> int:
        """Number of the first line with a text. Raises LookupError where there is none: the behaviour is no longer shown."""
        for number, line in enumerate(self.text(tag, path).splitlines(), start=1):
            if text in line:
                return number
        raise LookupError(f"{path} at {tag} has no line with {text!r}")

    def settings(self, tag: str, path: str) -> dict[str, tuple[Any, int]]:
        """Setting -> (value, line) of a .kit or extension.toml file. These hold keys that TOML itself refuses (`++`)."""
        found: dict[str, tuple[Any, int]] = {}
        section = ""
        for number, line in enumerate(self.text(tag, path).splitlines(), start=1):
            if header := re.match(r"\[(settings[^\]]*)\]", line):
                section = header[1]
            elif line.startswith("["):
                section = ""
            elif (
                section
                and "filter:" not in section
                and (pair := re.match(r"([\w.\"-]+)\s*=\s*(true|false|[\d.]+)", line))
            ):
                parts = _parts(section)[1:] + _parts(pair[1])
                found["/" + "/".join(parts)] = (json.loads(pair[2]), number)
        return found


def _parts(dotted: str) -> list[str]:
    return [quoted or plain for quoted, plain in re.findall(r'"([^"]+)"|([\w-]+)', dotted)]


def collect(sources: Sources) -> dict[str, Any]:
    """Every profile: settings at start and behaviours, each with its source."""
    return {
        f"{version} {application}": profile(sources, version, application)
        for version, applications in APPLICATIONS.items()
        for application in applications
    }


def profile(sources: Sources, version: str, application: str) -> dict[str, Any]:
    """One application of one version."""
    read = ASSUMED.get(version, version)
    tag, note = TAGS[read], f" (assumed for {version}: unverified)" if version in ASSUMED else ""
    settings: dict[str, dict[str, Any]] = {}
    for kit in reversed(CHAIN[application]):
        path = f"source/apps/isaacsim.exp.{kit}.kit"
        for name, (value, line) in sources.settings(tag, path).items():
            if name in SETTINGS:
                settings[name] = {"value": value, "source": f"{tag} {path}:{line}{note}"}
    defaults: list[tuple[str, tuple[str, ...]]] = [(f"{THROTTLING}/config/extension.toml", SETTINGS)]
    if application in ("full", "newton"):
        defaults.append((f"{SETUP}/config/extension.toml", ("/isaac/startup/create_new_stage",)))
    for path, wanted in defaults:
        for name, (value, line) in sources.settings(tag, path).items():
            if name in wanted and name not in settings:
                settings[name] = {"value": value, "source": f"{tag} {path}:{line}{note}"}
    behaviours: dict[str, dict[str, Any]] = {}
    for name, value, versions, applications, path, text in BEHAVIOURS:
        if read in versions and application in applications:
            line = sources.line(tag, path, text)
            behaviours[name] = {"value": value, "source": f"{tag} {path}:{line}{note}"}
    for name, value, versions, applications, source in NOTED:
        if version in versions and application in applications:
            behaviours[name] = {"value": value, "source": source}
    return {"settings": dict(sorted(settings.items())), "behaviours": dict(sorted(behaviours.items()))}


def main(argv: list[str] | None = None) -> int:
    """Write the file, or compare with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isaacsim", type=Path, help="git directory of isaac-sim/IsaacSim")
    parser.add_argument("--check", action="store_true", help="compare with the committed file instead of writing it")
    options = parser.parse_args(argv)
    if options.isaacsim is None:
        print("no sources given (see --help): nothing was read, the committed profiles stay as they are")
        return 0
    content = {
        "about": "written by scripts/kit_profiles.py; do not edit",
        "profiles": collect(Sources(options.isaacsim)),
    }
    text = json.dumps(content, indent=1) + "\n"
    if options.check:
        same = OUT.read_text() == text
        print(
            "the committed profiles are those of the sources"
            if same
            else "the sources say something else: run without --check"
        )
        return 0 if same else 1
    OUT.write_text(text)
    for name, found in content["profiles"].items():
        unverified = sum("unverified" in entry["source"] for part in found.values() for entry in part.values())
        print(
            f"{name}: {len(found['settings'])} settings, {len(found['behaviours'])} behaviours, {unverified} unverified"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
