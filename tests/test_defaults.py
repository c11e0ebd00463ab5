# SPDX-License-Identifier: Apache-2.0
"""What is not said has one meaning: the same in Python, in a run's settings and over the wire, and never the bolder one."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import operator
from collections.abc import Callable
from typing import Any

import pytest

from retake.core.config import RunConfig

NAMES = (
    "capture.pairing", "capture.recorder", "cli", "codec", "episode.writer", "masks.make", "robot", "skeleton.squeeze",
    "oscar_episode", "processes", "run_layout", "run_store", "session", "stages", "video", "wire", "worker_client",
    "episode.check", "episode.reader", "episode.records", "export.api", "export.found", "export.isaaclab_env",
    "export.lerobot_v3", "export.mix", "export.oscar", "export.split", "export.staging", "export.vectors", "export.worlds",
    "export.writer", "export.records", "importers.entries", "importers.isaaclab", "importers.judged", "importers.lerobot_cli",
    "importers.lerobot_records", "importers.sage", "importers.units", "report.serve", "robustness.analysis", "robustness.run",
    "skeleton.draw", "skeleton.make", "takes.base", "variants.attempts", "variants.backends", "variants.controls",
    "variants.edges", "variants.folder", "variants.gated", "variants.lock", "variants.sampler", "variants.sheet",
    "variants.whole", "variants.base", "variants.make", "variants.worlds",
)  # fmt: skip
MODULES = {name: importlib.import_module(f"retake.core.{name}") for name in NAMES}
ASKED = {
    "force", "append", "restart", "unverified", "include_sim", "allow_mixed", "allow_incomplete", "ignore_unknown", "lossless",
    "reuse", "remember", "create", "failed", "beyond_limits", "resample", "degrees", "weights_only", "trust_units", "commanded",
    "only_commercial", "object_control", "of_presets", "keep_shapes", "keep_object", "old_so_arm", "real", "run_option", "many",
    "lock_is_new", "lock", "language_columns",
}  # fmt: skip
"""What nobody gets unasked: less checking, more than was wanted, or something instead of what is there."""


def callables() -> list[tuple[str, Callable[..., Any]]]:
    found_: list[tuple[str, Callable[..., Any]]] = []
    for module in MODULES.values():
        for name, value in vars(module).items():
            if getattr(value, "__module__", None) != module.__name__:
                continue
            if inspect.isclass(value):
                found_ += [
                    (f"{module.__name__}.{name}.{n}", v) for n, v in vars(value).items() if inspect.isfunction(v)
                ]
            elif callable(value):
                found_.append((f"{module.__name__}.{name}", value))
    return found_


def test_what_is_bold_is_done_only_when_it_is_asked_for():
    bold, met = {}, set()
    for name, function in callables():
        try:
            parameters = inspect.signature(function).parameters
        except ValueError:
            continue
        for one in parameters.values():
            if one.name in ASKED and one.default is not inspect.Parameter.empty:
                met.add(one.name)
                if one.default is True:
                    bold[f"{name}({one.name})"] = one.default
    assert bold == {}
    assert len(met) > 20


def default(named: str) -> Any:
    """Of `module:function.parameter`, or of a record's field."""
    module, _, path = named.partition(":")
    path, _, name = path.rpartition(".")
    of = operator.attrgetter(path)(MODULES[module])
    if dataclasses.is_dataclass(of):
        return next(field.default for field in dataclasses.fields(of) if field.name == name)
    return inspect.signature(of).parameters[name].default


SETTINGS = """
variants.seed: variants.gated:make_gated_variants.seed variants.make:make_variants.seed variants.make:make_variant.seed
variants.seed: variants.make:select_worlds.seed variants.sampler:sample_worlds.seed wire:VariantRequest.seed
variants.rerolls: variants.gated:make_gated_variants.rerolls variants.attempts:Rules.rerolls wire:VariantRequest.rerolls
variants.gate: variants.gated:make_gated_variants.gate variants.attempts:Rules.gate wire:VariantRequest.gate
variants.blind: variants.gated:make_gated_variants.blind variants.attempts:Rules.blind
variants.backend: variants.gated:make_gated_variants.backend variants.make:make_variants.backend wire:VariantJob.backend
variants.count: variants.make:select_worlds.count
variants.of_presets: variants.make:select_worlds.of_presets
takes.start: variants.gated:make_gated_variants.index variants.make:make_variants.index wire:VariantRequest.index
takes.start: takes.base:TakeRequest.start takes.base:Take.start run_layout:take_id.start run_layout:variant_id.index
takes.start: skeleton.draw:stream_skeleton.start oscar_episode:oscar_view.start oscar_episode:export_oscar.start
takes.start: importers.judged:Shown.start
takes.seed: takes.base:TakeRequest.seed
takes.backend: wire:TakeJob.backend
skeleton.size: skeleton.make:make_skeleton.model_size skeleton.squeeze:Squeeze.model_size
"""
"""A run's setting: what means the same elsewhere."""
SAME = [(of, line.partition(":")[0]) for line in SETTINGS.split("\n") for of in line.partition(": ")[2].split()]


@pytest.mark.parametrize(("of", "setting"), SAME)
def test_a_default_is_the_run_s_own(of, setting):
    wanted = operator.attrgetter(setting)(RunConfig())
    assert default(of) == wanted
    assert type(default(of)) is type(wanted)


PROMISED = """
takes.base:TakeRequest.frames 81
processes:map_in_processes.workers 0
variants.gated:make_gated_variants.workers 1
robustness.run:robustness.frames 8
robustness.run:robustness.seed 0
robustness.analysis:bootstrap_score.samples 2000
robustness.analysis:bootstrap_score.seed 0
robustness.analysis:attribute.permutations 2000
robustness.analysis:attribute.seed 0
robustness.analysis:analyse.seed 0
variants.sheet:contact_sheet.columns 6
variants.sheet:contact_sheet.width 240
variants.sheet:write_sheet.group 1
variants.sheet:write_sheet.columns 0
variants.sheet:write_sheet.width 0
variants.edges:edge_f1.tolerance_px 1
variants.edges:canny.low 40
variants.edges:canny.high 100
variants.lock:lock_robot.relight True
variants.whole:WorldTried.whole True
variants.base:source_frame.maps True
export.records:VideoOptions.gop 2
export.records:VideoOptions.crf 30
export.records:VideoOptions.of.gop 2
export.isaaclab_env:LabTarget.version 3
export.split:Split.seed 0
export.split:parse_split.seed 0
export.mix:mix.seed 0
export.vectors:build_schema.truth False
export.found:Selection.truth True
export.found:Selection.language True
export.found:Selection.window 0
export.writer:picture.height 180
report.serve:serve.port 0
report.serve:serve.browser True
report.serve:make_server.port 0
episode.records:ObjectSpec.movable True
episode.records:EpisodeHeader.seed 0
episode.writer:EpisodeWriter.__init__.queue_frames 4
episode.writer:EpisodeWriter.__init__.threads 2
capture.recorder:Recorder.__init__.queue_frames 8
capture.pairing:FramePairer.__init__.ring 8192
masks.make:mask_episode.fit True
robot:JointSpec.driven True
importers.lerobot_cli:parser.required True
"""
"""What callers that say nothing have always got."""


@pytest.mark.parametrize("line", PROMISED.split("\n")[1:-1])
def test_who_says_nothing_gets_what_was_promised(line):
    of, _, value = line.rpartition(" ")
    assert default(of) == ast.literal_eval(value)
    assert isinstance(default(of), bool) == (value in ("True", "False"))
