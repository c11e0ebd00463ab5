# SPDX-License-Identifier: Apache-2.0
"""The panel in a real Kit: it opens, shows every section, survives updates, and closes without a trace."""

from __future__ import annotations

import omni.kit.app  # type: ignore[import-not-found]
import omni.kit.test  # type: ignore[import-not-found]
import omni.ui as ui  # type: ignore[import-not-found]
import omni.usd  # type: ignore[import-not-found]

from retake.ui.extension import NAME, RetakeUiExtension
from retake.ui.kit_scene import StageScene


class TestWindow(omni.kit.test.AsyncTestCase):
    """Opens the window on an empty stage, and on the demo."""

    async def test_the_demo_stage_is_found_with_its_defaults(self) -> None:
        """kit_scene.py, kit_ports.py, view_model.py, folders.py, choices.py: the demo's robot, camera and objects are chosen."""
        scene = StageScene()
        scene.open_demo()
        for _ in range(120):
            await omni.kit.app.get_app().next_update_async()
        content = scene.look()
        assert content.demo, content.problem
        assert [c.key for c in content.cameras if c.chosen] == ["/World/Camera"]
        assert len(content.robots) == 1

    async def test_opens_updates_and_closes(self) -> None:
        """extension.py, panel.py: no exception in a hundred updates, and the stage stays as it was."""
        context = omni.usd.get_context()
        await context.new_stage_async()
        before = context.get_stage().GetRootLayer().ExportToString()
        extension = RetakeUiExtension()
        extension.on_startup("retake.ui-test")
        for shown in (True, False, True):  # as a layout does
            ui.Workspace.show_window(NAME, shown)
            for _ in range(50):
                await omni.kit.app.get_app().next_update_async()
        window = ui.Workspace.get_window(NAME)
        assert window is not None
        assert window.docked
        assert extension._panel is not None
        extension.on_shutdown()
        assert before == context.get_stage().GetRootLayer().ExportToString()
