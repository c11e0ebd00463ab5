# SPDX-License-Identifier: Apache-2.0
"""Writes tests/fakes/kit_facts.json: every function of Kit that Retake calls, with its signature, source, path and line.

The sources are public and stay outside the repository; fetch them once and say where they are (bare clones will do):

    git clone --bare https://github.com/isaac-sim/IsaacSim              (tags v5.0.0, v5.1.0, v6.0.1; Apache-2.0)
    git clone --bare https://github.com/NVIDIA-Omniverse/PhysX          (107.3-…, 110.0-…; BSD-3-Clause)
    git clone --bare https://github.com/work-r-labs/isaacsim_typings_5  (MIT)
    python scripts/kit_facts.py --isaacsim IsaacSim.git --physx PhysX.git --typings isaacsim_typings_5.git

The fakes in tests/fakes are built from this file and refuse any call that does not fit it. Confidence: `source` = the
definition was read; `usage` = a call in NVIDIA's own source was read; `unverified` = known from documentation or an
older name only (all of 4.2, and 4.5 where no 5.0 source covers it), to be confirmed with `retake kit-selftest`.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

OUT = Path(__file__).resolve().parents[1] / "tests/fakes/kit_facts.json"
VERSIONS = ("4.2", "4.5", "5.1", "6.x")
MANAGER = "source/extensions/isaacsim.core.simulation_manager"
BINDINGS = f"{MANAGER}/bindings/isaacsim.core.simulation_manager/IsaacsimCoreSimulationManagerBindings.cpp"
NODES = "source/extensions/isaacsim.core.nodes/bindings/isaacsim.core.nodes/IsaacsimCoreNodesBindings.cpp"
TENSORS = "omni/extensions/runtime/source/omni.physics.tensors/python/api.py"
PHYSX = "omni/extensions/runtime/source/omni.physx/bindings/BindingsPhysXPython.cpp"
METATYPE = "omni/extensions/runtime/source/omni.physics.tensors/bindings/python/PhysicsTensorsBindingsPython.cpp"
PHYSX_TAG = {"5.1": "107.3-omni-and-physx-5.6.1", "6.x": "110.0-omni-and-physx-5.8.0"}
SIM_TAG = {"4.5": "v5.0.0", "5.1": "v5.1.0", "6.x": "v6.0.1"}
RECORDER = (
    "source/extensions/isaacsim.replicator.synthetic_recorder/isaacsim/replicator/synthetic_recorder/"
    "synthetic_recorder.py"
)
GENERATION = "source/extensions/isaacsim.replicator.examples/python/tests/test_data_augmentation.py"
REPLICATOR = "omni.replicator.core 1.12 (Apache-2.0 headers), scripts/"
WIDGETS = (
    "Window",
    "ScrollingFrame",
    "CollapsableFrame",
    "Frame",
    "VStack",
    "HStack",
    "Label",
    "Button",
    "CheckBox",
    "StringField",
    "FloatField",
    "ComboBox",
    "ProgressBar",
    "ImageWithProvider",
    "ByteImageProvider",
)


@dataclass(frozen=True)
class Fact:
    """One name of one version."""

    name: str
    kind: str
    signature: str
    source: str
    path: str
    line: int
    confidence: str


class Sources:
    """The fetched repositories."""

    def __init__(self, isaacsim: Path, physx: Path, typings: Path) -> None:
        self.git = {"isaacsim": isaacsim, "physx": physx, "typings": typings}

    @cache  # noqa: B019 - one instance per run
    def text(self, repository: str, tag: str, path: str) -> str:
        """A file at a tag."""
        command = ["git", "-C", str(self.git[repository]), "show", f"{tag}:{path}"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def python(self, repository: str, tag: str, path: str, qualname: str) -> tuple[str, int, str]:
        """(signature without annotations, line, kind) of a function, method, property or class member."""
        node: ast.AST = ast.parse(_repaired(self.text(repository, tag, path)))
        for part in qualname.split("."):
            body = getattr(node, "body", [])
            node = next(n for n in body if _named(n, part))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            decorators = {ast.unparse(d) for d in node.decorator_list}
            kind = "property" if "property" in decorators else "method" if "." in qualname else "function"
            arguments = node.args
            for argument in (
                *arguments.posonlyargs,
                *arguments.args,
                *arguments.kwonlyargs,
                arguments.vararg,
                arguments.kwarg,
            ):
                if argument is not None:
                    argument.annotation = None
            text = ast.unparse(arguments)
            first = "cls" if "classmethod" in decorators else "self" if "." in qualname else ""
            if first and text.split(",")[0].strip() == first:
                text = text.partition(",")[2].strip()
            return f"({text})", node.lineno, kind
        return "", getattr(node, "lineno", 1), "attribute"

    def cpp(self, repository: str, tag: str, path: str, name: str) -> tuple[str, int]:
        """(signature, line) of a pybind11 definition: the names given with py::arg, in order."""
        text = self.text(repository, tag, path)
        found = re.search(rf'def(?:_readonly|_property_readonly)?\(\s*"{name}"', text)
        if found is None:
            raise LookupError(f"{path} at {tag} defines no {name!r}")
        line = text.count("\n", 0, found.start()) + 1
        if "def(" not in found.group(0):
            return "", line
        following = re.search(r"\.def|dev\.def|m\.def", text[found.end() :])
        block = text[found.end() : found.end() + (following.start() if following else 4000)]
        names = re.findall(r'py(?:bind11)?::arg\("(\w+)"\)', block)
        return f"({', '.join(names)})" if names else "", line

    def find(self, tag: str, pattern: str) -> tuple[str, int]:
        """(path, line) of the first use of a text in IsaacSim's Python. Raises LookupError when there is none."""
        command = ["git", "-C", str(self.git["isaacsim"]), "grep", "-n", "-F", "-m1", pattern, tag, "--", "*.py"]
        found = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
        if not found:
            raise LookupError(f"IsaacSim {tag} has no Python with {pattern!r}")
        _, path, line, _ = found[0].split(":", 3)
        return path, int(line)

    def usage(self, repository: str, tag: str, path: str, pattern: str) -> int:
        """Line of a call. Raises LookupError when it is not there."""
        for number, line in enumerate(self.text(repository, tag, path).splitlines(), start=1):
            if pattern in line:
                return number
        raise LookupError(f"{path} at {tag} has no line with {pattern!r}")


