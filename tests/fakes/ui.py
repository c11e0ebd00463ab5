# SPDX-License-Identifier: Apache-2.0
"""A fake omni.ui: remembers what was built, lets a test press buttons, and knows only the widgets in the facts."""

from __future__ import annotations

import sys
from types import SimpleNamespace, TracebackType
from typing import Any

from fakes.strict import facts


class Model:
    """A value model."""

    def __init__(self) -> None:
        self.value: Any = None
        self.changed: list[Any] = []
        self.begun: list[Any] = []
        self.typing: list[Any] = []

    def set_value(self, value: Any) -> None:
        """Store."""
        self.value = value

    def get_value_as_bool(self) -> bool:
        """As omni.ui."""
        return bool(self.value)

    def get_value_as_string(self) -> str:
        """As omni.ui."""
        return str(self.value)

    def get_value_as_float(self) -> float:
        """As omni.ui."""
        return float(self.value)

    def get_item_value_model(self) -> Any:
        """As omni.ui: the index of a combo box."""
        return SimpleNamespace(as_int=self.value)

    def add_value_changed_fn(self, call: Any) -> None:
        """Remember; a field has an end of its edit as well."""
        (self.typing if self.begun else self.changed).append(call)

    def add_begin_edit_fn(self, call: Any) -> None:
        """Remember."""
        self.begun.append(call)

    def type(self, value: Any) -> None:
        """Type into a field, without leaving it."""
        for call in self.begun:
            call(self)
        self.value = value
        for call in self.typing:
            call(self)

    def leave(self) -> None:
        """End the edit."""
        for call in self.changed:
            call(self)

    def add_end_edit_fn(self, call: Any) -> None:
        """Remember."""
        self.changed.append(call)

    def add_item_changed_fn(self, call: Any) -> None:
        """Remember."""
        self.changed.append(lambda model: call(model, None))


