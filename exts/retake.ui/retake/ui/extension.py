# SPDX-License-Identifier: Apache-2.0
"""Kit's entry: a window behind the menu Tools > Retake. The view-model decides, this file only connects."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import omni.ext  # type: ignore[import-not-found]
import omni.ui as ui  # type: ignore[import-not-found]

from retake.core.config import VariantsConfig
from retake.core.variants.prompts import Prompts, compose_prompts
from retake.core.variants.worlds import load_catalogue
from retake.isaac import kit, ticks
from retake.isaac.preview import Preview
from retake.ui.kit_ports import KitStarter, StageScene, WorkerLink
from retake.ui.panel import Panel
from retake.ui.state import Choice, Level, Notice
from retake.ui.view_model import ViewModel

NAME, MENU = "Retake", "Tools"
PRESETS = VariantsConfig().presets
log = logging.getLogger(__name__)


class RetakeUiExtension(omni.ext.IExt):
    """The panel."""

    def on_startup(self, ext_id: str) -> None:
        """Menu entry; the window is built when it is first shown."""
        self._window: Any = None
        self._panel: Panel | None = None
        self._model: ViewModel | None = None
        self._link: WorkerLink | None = None
        self._update: ticks.Subscription | None = None
        menu = kit.require("omni.kit.menu.utils")
        self._items = [menu.MenuItemDescription(name=NAME, onclick_fn=self.show)]
        menu.add_menu_items(self._items, MENU)
        if kit.require("carb.settings").get_settings().get("/exts/retake.ui/open"):
            self.show()

    def show(self, *unused: Any) -> None:
        """Open the window."""
        if self._window is not None:
            self._window.visible = True
            return
        runs = Path.home() / "retake_runs"
        preview, self._link = Preview(), WorkerLink(runs)
        self._model = ViewModel(
            StageScene(), KitStarter(preview), self._link, picture=preview, notify=notify, runs=runs, worlds=worlds()
        )
        self._panel = Panel(self._model, preview)
        self._window = ui.Window(NAME, width=560, height=900)
        self._window.frame.set_build_fn(self._panel.build)
        self._update = ticks.on_update(self._tick)

    def on_shutdown(self) -> None:
        """Complete what is being recorded and take everything back."""
        if self._update is not None:
            self._update.release()
        if self._model is not None:
            self._model.shut_down()
        if self._link is not None:
            self._link.close()
        if self._window is not None:
            self._window.destroy()
        kit.require("omni.kit.menu.utils").remove_menu_items(self._items, MENU)
        self._window = self._panel = self._model = self._link = self._update = None

    def _tick(self) -> None:
        if self._panel is not None:
            try:
                self._panel.tick()
            except Exception:  # a panel must never take the simulation with it
                log.exception("the Retake panel failed; it stops updating")
                self._panel = None


def worlds() -> tuple[Choice, ...]:
    """World presets, the standard three chosen; the detail is the prompt of their scene."""
    catalogue = load_catalogue()
    names = sorted(catalogue.sections["presets"])
    nothing: Any = SimpleNamespace(task="", objects=())  # no episode yet: the task's sentence is left out
    ordered = [n for n in PRESETS if n in names] + [n for n in names if n not in PRESETS]
    return tuple(
        Choice(
            name, name.replace("_", " "), name in PRESETS, scene_words(compose_prompts(nothing, catalogue.preset(name)))
        )
        for name in ordered
    )


def scene_words(prompts: Prompts) -> str:
    """A world's prompt without the task's sentence."""
    return prompts.take.partition(". ")[2]


def notify(notice: Notice) -> None:
    """Kit's notification in the corner of the window."""
    manager = kit.optional("omni.kit.notification_manager")
    if manager is None:
        log.info("%s", notice.text)
        return
    warning = notice.level is not Level.INFO
    status = manager.NotificationStatus.WARNING if warning else manager.NotificationStatus.INFO
    manager.post_notification(notice.text, hide_after_timeout=not warning, duration=5, status=status)