def _named(node: ast.AST, name: str) -> bool:
    if getattr(node, "name", None) == name:
        return True
    targets = getattr(node, "targets", []) or ([node.target] if isinstance(node, ast.AnnAssign) else [])
    return any(getattr(t, "id", None) == name for t in targets)


def _repaired(text: str) -> str:
    """Generated stubs are not always valid Python: defaults before non-defaults, bare ellipses as types."""
    try:
        ast.parse(text)
    except SyntaxError:
        text = re.sub(
            r"def observe_event\(self, order: int = 0, event_name: str, on_event:",
            "def observe_event(self, order: int = 0, event_name: str = '', on_event:",
            text,
        )
        text = text.replace("(in: str)", "(in_: str)")
        text = re.sub(r"(on_event: typing\.Callable\[\[Event\], None\]), filter", r"\1 = None, filter", text)
    return text


def collect(sources: Sources) -> dict[str, list[Fact]]:
    """All facts, per version."""
    out: dict[str, list[Fact]] = {version: [] for version in VERSIONS}

    def add(version: str, name: str, kind: str, signature: str, source: str, path: str, line: int, how: str) -> None:
        out[version].append(Fact(name, kind, signature, source, path, line, how))

    def python(versions: dict[str, str], repository: str, source: str, path: str, module: str, *names: str) -> None:
        for version, tag in versions.items():
            for qualname in names:
                signature, line, kind = sources.python(repository, tag, path, qualname)
                add(version, f"{module}.{qualname}", kind, signature, f"{source} {tag}", path, line, "source")

    def usage(versions: dict[str, str], name: str, kind: str, signature: str, path: str, pattern: str) -> None:
        for version, tag in versions.items():
            line = sources.usage("isaacsim", tag, path, pattern)
            add(version, name, kind, signature, f"isaac-sim/IsaacSim {tag}", path, line, "usage")

    def noted(
        versions: tuple[str, ...], name: str, kind: str, signature: str, source: str, path: str, line: int, how: str
    ) -> None:
        for version in versions:
            add(version, name, kind, signature, source, path, line, how)

    sim = "isaac-sim/IsaacSim"
    new = {v: SIM_TAG[v] for v in ("5.1", "6.x")}
    manager = "isaacsim.core.simulation_manager"
    impl = f"{MANAGER}/python/impl"
    shared = (
        "register_callback",
        "deregister_callback",
        "get_physics_sim_view",
        "get_simulation_time",
        "get_num_physics_steps",
    )
    python(new, "isaacsim", sim, f"{impl}/simulation_manager.py", manager, *(f"SimulationManager.{n}" for n in shared))
    python(
        {"6.x": "v6.0.1"},
        "isaacsim",
        sim,
        f"{impl}/simulation_manager.py",
        manager,
        "SimulationManager.get_physics_simulation_view",
        "SimulationManager.get_active_physics_engine",
    )
    python(new, "isaacsim", sim, f"{impl}/isaac_events.py", manager, "IsaacEvents.POST_PHYSICS_STEP")
    python(
        {"6.x": "v6.0.1"}, "isaacsim", sim, f"{impl}/simulation_event.py", manager, "SimulationEvent.PHYSICS_POST_STEP"
    )
    for version, tag in new.items():
        for name, signature in (
            ("get_current_time", "()"),
            ("get_simulation_time", "()"),
            ("get_simulation_time_at_time", "(rtime)"),
            ("numerator", ""),
            ("denominator", ""),
        ):
            _, line = sources.cpp("isaacsim", tag, BINDINGS, name)
            owner = "RationalTime" if name in ("numerator", "denominator") else "Interface"
            kind = "method" if signature else "attribute"
            add(
                version,
                f"{manager}._simulation_manager.{owner}.{name}",
                kind,
                signature,
                f"{sim} {tag}",
                BINDINGS,
                line,
                "source",
            )
        line = (
            sources.text("isaacsim", tag, BINDINGS).count(
                "\n", 0, sources.text("isaacsim", tag, BINDINGS).index("acquire_simulation_manager_interface")
            )
            + 1
        )
        name = f"{manager}._simulation_manager.acquire_simulation_manager_interface"
        add(version, name, "function", "()", f"{sim} {tag}", BINDINGS, line, "source")
    # 4.5 has a simulation manager (extension 0.3.3) without step events: only its view is used.
    noted(
        ("4.5",),
        f"{manager}.SimulationManager.get_physics_sim_view",
        "method",
        "()",
        f"{sim} v5.0.0",
        f"{impl}/simulation_manager.py",
        0,
        "unverified",
    )

    for version, tag in PHYSX_TAG.items():
        only = {version: tag}
        python(only, "physx", "NVIDIA-Omniverse/PhysX", TENSORS, "omni.physics.tensors", "create_simulation_view")
        view = ("set_subspace_roots", "create_articulation_view", "create_rigid_body_view")
        python(
            only,
            "physx",
            "NVIDIA-Omniverse/PhysX",
            TENSORS,
            "omni.physics.tensors",
            *(f"SimulationView.{n}" for n in view),
        )
        articulation = (
            "count",
            "check",
            "is_homogeneous",
            "shared_metatype",
            "prim_paths",
            "link_paths",
            "get_link_transforms",
            "get_dof_positions",
            "get_dof_velocities",
            "get_dof_projected_joint_forces",
            "get_dof_position_targets",
            "set_dof_position_targets",
        )
        python(
            only,
            "physx",
            "NVIDIA-Omniverse/PhysX",
            TENSORS,
            "omni.physics.tensors",
            *(f"ArticulationView.{n}" for n in articulation),
        )
        body = ("count", "prim_paths", "get_transforms")
        python(
            only,
            "physx",
            "NVIDIA-Omniverse/PhysX",
            TENSORS,
            "omni.physics.tensors",
            *(f"RigidBodyView.{n}" for n in body),
        )
        for name in ("link_names", "dof_names"):
            _, line = sources.cpp("physx", tag, METATYPE, name)
            add(
                version,
                f"omni.physics.tensors.ArticulationMetatype.{name}",
                "attribute",
                "",
                f"NVIDIA-Omniverse/PhysX {tag}",
                METATYPE,
                line,
                "source",
            )
        for interface, name, fallback in (
            ("PhysX", "subscribe_physics_on_step_events", ""),
            ("PhysX", "subscribe_physics_step_events", ""),
            ("PhysXSimulation", "get_contact_report", "()"),
        ):
            signature, line = sources.cpp("physx", tag, PHYSX, name)
            add(
                version,
                f"omni.physx.{interface}.{name}",
                "method",
                fallback or signature,
                f"NVIDIA-Omniverse/PhysX {tag}",
                PHYSX,
                line,
                "source",
            )
        for name in (
            "type",
            "actor0",
            "actor1",
            "contact_data_offset",
            "num_contact_data",
            "position",
            "normal",
            "impulse",
            "separation",
        ):
            _, line = sources.cpp("physx", tag, PHYSX, name)
            owner = "ContactData" if name in ("position", "normal", "impulse", "separation") else "ContactEventHeader"
            add(
                version,
                f"omni.physx.{owner}.{name}",
                "attribute",
                "",
                f"NVIDIA-Omniverse/PhysX {tag}",
                PHYSX,
                line,
                "source",
            )
        for name in ("get_physx_interface", "get_physx_simulation_interface"):
            noted(
                (version,), f"omni.physx.{name}", "function", "()", f"NVIDIA-Omniverse/PhysX {tag}", PHYSX, 0, "usage"
            )
    old = ("4.2", "4.5")
    for fact in [f for f in out["5.1"] if f.name.startswith(("omni.physics.tensors", "omni.physx"))]:
        # The names are those of 2024's documentation; their 107.3 form is assumed.
        if not fact.name.endswith("subscribe_physics_on_step_events"):
            noted(old, fact.name, fact.kind, fact.signature, fact.source, fact.path, fact.line, "unverified")

    typings = {"5.1": "HEAD"}
    events = "typings/carb/events/_events.pyi"
    python(
        typings,
        "typings",
        "work-r-labs/isaacsim_typings_5",
        events,
        "carb.events",
        "IEventStream.create_subscription_to_pop_by_type",
        "IEventStream.create_subscription_to_pop",
        "ISubscription.unsubscribe",
    )
    python(
        typings,
        "typings",
        "work-r-labs/isaacsim_typings_5",
        "typings/carb/settings/_settings.pyi",
        "carb.settings",
        "ISettings.get",
        "ISettings.set",
        "ISettings.destroy_item",
    )
    dispatcher = "typings/carb/eventdispatcher/_eventdispatcher.pyi"
    python(
        typings,
        "typings",
        "work-r-labs/isaacsim_typings_5",
        dispatcher,
        "carb.eventdispatcher",
        "IEventDispatcher.observe_event",
        "ObserverGuard.reset",
    )
    app = "typings/omni/kit/app/_app.pyi"
    python(
        typings,
        "typings",
        "work-r-labs/isaacsim_typings_5",
        app,
        "omni.kit.app",
        "GLOBAL_EVENT_POST_UPDATE",
        *(
            f"IApp.{n}"
            for n in (
                "get_app_version",
                "get_app_name",
                "get_kit_version",
                "get_extension_manager",
                "get_post_update_event_stream",
                "get_update_number",
                "post_quit",
            )
        ),
    )
    python(
        typings,
        "typings",
        "work-r-labs/isaacsim_typings_5",
        "typings/omni/kit/app/_impl/app_iface.pyi",
        "omni.kit.app",
        "get_app",
    )
    python(
        typings,
        "typings",
        "work-r-labs/isaacsim_typings_5",
        "typings/omni/usd/_usd.pyi",
        "omni.usd",
        "UsdContext.get_stage",
    )
    python(
        typings,
        "typings",
        "work-r-labs/isaacsim_typings_5",
        "typings/omni/usd/_usd.pyi",
        "omni.usd",
        "UsdContext.open_stage",
        "get_context",
    )
    python(
        typings,
        "typings",
        "work-r-labs/isaacsim_typings_5",
        "typings/omni/kit/notification_manager/extension.pyi",
        "omni.kit.notification_manager",
        "post_notification",
    )
    python(
        typings,
        "typings",
        "work-r-labs/isaacsim_typings_5",
        "typings/omni/kit/menu/utils/utils.pyi",
        "omni.kit.menu.utils",
        "add_menu_items",
        "remove_menu_items",
    )
    for fact in [f for f in out["5.1"] if f.source.startswith("work-r-labs")]:
        noted(("6.x",), fact.name, fact.kind, fact.signature, fact.source, fact.path, fact.line, "unverified")
        if not fact.name.startswith("carb.eventdispatcher") and "GLOBAL_EVENT" not in fact.name:
            noted(old, fact.name, fact.kind, fact.signature, fact.source, fact.path, fact.line, "unverified")
    for version in VERSIONS:
        for name in ("carb.settings.get_settings", "carb.eventdispatcher.get_eventdispatcher"):
            if version in old and "eventdispatcher" in name:
                continue
            noted((version,), name, "function", "()", "work-r-labs/isaacsim_typings_5 HEAD", "typings/carb", 0, "usage")

    context = "source/deprecated/isaacsim.core.api/python/impl/simulation_context/simulation_context.py"
    old_context = "source/extensions/isaacsim.core.api/python/impl/simulation_context/simulation_context.py"
    for name in ("play", "pause", "stop", "is_playing", "is_stopped"):
        for version, tag in SIM_TAG.items():
            path = context if version == "6.x" else old_context
            usage({version: tag}, f"omni.timeline.ITimeline.{name}", "method", "()", path, f"_timeline.{name}()")
        noted(("4.2",), f"omni.timeline.ITimeline.{name}", "method", "()", "as 4.5", old_context, 0, "unverified")
    for version in VERSIONS:
        for name in ("get_timeline_interface", "ITimeline.get_timeline_event_stream"):
            tag = SIM_TAG.get(version, "v5.0.0")
            path = context if version == "6.x" else old_context
            how = "unverified" if version == "4.2" else "usage"
            line = sources.usage("isaacsim", tag, path, name.split(".")[-1])
            kind = "method" if "." in name else "function"
            add(version, f"omni.timeline.{name}", kind, "()", f"{sim} {tag}", path, line, how)
        for name in ("PLAY", "PAUSE", "STOP"):
            noted(
                (version,),
                f"omni.timeline.TimelineEventType.{name}",
                "attribute",
                "",
                f"{sim} v6.0.1",
                f"{impl}/simulation_manager.py",
                0,
                "usage" if version != "4.2" else "unverified",
            )

    # What a recording asks of the timeline and the stage beside Play, Pause and Stop.
    timeline_calls = (
        ("commit", "()", ("timeline.commit()", "timeline.commit()")),
        ("get_current_time", "()", ("timeline.get_current_time()", "timeline.get_current_time()")),
        ("get_end_time", "()", ("timeline.get_end_time()", "timeline.get_end_time()")),
        ("set_looping", "(looping)", (".set_looping(", "timeline.set_looping(")),
        ("is_looping", "()", (None, "timeline.is_looping()")),
        ("get_time_codes_per_seconds", "()", ("get_time_codes_per_seconds()", "get_time_codes_per_seconds()")),
    )
    for name, signature, patterns in timeline_calls:
        for (version, tag), pattern in zip(new.items(), patterns, strict=True):
            if pattern is None:
                noted((version,), f"omni.timeline.ITimeline.{name}", "method", signature, "as 6.x", "", 0, "unverified")
                continue
            path, line = sources.find(tag, pattern)
            add(version, f"omni.timeline.ITimeline.{name}", "method", signature, f"{sim} {tag}", path, line, "usage")
        noted(old, f"omni.timeline.ITimeline.{name}", "method", signature, "as 5.1", "", 0, "unverified")
    for module, source, names in (
        ("omni.usd", "typings/omni/usd/_usd.pyi", ("get_stage_url", "get_stage_loading_status", "can_open_stage")),
        ("omni.kit.app", "typings/omni/kit/app/_app.pyi", ("is_app_ready", "is_running", "update")),
    ):
        owner = "UsdContext" if module == "omni.usd" else "IApp"
        python(typings, "typings", "work-r-labs/isaacsim_typings_5", source, module, *(f"{owner}.{n}" for n in names))
        for name in names:
            fact = next(f for f in out["5.1"] if f.name == f"{module}.{owner}.{name}")
            noted(("6.x", *old), fact.name, fact.kind, fact.signature, fact.source, fact.path, fact.line, "unverified")
    # Engine-neutral physics steps: the one hook where omni.physx is switched off (Newton).
    path, line = sources.find("v6.0.1", "omni.physics.core.get_physics_simulation_interface(")
    add(
        "6.x",
        "omni.physics.core.get_physics_simulation_interface",
        "function",
        "()",
        f"{sim} v6.0.1",
        path,
        line,
        "usage",
    )
    path, line = sources.find("v6.0.1", "_physics_sim_interface.subscribe_physics_on_step_events(")
    signature = "(pre_step, order, on_update)"
    name = "omni.physics.core.PhysicsSimulation.subscribe_physics_on_step_events"
    add("6.x", name, "method", signature, f"{sim} v6.0.1", path, line, "usage")
    # The World that scripts step themselves; Retake only wraps `reset`, and asks for the rendering interval.
    for version, tag in new.items():
        where = context if version == "6.x" else old_context
        for name in ("reset", "get_rendering_dt", "step", "is_playing", "play", "stop"):
            signature, line, _ = sources.python("isaacsim", tag, where, f"SimulationContext.{name}")
            full = f"isaacsim.core.api.World.{name}"
            add(version, full, "method", signature, f"{sim} {tag}", where, line, "source")
    for version, module in (("4.5", "isaacsim.core.api"), ("4.2", "omni.isaac.core")):
        for fact in [f for f in out["5.1"] if f.name.startswith("isaacsim.core.api.World.")]:
            name = fact.name.replace("isaacsim.core.api", module)
            noted((version,), name, fact.kind, fact.signature, fact.source, fact.path, fact.line, "unverified")
    python({"6.x": "v6.0.1"}, "isaacsim", sim, f"{impl}/simulation_manager.py", manager, "SimulationManager.step")

    # omni.replicator.core: the Python sources carry Apache-2.0 headers and ship inside Isaac Sim only.
    for name, signature, line in (
        ("Writer.initialize", "(**kwargs)", 405),
        ("Writer.attach", "(render_products, trigger='omni.replicator.core.OgnOnFrame')", 433),
        ("Writer.detach", "()", 480),
        ("Writer.write", "(data)", 297),
        ("Writer.on_final_frame", "()", 398),
        ("Writer.write_metadata", "()", 276),
        ("WriterRegistry.register", "(writer, category=None)", 519),
        ("WriterRegistry.unregister", "(writer_name)", 565),
        (
            "WriterRegistry.get",
            "(name, init_params=None, render_products=None, trigger='omni.replicator.core.OgnOnFrame')",
            0,
        ),
    ):
        kind = "method"
        noted(
            ("5.1", "6.x"),
            f"omni.replicator.core.{name}",
            kind,
            signature,
            REPLICATOR,
            "writers.py",
            line,
            "source" if line else "usage",
        )
        noted(old, f"omni.replicator.core.{name}", kind, signature, REPLICATOR, "writers.py", line, "unverified")
    for name, signature, pattern in (
        (
            "create.render_product",
            "(camera, resolution, force_new=False, name=None, render_vars=None)",
            "rep.create.render_product(",
        ),
        ("orchestrator.set_capture_on_play", "(value)", "rep.orchestrator.set_capture_on_play("),
        (
            "orchestrator.step_async",
            "(rt_subframes=-1, pause_timeline=True, delta_time=None, wait_for_render=True)",
            "rep.orchestrator.step_async(",
        ),
        ("orchestrator.wait_until_complete_async", "()", "rep.orchestrator.wait_until_complete_async("),
        ("orchestrator.NEXT_UPDATE", "()", "next_update_async("),  # the application's, awaited beside them
    ):
        for version, tag in new.items():
            full = (
                "omni.kit.app.IApp.next_update_async"
                if name.endswith("NEXT_UPDATE")
                else f"omni.replicator.core.{name}"
            )
            where = GENERATION if name.endswith("NEXT_UPDATE") else RECORDER
            usage({version: tag}, full, "function", signature, where, pattern)
        noted(old, full, "function", signature, f"{sim} v5.1.0", RECORDER, 0, "unverified")
    step = "(rt_subframes=-1, pause_timeline=True, delta_time=None, wait_for_render=True)"
    for version, tag in new.items():
        path, line = sources.find(tag, "rep.orchestrator.step(")
        add(version, "omni.replicator.core.orchestrator.step", "function", step, f"{sim} {tag}", path, line, "usage")
    noted(old, "omni.replicator.core.orchestrator.step", "function", step, "as 5.1", "", 0, "unverified")
    for version in VERSIONS:
        how = "usage" if version in new else "unverified"
        noted(
            (version,),
            "omni.replicator.core.AnnotatorRegistry.get_annotator",
            "method",
            "(name, init_params=None, render_product_idxs=None, device=None, do_array_copy=True)",
            REPLICATOR,
            "annotators.py",
            0,
            how,
        )
        noted(
            (version,),
            "omni.replicator.core.HydraTexture.path",
            "attribute",
            "",
            REPLICATOR,
            "utils/viewport_manager.py",
            0,
            how,
        )
        noted(
            (version,),
            "omni.replicator.core.HydraTexture.destroy",
            "method",
            "()",
            REPLICATOR,
            "utils/viewport_manager.py",
            0,
            how,
        )
        noted(
            (version,),
            "pxr.PhysicsSchemaTools.intToSdfPath",
            "function",
            "(path_id)",
            f"{sim} v6.0.1",
            "source/extensions/isaacsim.asset.validation/isaacsim/asset/validation/physics_rules.py",
            264,
            how,
        )
        noted((version,), "omni.ext.IExt.on_startup", "method", "(ext_id)", f"{sim} v6.0.1", GENERATION, 0, how)
    for name, kind, signature in (
        ("get.prims", "function", "(path_pattern=None, path_match=None, **kwargs)"),
        ("trigger.on_custom_event", "function", "(event_name)"),
        ("randomizer.color", "function", "(colors, **kwargs)"),
        ("distribution.uniform", "function", "(lower, upper, **kwargs)"),
        ("utils.send_og_event", "function", "(event_name)"),
    ):
        for version, tag in new.items():
            path, line = sources.find(tag, f"rep.{name}(")
            add(version, f"omni.replicator.core.{name}", kind, signature, f"{sim} {tag}", path, line, "usage")
        noted(old, f"omni.replicator.core.{name}", kind, signature, f"{sim} v5.1.0", path, 0, "unverified")
    simulation_app = "source/extensions/isaacsim.simulation_app/isaacsim/simulation_app/simulation_app.py"
    methods = tuple(f"SimulationApp.{n}" for n in ("close", "run_coroutine", "update"))
    python(new, "isaacsim", sim, simulation_app, "isaacsim", *methods)
    for version, tag in new.items():
        signature, line, _ = sources.python("isaacsim", tag, simulation_app, "SimulationApp.__init__")
        add(version, "isaacsim.SimulationApp", "function", signature, f"{sim} {tag}", simulation_app, line, "source")
    for version, module in (("4.5", "isaacsim"), ("4.2", "omni.isaac.kit")):
        for fact in [f for f in out["5.1"] if f.name.startswith("isaacsim.SimulationApp")]:
            name = fact.name.replace("isaacsim.", f"{module}.", 1)
            # close() takes no more than wait_for_replicator in 5.0; run_coroutine is not known before it.
            signature = "(wait_for_replicator=True)" if name.endswith(".close") else fact.signature
            if not name.endswith(".run_coroutine"):
                noted((version,), name, fact.kind, signature, f"{sim} v5.0.0", fact.path, 0, "unverified")
    for name in WIDGETS:
        for version, tag in new.items():
            path, line = sources.find(tag, f"ui.{name}(")
            add(version, f"omni.ui.{name}", "function", "(*args, **kwargs)", f"{sim} {tag}", path, line, "usage")
        noted(old, f"omni.ui.{name}", "function", "(*args, **kwargs)", f"{sim} v5.1.0", path, line, "unverified")
    helper = "omni.kit.menu.utils.MenuHelperExtensionFull"
    panel_calls = (
        (f"{helper}.menu_startup", "method",
         "(create_window_fn, window_name, menu_desc, menu_group, window_attr_name=None, verbose=False)", "menu_startup("),
        (f"{helper}.menu_shutdown", "method", "(index=-1)", "menu_shutdown("),
        ("omni.kit.menu.utils.MenuHelperWindow", "function", "(*args, **kwargs)", "MenuHelperWindow)"),
        ("omni.ui.Window.deferred_dock_in", "method", "(target_window, active_window=None)", "deferred_dock_in("),
        ("omni.usd.UsdContext.get_selection", "method", "()", "get_context().get_selection()"),
        ("omni.usd.Selection.get_selected_prim_paths", "method", "()", "get_selection().get_selected_prim_paths()"),
        ("omni.kit.window.filepicker.FilePickerDialog", "function", "(title, **kwargs)", "FilePickerDialog("),
        ("omni.kit.window.filepicker.FilePickerDialog.hide", "method", "()", "picker.hide()"),
    )  # fmt: skip
    for name, kind, signature, pattern in panel_calls:
        for version, tag in new.items():
            path, line = sources.find(tag, pattern)
            add(version, name, kind, signature, f"{sim} {tag}", path, line, "usage")
        noted(old, name, kind, signature, f"{sim} v5.1.0", path, 0, "unverified")
    version_path = "source/extensions/isaacsim.core.version/isaacsim/core/version/extension.py"
    python(new, "isaacsim", sim, version_path, "isaacsim.core.version", "get_version")
    noted(
        ("4.5",), "isaacsim.core.version.get_version", "function", "()", f"{sim} v5.1.0", version_path, 58, "unverified"
    )
    noted(("4.2",), "omni.isaac.version.get_version", "function", "()", "as 4.5", version_path, 0, "unverified")

    line = (
        sources.text("isaacsim", "v5.0.0", NODES).count(
            "\n", 0, sources.text("isaacsim", "v5.0.0", NODES).index('def("get_sim_time_at_time"')
        )
        + 1
    )
    for version, module in (
        ("4.5", "isaacsim.core.nodes.bindings._isaacsim_core_nodes"),
        ("4.2", "omni.isaac.core_nodes.bindings._omni_isaac_core_nodes"),
    ):
        noted(
            (version,),
            f"{module}.CoreNodes.get_sim_time_at_time",
            "method",
            "(rtime)",
            f"{sim} v5.0.0",
            NODES,
            line,
            "unverified",
        )
        noted((version,), f"{module}.CoreNodes.get_sim_time", "method", "()", f"{sim} v5.0.0", NODES, 72, "unverified")
        noted((version,), f"{module}.acquire_interface", "function", "()", f"{sim} v5.0.0", NODES, 71, "unverified")
    return out


def main(argv: list[str] | None = None) -> int:
    """Write the facts file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("isaacsim", "physx", "typings"):
        parser.add_argument(f"--{name}", type=Path, required=True, help=f"git directory of the {name} sources")
    parser.add_argument("--check", action="store_true", help="compare with the committed file instead of writing it")
    options = parser.parse_args(argv)
    facts = collect(Sources(options.isaacsim, options.physx, options.typings))
    content = {version: [asdict(f) for f in sorted(facts[version], key=lambda f: f.name)] for version in VERSIONS}
    text = json.dumps({"about": "written by scripts/kit_facts.py; do not edit", "versions": content}, indent=1) + "\n"
    if options.check:
        same = OUT.read_text() == text
        print(
            "the committed facts are those of the sources"
            if same
            else "the sources say something else: run without --check"
        )
        return 0 if same else 1
    OUT.write_text(text)
    for version, items in content.items():
        counts = {how: sum(i["confidence"] == how for i in items) for how in ("source", "usage", "unverified")}
        print(f"{version}: {len(items)} names, {counts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