class Node:
    """Any widget."""

    def __init__(self, ui: FakeUi, kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.ui, self.kind, self.args, self.kwargs = ui, kind, args, kwargs
        self.children: list[Node] = []
        self.model = Model()
        if kind == "ComboBox":
            self.model.value = args[0]
        self.clicked: Any = None
        self.build: Any = None
        self.bytes: tuple[int, Any] | None = None
        self._visible = True
        self.docked_in: tuple[str, Any] | None = None
        self.visibility: Any = None
        self.destroyed = False
        if ui.stack:
            ui.stack[-1].children.append(self)
        if kind == "Window":
            self.frame = Node(ui, "Frame", (), {})
            ui.windows.append(self)

    def __enter__(self) -> Node:
        self.ui.stack.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ui.stack.pop()

    def set_build_fn(self, build: Any) -> None:
        """Build later, as Kit does."""
        self.build = build

    def rebuild(self) -> None:
        """Build again."""
        self.children.clear()
        self.ui.rebuilds += 1
        with self:
            self.build()
        for child in list(self.children):
            child.realise()

    def realise(self) -> None:
        """Call pending build functions below."""
        if self.build is not None and not self.children:
            self.rebuild()
        for child in list(self.children):
            child.realise()

    def set_clicked_fn(self, call: Any) -> None:
        """Remember."""
        self.clicked = call

    @property
    def visible(self) -> bool:
        """Of a window."""
        return self._visible

    @visible.setter
    def visible(self, value: bool) -> None:
        before, self._visible = self._visible, value
        if value != before and self.visibility is not None:
            self.visibility(value)
        if value:
            getattr(self, "frame", self).realise()

    def set_visibility_changed_listener(self, call: Any) -> None:
        """MenuHelperWindow's: who is told."""
        self.visibility = call

    def deferred_dock_in(self, target: str, policy: Any) -> None:
        """Where a window belongs."""
        self.docked_in = (target, policy)

    def set_bytes_data(self, data: Any, size: list[int]) -> None:
        """A picture: a flat list of ints in every omni.ui, a buffer where it takes one."""
        if not isinstance(data, list) and not self.ui.takes_buffers:
            raise TypeError("set_bytes_data(): incompatible function arguments")
        assert len(data) == size[0] * size[1] * 4
        self.ui.spent += self.ui.picture_s * len(data)
        self.bytes = (size[0], list(data[:4]))

    def destroy(self) -> None:
        """Gone."""
        self.destroyed = True
        self.ui.windows.remove(self)

    def all(self, kind: str) -> list[Node]:
        """Widgets of a kind below this one."""
        found = [self] if self.kind == kind else []
        for child in self.children:
            found += child.all(kind)
        return found


class FakeUi:
    """Put in place of omni.ui, omni.ext and the menu."""

    def __init__(self, version: str = "6.x") -> None:
        self.version = version
        self.stack: list[Node] = []
        self.windows: list[Node] = []
        self.menu: list[Any] = []
        self.rebuilds = 0
        self.providers: list[Node] = []
        self.takes_buffers = True
        self.spent, self.picture_s = 0.0, 0.0
        """Main-thread time of pictures so far, and per byte, s."""
        self.dialogs: list[Any] = []
        self.show: dict[str, Any] = {}
        """Window name -> what shows it (layouts and the menu call it)."""

    def install(self) -> None:
        """Into sys.modules (beside a FakeKit, which removes them again)."""
        known = facts(self.version)
        ui = SimpleNamespace()
        for name in known:
            if name.startswith("omni.ui."):
                kind = name.rsplit(".", 1)[-1]

                def make(*args: Any, kind: str = kind, **kwargs: Any) -> Node:
                    node = Node(self, kind, args, kwargs)
                    if kind == "ByteImageProvider":
                        self.providers.append(node)
                    return node

                setattr(ui, kind, make)
        ui.DockPolicy = SimpleNamespace(DO_NOTHING="do nothing")
        ui.Workspace = SimpleNamespace(
            set_show_window_fn=self._set_show, show_window=lambda name, on=True: self.show[name](on)
        )
        menu = SimpleNamespace(
            MenuHelperExtensionFull=menu_helper(self),
            MenuHelperWindow=lambda title, **kwargs: Node(self, "Window", (title,), kwargs),
        )
        sys.modules["omni.ui"] = ui  # type: ignore[assignment]
        sys.modules["omni.ext"] = SimpleNamespace(IExt=type("IExt", (), {}))  # type: ignore[assignment]
        sys.modules["omni.kit.menu.utils"] = menu  # type: ignore[assignment]
        fake = self

        class FilePickerDialog:
            """Kit's file dialog: what it was asked for, and buttons for a test to press."""

            def __init__(self, title: str, **kwargs: Any) -> None:
                self.title, self.kwargs, self.hidden = title, kwargs, False
                fake.dialogs.append(self)

            def hide(self) -> None:
                """Gone."""
                self.hidden = True

        sys.modules["omni.kit.window.filepicker"] = SimpleNamespace(FilePickerDialog=FilePickerDialog)  # type: ignore[assignment]
        if "omni" in sys.modules:
            sys.modules["omni"].__dict__.update(ui=ui, ext=sys.modules["omni.ext"])

    def _set_show(self, name: str, call: Any) -> None:
        if call is None:
            del self.show[name]
        else:
            self.show[name] = call


def menu_helper(fake: FakeUi) -> type:
    """Kit's MenuHelperExtensionFull as far as it can be seen from outside (omni.kit.menu.utils, extension_window_helper.py):
    a menu entry that toggles, a show function for layouts, a new window at each showing, destruction of the hidden one."""

    class MenuHelperExtensionFull:
        """Mixed into an extension."""

        def menu_startup(
            self, create_window_fn: Any, window_name: str, menu_desc: str, menu_group: str, window_attr_name: Any = None,
            verbose: bool = False,
        ) -> int:  # fmt: skip
            """Register menu entry and show function."""
            self._helper = (create_window_fn, window_name)
            self._helper_window: Any = None
            self._helper_entry = SimpleNamespace(name=f"{menu_group}/{menu_desc}", toggle=self._toggle)
            fake.menu.append(self._helper_entry)
            sys.modules["omni.ui"].Workspace.set_show_window_fn(window_name, self.show_window)
            return 0

        def _toggle(self) -> None:
            self.show_window(self._helper_window is None or not self._helper_window.visible)

        def show_window(self, value: bool) -> None:
            """Show or hide; each showing makes a window."""
            if value:
                window = self._helper[0]()
                window._visible = False
                window.set_visibility_changed_listener(self._changed)
                self._helper_window = window
                window.visible = True
            elif self._helper_window is not None:
                self._helper_window.visible = False

        def _changed(self, visible: bool) -> None:
            if not visible:
                self._helper_window.destroy()
                self._helper_window = None

        def menu_shutdown(self) -> bool:
            """Take it all back."""
            fake.menu.remove(self._helper_entry)
            sys.modules["omni.ui"].Workspace.set_show_window_fn(self._helper[1], None)
            if self._helper_window is not None:
                self._helper_window.destroy()
                self._helper_window = None
            return True

    return MenuHelperExtensionFull
