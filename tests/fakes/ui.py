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
        """Remember."""
        self.changed.append(call)

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
        self.bytes: tuple[int, list[int]] | None = None
        self.visible = True
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

    def set_bytes_data(self, data: list[int], size: list[int]) -> None:
        """A picture as a flat list of ints."""
        assert isinstance(data, list)
        assert len(data) == size[0] * size[1] * 4
        self.bytes = (size[0], data[:4])

    def destroy(self) -> None:
        """Gone."""
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
        menu = SimpleNamespace(
            MenuItemDescription=lambda **kwargs: SimpleNamespace(**kwargs),
            add_menu_items=lambda items, name: self.menu.extend(items),
            remove_menu_items=lambda items, name: [self.menu.remove(item) for item in items],
        )
        sys.modules["omni.ui"] = ui  # type: ignore[assignment]
        sys.modules["omni.ext"] = SimpleNamespace(IExt=type("IExt", (), {}))  # type: ignore[assignment]
        sys.modules["omni.kit.menu.utils"] = menu  # type: ignore[assignment]
        if "omni" in sys.modules:
            sys.modules["omni"].__dict__.update(ui=ui, ext=sys.modules["omni.ext"])
