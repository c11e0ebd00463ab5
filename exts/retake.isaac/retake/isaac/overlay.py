# SPDX-License-Identifier: Apache-2.0
"""What recordings say of a stage: one layer of their own under its session layer, which the last of them removes.

The user's layers stay as they are but for one thing: what the session layer says itself is stronger than any layer under it.
Such a value is put aside while a recording needs another, and comes back with the end, as it was.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from pxr import Sdf, Usd

from retake.isaac.sharing import Shared

VALUES = ("default", "timeSamples")


def _layer() -> Sdf.Layer:
    return Sdf.Layer.CreateAnonymous("retake")


@dataclass(eq=False)
class _Said:
    layer: Sdf.Layer = field(default_factory=_layer)
    aside: Sdf.Layer = field(default_factory=_layer)
    """What the session layer said itself."""
    before: dict[Sdf.Path, Any] = field(default_factory=dict)
    """Attribute → its value without the recordings."""


_said: Shared[_Said] = Shared()


class Overlay:
    """One recording's hold on that layer. What one says stays until the last one closes: the others rest on it, too."""

    def __init__(self, stage: Usd.Stage) -> None:
        """The stage learns of the layer with the first thing said."""
        self._stage, self._known = stage, _said.take(self, stage, _Said)

    def before(self, prim_path: str, name: str) -> Any:
        """An attribute's value without the recordings; None where it has none."""
        attribute = self._attribute(prim_path, name)
        return self._known.before.get(attribute.GetPath(), attribute.Get()) if attribute else None

    def say(self, prim_paths: Collection[str], name: str, value: float, kind: Sdf.ValueTypeName, api: str = "") -> None:
        """Give an attribute of some prims a value, and apply a schema to them if one is named. `kind`: of attributes that the
        stage does not know."""
        if not prim_paths:
            return
        layer, session = self._known.layer, self._stage.GetSessionLayer()
        if layer.identifier not in session.subLayerPaths:
            session.subLayerPaths.insert(0, layer.identifier)
        specs: dict[Sdf.Path, Sdf.AttributeSpec] = {}
        with Sdf.ChangeBlock():
            for path in prim_paths:
                attribute = self._attribute(path, name)
                prim, own = Sdf.CreatePrimInLayer(layer, path), Sdf.Path(path).AppendProperty(name)
                if api:
                    prim.SetInfo("apiSchemas", Sdf.TokenListOp.Create(prependedItems=[api]))
                self._known.before.setdefault(own, attribute.Get() if attribute else None)
                specs[own] = layer.GetAttributeAtPath(own) or Sdf.AttributeSpec(
                    prim, name, attribute.GetTypeName() if attribute else kind
                )
        # Values come afterwards: a new specification is a resync to those who listen, and PhysX's listeners read new values of
        # attributes where nothing but a value has changed.
        with Sdf.ChangeBlock():
            for own, spec in specs.items():
                self._put_aside(own)
                before = self._known.before[own]
                spec.default = value if before is None else type(before)(value)

    def close(self) -> None:
        """Leave the layer: with the last one the stage is as it was."""
        known = _said.leave(self)
        if known is None:
            return
        session = self._stage.GetSessionLayer()
        with Sdf.ChangeBlock():  # values first, here as well
            for path in known.before:
                known.layer.GetAttributeAtPath(path).ClearInfo("default")
                theirs, now = known.aside.GetAttributeAtPath(path), session.GetAttributeAtPath(path)
                if theirs and now and not _has_value(now):  # else the user has removed it, or set another meanwhile
                    Sdf.CopySpec(known.aside, path, session, path)
        if known.layer.identifier in session.subLayerPaths:
            session.subLayerPaths.remove(known.layer.identifier)

    def _attribute(self, prim_path: str, name: str) -> Usd.Attribute | None:
        prim = self._stage.GetPrimAtPath(prim_path)
        return (prim.GetAttribute(name) or None) if prim else None

    def _put_aside(self, path: Sdf.Path) -> None:
        session, aside = self._stage.GetSessionLayer(), self._known.aside
        spec = session.GetAttributeAtPath(path)
        if spec and _has_value(spec):
            Sdf.CreatePrimInLayer(aside, path.GetPrimPath())
            Sdf.CopySpec(session, path, aside, path)
            for key in VALUES:
                spec.ClearInfo(key)


def _has_value(spec: Sdf.AttributeSpec) -> bool:
    return any(spec.HasInfo(key) for key in VALUES)
