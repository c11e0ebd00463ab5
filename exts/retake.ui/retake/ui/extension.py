# SPDX-License-Identifier: Apache-2.0
"""Kit's entry: a window behind the menu Tools > Replicator > Retake, beside NVIDIA's recorders and docked like them.

Menu, layouts (`Workspace.set_show_window_fn`) and showing come from Kit's own MenuHelperExtensionFull, which makes a new
window each time it is shown and destroys the one that is hidden. State and recordings live in the view-model and stay.
"""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import omni.ext  # type: ignore[import-not-found]
import omni.ui as ui  # type: ignore[import-not-found]
from omni.kit.menu.utils import (  # type: ignore[import-not-found]
    MenuHelperExtensionFull,
    MenuHelperWindow,
)

from retake.core.config import VariantsConfig
from retake.core.errors import InputError
from retake.core.files import user_path
from retake.core.variants.prompts import Prompts, compose_prompts
from retake.core.variants.worlds import load_catalogue
from retake.isaac import kit, options, ticks
from retake.isaac.preview import Preview
from retake.isaac.request import CaptureRequest
from retake.ui.kit_ports import KitStarter, WorkerLink
from retake.ui.kit_scene import StageScene
from retake.ui.panel import Panel
from retake.ui.state import Choice, Level, Notice
from retake.ui.view_model import ViewModel

NAME, MENU, BESIDE = "Retake", "Tools/Replicator", "Property"
SIZE = (560, 900)
PRESETS = VariantsConfig().presets
log = logging.getLogger(__name__)


class RetakeUiExtension(omni.ext.IExt, MenuHelperExtensionFull):
    """The panel."""

    def on_startup(self, ext_id: str) -> None:
        """Menu entry; the window is built when it is first shown, by the menu, a layout or the setting `open`."""
        self._panel: Panel | None = None
        self._model: ViewModel | None = None
        self._scene: StageScene | None = None
        self._link: WorkerLink | None = None
        self._picture = Preview()
        self._shown: Any = None
        self._update: ticks.Subscription | None = None
        self.menu_startup(self.make_window, NAME, NAME, MENU)
        if kit.require("carb.settings").get_settings().get("/exts/retake.ui/open"):
            ui.Workspace.show_window(NAME, True)

    def make_window(self) -> Any:
        """The window, docked beside Property; what the panel knew is still there."""
        if self._model is None:
            self._start()
        assert self._model is not None
        self._panel = Panel(self._model, self._picture)
        self._shown = window = MenuHelperWindow(NAME, width=SIZE[0], height=SIZE[1])
        window.deferred_dock_in(BESIDE, ui.DockPolicy.DO_NOTHING)
        window.frame.set_build_fn(self._panel.build)
        return window

    def on_shutdown(self) -> None:
        """Complete what is being recorded and take everything back."""
        if self._update is not None:
            self._update.release()
        if self._model is not None:
            self._model.shut_down()
        for part in (self._scene, self._link):
            if part is not None:
                part.close()
        self.menu_shutdown()
        self._panel = self._model = self._scene = self._link = self._update = self._shown = None

    def _start(self) -> None:
        """The model and what it talks to, at the first showing."""
        settings, problem = request_and_problem()
        runs = user_path(settings.output).parent if settings.output else Path.home() / "retake_runs"
        self._scene, self._link = StageScene(), WorkerLink(runs)
        self._model = ViewModel(
            self._scene, KitStarter(self._picture), self._link, picture=self._picture, notify=notify, runs=runs,
            worlds=worlds(), settings=settings,
        )  # fmt: skip
        if problem:
            self._model.tell(Level.ERROR, problem)
        self._update = ticks.on_update(self._tick)

    def _tick(self) -> None:
        """Nothing while the window is hidden, but for what is under way."""
        visible = is_on_screen(self._shown)
        if self._link is not None:
            self._link.watched = visible
        try:
            if visible and self._panel is not None:
                self._panel.tick()
            elif self._model is not None and self._model.busy:
                self._model.tick()
        except Exception:  # a panel must never take the simulation with it
            log.exception("the Retake panel failed; it stops updating")
            self._panel = None


def request_and_problem() -> tuple[CaptureRequest, str]:
    """(what the panel starts from, what is wrong with the settings)."""
    try:
        given = options.request_from_settings()
        given.check_values()
        user_path(given.output)
        return given, ""
    except InputError as error:
        return CaptureRequest(), f"{error}; the panel starts from the defaults"


def is_on_screen(window: Any) -> bool:
    """Whether a window is on the screen: not hidden, and not a tab behind another one."""
    if not getattr(window, "visible", False):
        return False
    return not getattr(window, "docked", False) or bool(getattr(window, "selected_in_dock", True))


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
