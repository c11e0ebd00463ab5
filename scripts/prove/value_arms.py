# SPDX-License-Identifier: Apache-2.0
"""The arms of the value experiment: ways to train a probe that are compared, each by its data sets and options."""

from __future__ import annotations

from dataclasses import dataclass

from value_data import MASKED, OWN_SHAPES, Sizes


@dataclass(frozen=True)
class Arm:
    """One way to train, on the same number of steps."""

    name: str
    packs: tuple[str, ...]
    options: tuple[str, ...] = ()
    competes: bool = True
    """Controls and the oracle do not, nor do arms that were thought of when results had been seen."""

    @property
    def with_takes(self) -> bool:
        """Whether it is trained on takes."""
        return self.name.startswith("takes")


def arms(sizes: Sizes) -> tuple[Arm, ...]:
    """What is compared. `takes…`: half simulated, half takes. Two more ask what costs the most worlds their successes in the
    simulator's own look: too few steps for so many looks, or too little of the simulator's. Two whether takes and random
    textures, on both halves, add up, at equal and at twice the steps, one whether more worlds teach more, and one whether takes
    teach more whose objects keep their shape (a papaya does not show how the packet in its place is turned)."""
    half, many = ("--shares", "1", "1"), f"takes{sizes.worlds[-1]}"
    longer = (*half, "--steps", str(2 * sizes.steps))
    return (
        Arm("simulated", ("simulated",)),
        Arm("jitter", ("simulated",), ("--augment", "jitter")),
        Arm("textures", ("masked",), ("--augment", "textures")),
        *(Arm(f"takes{n}", ("simulated", f"takes{n}"), half) for n in sizes.worlds),
        *(Arm(f"takes{n}", ("simulated", f"takes{n}"), half, competes=False) for n in sizes.more_worlds),
        Arm(f"{many} twice the steps", ("simulated", many), longer, competes=False),
        Arm(f"{many} a quarter", ("simulated", many), ("--shares", "3", "1"), competes=False),
        Arm(f"{many} own shapes", ("simulated", f"{many}{OWN_SHAPES}"), half, competes=False),
        Arm(
            f"{many} with textures",
            ("masked", f"{many}{MASKED}"),
            (*half, "--augment", "textures"),
            competes=False,
        ),
        Arm(
            f"{many} with textures twice the steps",
            ("masked", f"{many}{MASKED}"),
            (*longer, "--augment", "textures"),
            competes=False,
        ),
        Arm("oracle", ("oracle",), competes=False),
        Arm("shuffled actions", ("simulated",), ("--shuffle-actions",), competes=False),
    )


__all__ = ["Arm", "arms"]
