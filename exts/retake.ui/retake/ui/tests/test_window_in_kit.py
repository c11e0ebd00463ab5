# SPDX-License-Identifier: Apache-2.0
"""The panel in a real Kit: it opens, shows every section, survives updates, and closes without a trace."""

from __future__ import annotations

import omni.kit.app  # type: ignore[import-not-found]
import omni.kit.test  # type: ignore[import-not-found]
import omni.ui as ui  # type: ignore[import-not-found]
import omni.usd  # type: ignore[import-not-found]

from retake.ui.extension import NAME, RetakeUiExtension


class TestWindow(omni.kit.test.AsyncTestCase):
    """Opens the window on an empty stage."""

    async def test_opens_updates_and_closes(self) -> None:
        """No exception in a hundred updates, and the stage stays as it was."""
        context = omni.usd.get_context()
        await context.new_stage_async()
        before = context.get_stage().GetRootLayer().ExportToString()
        extension = RetakeUiExtension()
        extension.on_startup("retake.ui-test")
        extension.show()
        for _ in range(100):
            await omni.kit.app.get_app().next_update_async()
        window = ui.Workspace.get_window(NAME)
        assert window is not None
        assert extension._panel is not None
        extension.on_shutdown()
        assert before == context.get_stage().GetRootLayer().ExportToString()
