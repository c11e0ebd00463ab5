# SPDX-License-Identifier: Apache-2.0
"""Checks the adapters' types against Isaac Sim's public sources, and proves that the check reaches every file.

    git clone --bare https://github.com/isaac-sim/IsaacSim
    git clone --bare https://github.com/work-r-labs/isaacsim_typings_5
    git clone --bare https://github.com/NVIDIA-Omniverse/PhysX
    pip install pyright; pip download --no-deps types-usd && unzip types_usd-*.whl -d types_usd
    python scripts/kit_types.py --isaacsim IsaacSim.git --typings isaacsim_typings_5.git --physx PhysX.git --usd types_usd

Nothing of them is committed; without them the script says so and returns 0. pyright silently stops checking after a call
that it infers never to return, and treats an unresolved import as "anything goes". So a *canary*, a deliberate error on a
Kit object, is planted after each section of each adapter, in a copy; every one of them must be reported.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TAGS = {"5.1": "v5.1.0", "6.x": "v6.0.1"}
PHYSX_TAG = {"5.1": "107.3-omni-and-physx-5.6.1", "6.x": "110.0-omni-and-physx-5.8.0"}
EXTENSIONS = {
    "isaacsim.core.simulation_manager": "source/extensions/isaacsim.core.simulation_manager/python",
    "isaacsim.simulation_app": "source/extensions/isaacsim.simulation_app/isaacsim/simulation_app",
    "isaacsim.core.version": "source/extensions/isaacsim.core.version/isaacsim/core/version",
}
TYPINGS = ("carb", "omni/kit/app", "omni/usd", "omni/kit/notification_manager", "omni/kit/menu/utils", "usdrt")
HOLES = ("omni.replicator.core", "omni.ui", "omni.timeline", "omni.physx", "omni.ext", "warp")
"""Modules without public stubs: checked by the fakes, not here."""
# Typed probes: what the adapters call, on objects whose types the sources know. One canary per section.
PROBE = """
import carb.settings
import carb.eventdispatcher
import omni.kit.app
import omni.usd
import omni.kit.notification_manager as notices
from isaacsim.core.simulation_manager import SimulationManager{events}
from isaacsim.core.version import get_version
from isaacsim.simulation_app import SimulationApp
import omni.physics.tensors.api as tensors

def step(dt: float, context: object = None) -> None: ...
def on_event(event: object) -> None: ...

# section: settings
settings = carb.settings.get_settings()
settings.get("/a"); settings.set("/a", 1); settings.destroy_item("/a")
settings.get_nothing("/a")  # canary settings
# section: app
app = omni.kit.app.get_app()
app.get_app_version(); app.get_kit_version(); app.get_app_name(); app.get_update_number(); app.post_quit(3)
app.get_extension_manager().set_extension_enabled_immediate("x", True)
app.is_app_ready(); app.is_running(); app.update()
app.get_nothing()  # canary app
# section: usd
context = omni.usd.get_context()
context.get_stage(); context.open_stage("x"); context.get_stage_url(); context.can_open_stage()
context.get_stage_loading_status()[2]
context.get_nothing()  # canary usd
# section: notices
notices.post_notification("x", hide_after_timeout=True, duration=5, status=notices.NotificationStatus.INFO)
notices.post_notification("x", colour=1)  # canary notices
# section: manager
uid = SimulationManager.register_callback(step, {event}, order=1)
SimulationManager.deregister_callback(uid)
SimulationManager.get_simulation_time()
SimulationManager.register_callback(step)  # canary manager
# section: version
get_version()
get_version(3)  # canary version
# section: simulation app
simulation_app = SimulationApp({{"headless": True, "width": 1280, "height": 720}})
async def work() -> None: ...
simulation_app.run_coroutine(work())
simulation_app.update()
{close}
simulation_app.close(code=3)  # canary simulation app
# section: tensors
view = tensors.create_simulation_view("numpy")
view.set_subspace_roots("/")
robots = view.create_articulation_view(["/a"])
robots.check(); robots.is_homogeneous; robots.prim_paths; robots.link_paths; robots.shared_metatype
robots.get_link_transforms(); robots.get_dof_positions(); robots.get_dof_velocities()
robots.get_dof_projected_joint_forces(); robots.get_dof_position_targets(); robots.set_dof_position_targets(0, 0)
view.create_rigid_body_view(["/a"]).get_transforms()
view.create_rigid_body_view(["/a"]).get_nothing()  # canary tensors
"""
USD_PROBE = """
from pxr import Gf, Sdf, Usd, UsdGeom
# section: pxr
stage = Usd.Stage.CreateInMemory()
layer = Sdf.Layer.CreateAnonymous("x")
with Usd.EditContext(stage, Usd.EditTarget(layer)):
    prim = stage.OverridePrim("/a")
    prim.AddAppliedSchema("PhysxContactReportAPI")
    prim.CreateAttribute("b", Sdf.ValueTypeNames.Float).Set(0.0)
