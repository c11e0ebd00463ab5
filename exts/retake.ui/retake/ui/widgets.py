# SPDX-License-Identifier: Apache-2.0
"""Plain descriptions of widgets, of which the panel's sections are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from retake.ui.state import PanelState

Kind = Literal["text", "field", "number", "combo", "check", "button", "progress", "picture"]


@dataclass(frozen=True)
class Widget:
    """One widget. `action`: ("act", name), ("set", field), ("choose", kind, key) or ("camera", key, field)."""

    kind: Kind
    label: str
    value: Any = None
    action: tuple[str, ...] = ()
    enabled: bool = True
    help: str = ""
    options: tuple[str, ...] = ()
    """Of a combo."""
    tone: str = "plain"
    """plain, good, warning, error, primary."""
    width: int = 0
    """px; 0 = its share of the row."""


@dataclass(frozen=True)
class Row:
    """Widgets beside each other."""

    widgets: tuple[Widget, ...]


@dataclass(frozen=True)
class Section:
    """A titled, collapsible group."""

    title: str
    rows: tuple[Row, ...]
    open: bool = True


def button(state: PanelState, action: str, label: str, help: str, tone: str = "plain") -> Widget:
    return Widget("button", label, action=("act", action), enabled=state.can(action), help=help, tone=tone)
