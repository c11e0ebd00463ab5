# SPDX-License-Identifier: Apache-2.0
"""The layout as omni.ui widgets. No decisions: a section is rebuilt when its description changed, and that is all.

A field that is being edited is left alone: its section is rebuilt once the edit ends. Should Kit rebuild it all the same,
the text typed so far is put back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import omni.ui as ui  # type: ignore[import-not-found]

from retake.ui.layout import build_layout
from retake.ui.view_model import ViewModel
from retake.ui.widgets import Row, Section, Widget

COLOURS = {"plain": 0xFFCCCCCC, "good": 0xFF66CC66, "warning": 0xFF33BBEE, "error": 0xFF4444EE, "primary": 0xFFEEBB66}
"""ABGR, as omni.ui counts."""
PICTURE = (480, 360)
PICTURE_MS = 2.0
"""Of the main thread, for one picture: what costs more is shown smaller from the next one on."""
COARSEST = 8
LIST_WIDTH = 160
"""px: of pictures where omni.ui takes nothing but a list of ints, which costs some 20 ns of the main thread each."""


class Panel:
    """Shows a view-model in a frame. `tick` is called once per update while the window is visible."""

    def __init__(self, model: ViewModel, picture: Any, now: Callable[[], float] = time.perf_counter) -> None:
        self._model, self._picture, self._now = model, picture, now
        self._frames: dict[str, Any] = {}
        self._shown: dict[str, Section] = {}
        self._state: Any = None
        self._typed: dict[tuple[str, ...], Any] = {}
        """Action of a field -> what is typed into it, while it is edited."""
        self._editing: dict[str, int] = {}
        """Title of a section -> fields of it that are edited."""
        self._provider: Any = None
        self._takes_buffers, self._step = True, 1
        self._picture_index = -1

    def build(self) -> None:
        """Make the widgets (the window's build function)."""
        self._frames, self._editing, self._provider, self._picture_index = {}, {}, None, -1
        with ui.ScrollingFrame(), ui.VStack(spacing=4):
            for section in build_layout(self._model.state):
                with ui.CollapsableFrame(section.title, collapsed=not section.open, height=0):
                    frame = ui.Frame(height=0)
                    frame.set_build_fn(lambda title=section.title: self._build_section(title))
                    self._frames[section.title] = frame
                self._shown[section.title] = section

    def tick(self) -> None:
        """Let the model look at the world, then show what changed."""
        self._model.tick()
        if self._model.state is not self._state:
            self._state = self._model.state
            layout = build_layout(self._state)
            for section in layout:
                if self._shown.get(section.title) == section:
                    continue
                if self._editing.get(section.title):
                    self._state = None  # looked at again: the rebuild waits for the end of the edit
                    continue
                self._shown[section.title] = section
                if section.title in self._frames:
                    self._frames[section.title].rebuild()
        self._show_picture()

    def _build_section(self, title: str) -> None:
        self._editing.pop(title, None)
        with ui.VStack(spacing=3, height=0):
            for row in self._shown[title].rows:
                self._build_row(row, title)

    def _build_row(self, row: Row, title: str) -> None:
        with ui.HStack(spacing=6, height=0):
            for widget in row.widgets:
                self._build_widget(widget, title)

    def _build_widget(self, widget: Widget, title: str) -> None:
        style = {"color": COLOURS[widget.tone]}
        width = {"width": widget.width} if widget.width else {}
        if widget.kind == "text":
            ui.Label(widget.label, word_wrap=True, tooltip=widget.help, style=style, **width)
        elif widget.kind == "button":
            button = ui.Button(
                widget.label, enabled=widget.enabled, tooltip=widget.help, style=style, height=26, **width
            )
            button.set_clicked_fn(lambda: self._model.act(widget.action[1]))
        elif widget.kind == "check":
            box = ui.CheckBox(width=22, tooltip=widget.help, enabled=widget.enabled)
            box.model.set_value(bool(widget.value))
            box.model.add_value_changed_fn(lambda m: self._change(widget, m.get_value_as_bool()))
            ui.Label(widget.label, tooltip=widget.help, style=style)
        elif widget.kind == "field":
            ui.Label(widget.label, width=70)
            field = ui.StringField(enabled=widget.enabled, tooltip=widget.help, height=22)
            self._edit(field.model, widget, title, str, lambda m: m.get_value_as_string())
        elif widget.kind == "number":
            ui.Label(widget.label, width=0)
            number = ui.FloatField(enabled=widget.enabled, tooltip=widget.help, height=22)
            self._edit(number.model, widget, title, float, lambda m: m.get_value_as_float())
        elif widget.kind == "combo":
            ui.Label(widget.label, width=0)
            combo = ui.ComboBox(
                widget.options.index(widget.value),
                *widget.options,
                tooltip=widget.help,
                height=22,
                enabled=widget.enabled,
            )
            combo.model.add_item_changed_fn(
                lambda m, item: self._change(widget, widget.options[m.get_item_value_model().as_int])
            )
        elif widget.kind == "progress":
            with ui.VStack(height=0):
                ui.Label(widget.label, style=style)
                ui.ProgressBar(height=14).model.set_value(float(widget.value))
        else:
            with ui.VStack(height=0):
                self._provider = self._provider or ui.ByteImageProvider()
                ui.ImageWithProvider(self._provider, height=PICTURE[1])
                ui.Label(widget.label, style=style)

    def _edit(self, model: Any, widget: Widget, title: str, kind: Any, read: Any) -> None:
        """A field that remembers what is typed until the edit ends."""
        key = widget.action
        model.set_value(self._typed.get(key, kind(widget.value)))
        if key in self._typed:  # rebuilt in the middle of an edit
            self._editing[title] = self._editing.get(title, 0) + 1

        def begin(m: Any) -> None:
            if key not in self._typed:
                self._editing[title] = self._editing.get(title, 0) + 1
            self._typed[key] = read(m)

        def change(m: Any) -> None:
            if key in self._typed:
                self._typed[key] = read(m)

        def end(m: Any) -> None:
            if self._typed.pop(key, None) is not None:
                self._editing[title] = max(0, self._editing.get(title, 0) - 1)
            self._change(widget, read(m))

        model.add_begin_edit_fn(begin)
        model.add_value_changed_fn(change)
        model.add_end_edit_fn(end)

    def _change(self, widget: Widget, value: Any) -> None:
        """The user changed a widget's value."""
        kind = widget.action[0]
        if kind == "set":
            self._model.set(widget.action[1], value)
        elif kind == "camera":
            self._model.set_camera(widget.action[1], widget.action[2], value)
        else:
            self._model.choose(widget.action[1], widget.action[2], value)

    def _show_picture(self) -> None:
        """The newest picture, at a size that costs the main thread no more than PICTURE_MS."""
        newest = self._picture.newest
        if newest is None or newest.index == self._picture_index or self._provider is None:
            return
        self._picture_index = newest.index
        began = self._now()
        self._set_picture(np.ascontiguousarray(newest.rgba[:: self._step, :: self._step]))
        if 1e3 * (self._now() - began) > PICTURE_MS:
            self._step = min(2 * self._step, COARSEST)

    def _set_picture(self, rgba: np.ndarray[Any, Any]) -> None:
        size = [rgba.shape[1], rgba.shape[0]]
        if hasattr(self._provider, "set_data_array"):
            self._provider.set_data_array(rgba, size)
            return
        if self._takes_buffers:
            try:
                # A view of the pixels, as Isaac Lab's image plots pass it: nothing is copied in Python.
                self._provider.set_bytes_data(rgba.reshape(-1).data, size)
                return
            except TypeError:
                self._takes_buffers = False
        step = -(-rgba.shape[1] // LIST_WIDTH)
        small = rgba[::step, ::step]
        self._provider.set_bytes_data(small.reshape(-1).tolist(), [small.shape[1], small.shape[0]])