stage.GetSessionLayer().subLayerPaths.append(layer.identifier)
UsdGeom.Camera(prim).GetFocalLengthAttr().Get()
Gf.Matrix4d().ExtractTranslation()
stage.GetNothing()  # canary pxr
"""


def main(argv: list[str] | None = None) -> int:
    """Check both versions; exit code 1 for a type error in an adapter's call, or a canary that was not reported."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("isaacsim", "typings", "physx"):
        parser.add_argument(f"--{name}", type=Path, help=f"git directory of the {name} sources")
    parser.add_argument("--usd", type=Path, help="folder of the unpacked types-usd wheel; without it pxr is a hole")
    parser.add_argument("--version", choices=tuple(TAGS), help="one version only")
    options = parser.parse_args(argv)
    if not all(getattr(options, name) and getattr(options, name).exists() for name in ("isaacsim", "typings", "physx")):
        print("kit_types: skipped: the public sources are not here; `--help` says how to fetch them")
        return 0
    bad = 0
    for version in [options.version] if options.version else TAGS:
        with tempfile.TemporaryDirectory() as folder:
            bad += check(version, Path(folder), options)
    return 1 if bad else 0


def check(version: str, folder: Path, options: argparse.Namespace) -> int:
    """One version: number of problems."""
    stubs = folder / "stubs"
    for module, path in EXTENSIONS.items():
        extract(options.isaacsim, TAGS[version], path, stubs / Path(*module.split(".")))
    for name in TYPINGS:
        extract(options.typings, "HEAD", f"typings/{name}", stubs / name)
    extract(
        options.physx,
        PHYSX_TAG[version],
        "omni/extensions/runtime/source/omni.physics.tensors/python",
        stubs / "omni/physics/tensors",
    )
    event = "SimulationEvent.PHYSICS_POST_STEP" if version == "6.x" else "IsaacEvents.POST_PHYSICS_STEP"
    close = "simulation_app.close(exit_code=3)" if version == "6.x" else "simulation_app.close(skip_cleanup=False)"
    probe = PROBE.format(events=f", {event.split('.')[0]}", event=event, close=close)
    if options.usd is not None:
        for name in ("pxr", "Boost"):  # without their base class every attribute would pass
            shutil.copytree(options.usd / f"{name}-stubs", stubs / name)
        probe += USD_PROBE
    (folder / "probe.py").write_text(probe)
    adapters = folder / "retake"
    shutil.copytree(
        ROOT / "exts/retake.isaac/retake/isaac",
        adapters / "isaac",
        ignore=shutil.ignore_patterns("__pycache__", "tests"),
    )
    canaries = plant(adapters / "isaac")
    config = {
        "include": ["probe.py", "retake"],
        "extraPaths": ["stubs", *(str(ROOT / f"exts/retake.{name}") for name in ("core", "usd"))],
        "typeCheckingMode": "basic",
        "reportMissingImports": "none",
        "reportMissingModuleSource": False,
        "reportAttributeAccessIssue": "error",
        "pythonVersion": "3.10",
        "ignore": ["stubs"],
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    command = [
        shutil.which("pyright") or str(Path(sys.executable).with_name("pyright")),
        "--outputjson",
        "-p",
        str(folder),
    ]
    command += ["--pythonpath", sys.executable]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, cwd=folder).stdout)
    errors = {
        (str(Path(d["file"]).relative_to(folder.resolve())), d["range"]["start"]["line"] + 1): d["message"].splitlines()[0]
        for d in found["generalDiagnostics"] if d["severity"] == "error"
    }  # fmt: skip
    expected = {("probe.py", n) for n, line in enumerate(probe.splitlines(), 1) if "# canary" in line} | canaries
    dead = sorted(expected - set(errors))
    wrong = {
        place: text for place, text in errors.items() if place not in expected and not place[0].startswith("stubs")
    }
    # Without types-usd the compiled pxr has no declared members: a hole, named, not an error of the adapters.
    usd_hole = {p for p, text in wrong.items() if options.usd is None and 'of module "pxr.' in text}
    wrong = {place: text for place, text in wrong.items() if place not in usd_hole}
    calls = sum(line.count("(") for line in probe.splitlines() if "canary" not in line)
    print(
        f"{version}: {calls} probed calls, {len(expected)} canaries, {len(expected) - len(dead)} reported, {len(wrong)} errors, "
        f"{len(usd_hole)} pxr names unchecked{'' if options.usd else ' (see --usd)'}; holes: {', '.join(HOLES)}"
    )
    for place in dead:
        print(f"  canary not reported: {place[0]}:{place[1]}")
    for place, text in sorted(wrong.items()):
        print(f"  {place[0]}:{place[1]}: {text}")
    return len(dead) + len(wrong)


def plant(folder: Path) -> set[tuple[str, int]]:
    """A deliberate error at the end of every top-level function of every adapter, in the copy."""
    places = set()
    for path in sorted(folder.glob("*.py")):
        lines = path.read_text().splitlines()
        out: list[str] = []
        for line in lines:
            if re.match(r"(async )?def |class ", line) and out and not out[-1].startswith("@"):
                out.append("canary_value: int = 'no'")
                places.add((f"retake/isaac/{path.name}", len(out)))
            out.append(line)
        path.write_text("\n".join(out) + "\n")
    return places


def extract(git: Path, tag: str, path: str, target: Path) -> None:
    """The Python files of a folder at a tag."""
    listing = subprocess.run(
        ["git", "-C", str(git), "ls-tree", "-r", "--name-only", tag, path], capture_output=True, text=True, check=True
    )
    for name in listing.stdout.splitlines():
        if not name.endswith((".py", ".pyi")):
            continue
        text = subprocess.run(["git", "-C", str(git), "show", f"{tag}:{name}"], capture_output=True, check=True).stdout
        out = target / Path(name).relative_to(path)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(text)


if __name__ == "__main__":
    sys.exit(main())
