# SPDX-License-Identifier: Apache-2.0
"""The layout as omni.ui widgets. No decisions: a section is rebuilt when its description changed, and that is all."""

from __future__ import annotations

from typing import Any

import omni.ui as ui  # type: ignore[import-not-found]

from retake.ui.layout import Row, Section, Widget, build_layout
from retake.ui.view_model import ViewModel

COLOURS = {"plain": 0xFFCCCCCC, "good": 0xFF66CC66, "warning": 0xFF33BBEE, "error": 0xFF4444EE, "primary": 0xFFEEBB66}
"""ABGR, as omni.ui counts."""
PICTURE = (480, 360)


class Panel:
    """Shows a view-model in a frame. `tick` is called once per update."""

    def __init__(self, model: ViewModel, picture: Any) -> None:
        self._model, self._picture = model, picture
        self._frames: dict[str, Any] = {}
        self._shown: dict[str, Section] = {}
        self._provider: Any = None
        self._picture_index = -1

    def build(self) -> None:
        """Make the widgets (the window's build function)."""
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
        for section in build_layout(self._model.state):
            if self._shown.get(section.title) != section:
                self._shown[section.title] = section
                if section.title in self._frames:
                    self._frames[section.title].rebuild()
        self._show_picture()

    def _build_section(self, title: str) -> None:
        with ui.VStack(spacing=3, height=0):
            for row in self._shown[title].rows:
                self._build_row(row)

    def _build_row(self, row: Row) -> None:
        with ui.HStack(spacing=6, height=0):
            for widget in row.widgets:
                self._build_widget(widget)

    def _build_widget(self, widget: Widget) -> None:
        style = {"color": COLOURS[widget.tone]}
        if widget.kind == "text":
            ui.Label(widget.label, word_wrap=True, tooltip=widget.help, style=style)
        elif widget.kind == "button":
            button = ui.Button(widget.label, enabled=widget.enabled, tooltip=widget.help, style=style, height=26)
            button.set_clicked_fn(lambda: self._model.act(widget.action[1]))
        elif widget.kind == "check":
            box = ui.CheckBox(width=22, tooltip=widget.help)
            box.model.set_value(bool(widget.value))
            box.model.add_value_changed_fn(lambda m: self._tick_box(widget, m.get_value_as_bool()))
            ui.Label(widget.label, tooltip=widget.help, style=style)
        elif widget.kind == "field":
            ui.Label(widget.label, width=70)
            field = ui.StringField(enabled=widget.enabled, tooltip=widget.help, height=22)
            field.model.set_value(str(widget.value))
            field.model.add_end_edit_fn(lambda m: self._model.set(widget.action[1], m.get_value_as_string()))
        elif widget.kind == "number":
            ui.Label(widget.label, width=0)
            number = ui.FloatField(enabled=widget.enabled, tooltip=widget.help, height=22)
            number.model.set_value(float(widget.value))
            number.model.add_end_edit_fn(lambda m: self._model.set(widget.action[1], m.get_value_as_float()))
        elif widget.kind == "combo":
            ui.Label(widget.label, width=0)
            combo = ui.ComboBox(widget.options.index(widget.value), *widget.options, tooltip=widget.help, height=22)
            combo.model.add_item_changed_fn(
                lambda m, item: self._model.set(widget.action[1], widget.options[m.get_item_value_model().as_int])
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

    def _tick_box(self, widget: Widget, on: bool) -> None:
        if widget.action[0] == "set":
            self._model.set(widget.action[1], on)
        else:
            self._model.choose(widget.action[1], widget.action[2], on)

    def _show_picture(self) -> None:
        newest = self._picture.newest
        if newest is None or newest.index == self._picture_index or self._provider is None:
            return
        self._picture_index = newest.index
        height, width = newest.rgba.shape[:2]
        # A flat list of ints is the one form NVIDIA's own extensions pass.
        self._provider.set_bytes_data(newest.rgba.reshape(-1).tolist(), [width, height])
