# SPDX-License-Identifier: Apache-2.0
"""omni.replicator.core: writers, render products, the orchestrator, and the randomisers as far as examples use them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fakes.kit import FakeKit


def add_replicator(kit: FakeKit, module: Any, strict: Any) -> None:
    """omni.replicator.core: writers, render products, the orchestrator."""

    class Product:
        """A HydraTexture."""

        def __init__(self, camera: str, resolution: tuple[int, int], name: str) -> None:
            self.camera, self.resolution = camera, resolution
            self.path = f"/Render/OmniverseKit/HydraTextures/{name}"
            kit.products.append(self)

        def destroy(self) -> None:
            """Gone."""
            kit.products.remove(self)

    handles: dict[int, Any] = {}

    def render_product(
        camera: str,
        resolution: tuple[int, int],
        force_new: bool = False,
        name: str | None = None,
        render_vars: Any = None,
    ) -> Any:
        assert isinstance(camera, str)
        product = Product(camera, resolution, name or f"Replicator_{len(kit.products)}")
        handle = strict("omni.replicator.core.HydraTexture", product)
        handles[id(handle)] = handle
        return handle

    class Writer:
        """The base class of writers."""

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            instance = super().__new__(cls)
            instance.annotators, instance.num_written = [], 0
            return instance

        def initialize(self, **kwargs: Any) -> None:
            """Run __init__ again."""
            self.__init__(**kwargs)

        def attach(self, render_products: Any, trigger: Any = "omni.replicator.core.OgnOnFrame") -> None:
            """Find the products by path."""
            assert self.data_structure == "renderProduct"
            many = render_products if isinstance(render_products, list) else [render_products]
            paths = [p if isinstance(p, str) else p.path for p in many]
            kit.writers.append((self, [p for p in kit.products if p.path in paths]))
            kit.replicator_owns(True)

        def detach(self) -> None:
            """No more frames."""
            if kit.in_update and kit.options.refuses_detach_in_update:
                raise RuntimeError("a writer cannot be detached while its graph is evaluated")
            kit.writers[:] = [entry for entry in kit.writers if entry[0] is not self]
            kit.replicator_owns(bool(kit.writers))

        def on_final_frame(self) -> None:
            """Nothing."""

        def write_metadata(self) -> None:
            """Nothing."""

    def register(writer: Any, category: str | None = None) -> None:
        kit.registry[writer.__name__] = writer

    def unregister(writer_name: str) -> None:
        del kit.registry[writer_name]

    def get(name: str, init_params: Any = None, render_products: Any = None, trigger: Any = None) -> Any:
        cls = kit.registry[name]
        return cls.__new__(cls)  # as Replicator does: __init__ has not run

    async def step_async(
        rt_subframes: int = -1, pause_timeline: bool = True, delta_time: Any = None, wait_for_render: bool = True
    ) -> None:
        if pause_timeline:
            kit.pause()
        kit.commit()
        kit.update_number += 1
        kit.render(row=kit.options.held_shows(kit.row) if kit.options.held_shows else None)
        kit.wanted.add(kit.update_number)
        marked = kit.pipeline[-1]
        while marked in kit.pipeline:
            if delta_time == 0.0:
                kit.update_without_physics()
            else:
                kit.update()

    def set_capture_on_play(value: bool) -> None:
        kit.settings["/omni/replicator/captureOnPlay"] = value

    def step(
        rt_subframes: int = -1, pause_timeline: bool = True, delta_time: Any = None, wait_for_render: bool = True
    ) -> None:
        """What a standalone script calls; the same render without a loop to await on."""
        work = step_async(rt_subframes, pause_timeline, delta_time, wait_for_render)
        try:
            work.send(None)
        except StopIteration:
            return
        raise AssertionError("the fake's step_async awaits nothing")

    async def wait_until_complete_async() -> None:
        while kit.pipeline:
            kit.update()

    class Node:
        """A node of a randomisation graph."""

        def __enter__(self) -> None:
            """Inside it, randomisers act on its prims."""

        def __exit__(self, *unused: object) -> None:
            """Done."""

    def noted(what: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            kit.events.append((what, (args, kwargs)))
            return Node()

        return call

    graph = {
        group: strict(f"omni.replicator.core.{group}", SimpleNamespace(**{name: noted(f"{group}.{name}")}))
        for group, name in (
            ("get", "prims"), ("trigger", "on_custom_event"), ("randomizer", "color"), ("distribution", "uniform"),
            ("utils", "send_og_event"),
        )
    }  # fmt: skip

    def get_annotator(
        name: str,
        init_params: Any = None,
        render_product_idxs: Any = None,
        device: Any = None,
        do_array_copy: bool = True,
    ) -> str:
        if name.endswith("_fast") and kit.version not in ("5.1", "6.x"):
            raise RuntimeError(f"annotator {name} is not registered")
        return name

    annotators = SimpleNamespace(get_annotator=get_annotator)
    registry = SimpleNamespace(register=register, unregister=unregister, get=get)
    module(
        "omni.replicator.core",
        SimpleNamespace(),
        **graph,
        Writer=Writer,
        WriterRegistry=strict("omni.replicator.core.WriterRegistry", registry),
        AnnotatorRegistry=strict("omni.replicator.core.AnnotatorRegistry", annotators),
        create=strict("omni.replicator.core.create", SimpleNamespace(render_product=render_product)),
        orchestrator=strict(
            "omni.replicator.core.orchestrator",
            SimpleNamespace(
                step_async=step_async,
                step=step,
                set_capture_on_play=set_capture_on_play,
                wait_until_complete_async=wait_until_complete_async,
            ),
        ),
    )
