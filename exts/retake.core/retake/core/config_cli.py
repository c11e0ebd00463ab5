# SPDX-License-Identifier: Apache-2.0
"""`retake config`: everything that has a name: settings with their values, worlds, capture presets, backends, stages.

It reads names only: no backend, simulator or model is imported.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from retake.core import plugins
from retake.core.codec import merged
from retake.core.config import RunConfig, config_path, load_config, load_yaml
from retake.core.errors import RunError
from retake.core.run_store import open_run

EPILOG = """
examples:
  retake config                                    all of it
  retake config settings --set takes.seed=7        the settings with their values; what is not the default is marked
  retake config settings --run runs/demo           those that a run was made with
  retake config worlds --worlds mine.yaml          the worlds by name, your own among them
  retake config backends --json                    for programs
"""
ARROW = (
    ("Episode", "capture", "simulated motion: states, cameras, masks, depth, contacts"),
    ("Skeleton", "skeleton", "the 2D control video, drawn from simulated state"),
    ("Variants", "variants", "the first frame dressed into N worlds"),
    ("Takes", "takes", "one video per variant and seed"),
    ("Verdicts", "verify", "does each video do what the simulation did"),
    ("Dataset", "export", "accepted takes with the true actions"),
)


def main(argv: list[str]) -> int:
    """Print what was asked for; returns 0. Raises InputError for a wrong setting or file."""
    parser = argparse.ArgumentParser(
        prog="retake config",
        description="Settings, worlds, capture presets, backends and stages by name.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", nargs="*", metavar="WHAT", help=f"any of: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--config", type=Path, help="YAML with settings of your own")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting")
    parser.add_argument("--run", type=Path, help="the settings that this run was made with")
    parser.add_argument("--worlds", action="append", default=[], metavar="FILE", help="a YAML file of your own worlds")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv)
    if unknown := [name for name in options.what if name not in PARTS]:
        parser.error(f"unknown {unknown[0]!r}; valid: {', '.join(PARTS)}")
    config = load_config(options.config, tuple(options.set))
    if options.run is not None:
        remembered = open_run(options.run).manifest().get("config")
        if not isinstance(remembered, dict):
            raise RunError(f"{options.run} remembers no settings yet; `retake run --run {options.run}` makes it")
        config = merged(RunConfig(), remembered, str(options.run / "run.json"))
    if options.worlds:
        config = merged(config, {"variants": {"catalogue": options.worlds}}, "--worlds")
    found = {name: PARTS[name](config) for name in options.what or PARTS}
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    print("\n\n".join(_text(name, entries) for name, entries in found.items()))
    return 0


def settings(config: RunConfig) -> dict[str, Any]:
    """Dotted key → value, default and explanation (the comment in config/retake.yaml)."""
    explained = explanations(config_path("retake.yaml").read_text("utf-8"))
    defaults = _leaves(RunConfig())
    return {
        key: {"value": value, "default": defaults[key], "text": explained.get(key, "")}
        for key, value in _leaves(config).items()
    }


def explanations(text: str) -> dict[str, str]:
    """Dotted key → the comment on its line, of a YAML file of at most two levels."""
    section, out = "", {}
    for line in text.splitlines():
        if found := re.match(r"(?P<indent> *)(?P<key>\w+):(?P<rest>[^#]*)(?:#\s*(?P<text>.*))?$", line):
            inside = bool(found["indent"])
            if not inside:
                section = found["key"]
            key = f"{section}.{found['key']}" if inside else found["key"]
            out[key] = (found["text"] or "").strip()
    return out


def _leaves(config: Any, prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            out.update(_leaves(value, f"{prefix}{field.name}."))
        else:
            out[f"{prefix}{field.name}"] = list(value) if isinstance(value, tuple) else value
    return out


def worlds(config: RunConfig) -> dict[str, Any]:
    """World presets, with what they are made of."""
    from retake.core.variants.worlds import load_catalogue

    presets = load_catalogue(config.variants.catalogue).sections["presets"]
    return {name: {"text": ", ".join(str(value) for value in preset.values())} for name, preset in presets.items()}


def presets(config: RunConfig) -> dict[str, Any]:
    """Capture presets, with task, length and stage."""
    out = {}
    for path in sorted(config_path("capture").glob("*.yaml")):
        data = load_yaml(path) or {}
        length = f"{data.get('frames', 81)} frames at {data.get('fps', 15)}/s"
        out[path.stem] = {"text": f"{data.get('task', '')} ({length}, stage {data.get('stage', 'own')})"}
    return out


def backends(config: RunConfig) -> dict[str, Any]:
    """Simulators, first-frame backends and video backends, with the extra that each needs."""
    from retake.core import pipeline
    from retake.core.takes import fan_out
    from retake.core.variants import backends as first_frame

    tables: tuple[tuple[str, str, Mapping[str, str], Mapping[str, str], str], ...] = (
        ("simulator", "retake.simulators", pipeline.SIMULATORS, pipeline.SIMULATOR_EXTRAS, "capture.simulator"),
        ("first frame", "retake.image_backends", first_frame.BACKENDS, first_frame.EXTRAS, "variants.backend"),
        ("video", "retake.video_backends", fan_out.BACKENDS, fan_out.EXTRAS, "takes.backend"),
    )
    out = {}
    for kind, group, table, extras, setting in tables:
        for name in plugins.choices(group, table):
            needs = f"needs the extra [{extras[name]}]" if name in extras else "CPU, no extra"
            source = "" if name in table else "; added by another package"
            out[name] = {"text": f"{kind} ({setting}); {needs}{source}"}
    return out


def stages(config: RunConfig) -> dict[str, Any]:
    """The steps of the arrow, and the USD stages that come with Retake (`capture.stage` takes any file)."""
    out = {name: {"text": f"`retake {command}`: {text}"} for name, command, text in ARROW}
    for path in sorted(config_path("capture").glob("*.yaml")):
        if stage := (load_yaml(path) or {}).get("stage"):
            entry = out.setdefault(str(stage), {"text": "USD stage (data/stages) of the capture presets "})
            entry["text"] += f"{'' if entry['text'].endswith(' ') else ', '}{path.stem}"
    return out


PARTS: dict[str, Callable[[RunConfig], dict[str, Any]]] = {
    "settings": settings, "worlds": worlds, "presets": presets, "backends": backends, "stages": stages,
}  # fmt: skip


def _text(name: str, entries: Mapping[str, Any]) -> str:
    width = max((len(key) for key in entries), default=0)
    lines = [name]
    for key, entry in entries.items():
        if "value" not in entry:
            lines.append(f"  {key:<{width}}  {entry['text']}".rstrip())
            continue
        own = entry["value"] != entry["default"]
        was = f"  (default {json.dumps(entry['default'])})" if own else ""
        lines.append(
            f"{'*' if own else ' '} {key:<{width}}  {json.dumps(entry['value']):<14}{was}  {entry['text']}".rstrip()
        )
    return "\n".join(lines)
