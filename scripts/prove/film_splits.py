# SPDX-License-Identifier: Apache-2.0
"""Which films the painter bench shows, who renders them, and which of them limits may come from."""

from __future__ import annotations

from dataclasses import dataclass

from film_faults import FAULTS


@dataclass(frozen=True)
class Split:
    """Which films a split has, and who renders them."""

    painter: str
    films: tuple[tuple[str, int, str, str], ...]
    """(robot, seed, camera, family of sets)."""
    clean: int
    """Clean videos per film; looks are dealt in turn."""
    faulty: int
    """Videos per film and fault level: one fault, several looks."""
    first_level: bool = False
    """Only the smallest level of each fault."""
    kinds: tuple[str, ...] = tuple(FAULTS)
    """Faults that are planted."""
    turned: int = 0
    """By how many looks the deal of every film begins further than the film before it: few videos per film still show all
    looks. 0 begins every film with the first look."""


TOLD = (
    "arm_offset", "lag", "reversed", "other_episode", "landing_off", "rotated", "sunk", "other_shape", "other_colour",
    "second_object", "tray_moved", "held_beside", "drawer", "wrist_turned", "gripper_early", "melting", "extra_finger",
    "repainted",
)  # fmt: skip
"""The faults that most is asked of."""
HARD = (
    "rotated", "sunk", "other_shape", "second_object", "held_beside", "drawer", "wrist_turned", "gripper_early", "extra_finger",
)  # fmt: skip
"""Those that fixed views have found least."""
SPLITS = {
    "tune": Split(
        "newton",
        (
            ("panda", 21, "front", "studio"), ("sixaxis", 21, "side", "workshop"), ("panda", 21, "wrist", "workshop"),
            ("panda", 21, "moving", "studio"), ("sixaxis", 21, "wrist", "studio"), ("panda", 21, "side", "workshop"),
            ("sixaxis", 21, "front", "studio"), ("sixaxis", 21, "moving", "workshop"),
        ),
        16, 1,
    ),
    "newton": Split(
        "newton",
        (
            ("panda", 22, "front", "kitchen"), ("sixaxis", 33, "wrist", "kitchen"), ("panda", 22, "moving", "hall"),
            ("sixaxis", 33, "front", "hall"), ("panda", 34, "front", "kitchen"),
        ),
        16, 1,
    ),
    "mitsuba": Split(
        "mitsuba",
        (
            ("panda", 22, "side", "loft"), ("sixaxis", 33, "front", "lab"), ("panda", 22, "wrist", "lab"),
            ("sixaxis", 33, "wrist", "loft"), ("panda", 22, "front", "lab"),
        ),
        48, 3, first_level=True,
    ),
    "blind_newton": Split(
        "newton",
        (
            ("panda", 41, "front", "gallery"), ("sixaxis", 42, "side", "garage"), ("panda", 41, "wrist", "clinic"),
            ("sixaxis", 44, "front", "attic"), ("panda", 43, "side", "garage"), ("sixaxis", 42, "wrist", "gallery"),
            ("panda", 43, "front", "attic"), ("sixaxis", 45, "front", "clinic"), ("panda", 46, "side", "clinic"),
            ("sixaxis", 45, "wrist", "attic"),
        ),
        16, 3, first_level=True,
    ),
    "blind_mitsuba": Split(
        "mitsuba",
        (
            ("panda", 43, "front", "clinic"), ("sixaxis", 44, "side", "gallery"), ("sixaxis", 42, "wrist", "attic"),
            ("panda", 46, "front", "garage"),
        ),
        16, 2, first_level=True,
    ),
    "vtk": Split(
        "vtk",
        (
            # A fixed view and a hand's in turn, so that a run cut short has seen both.
            ("panda", 65, "front", "veranda"), ("panda", 65, "wrist", "showroom"), ("sixaxis", 65, "side", "atelier"),
            ("sixaxis", 65, "wrist", "foundry"), ("panda", 67, "side", "showroom"), ("panda", 67, "wrist", "veranda"),
            ("sixaxis", 67, "front", "cellar"), ("sixaxis", 67, "wrist", "atelier"), ("panda", 69, "front", "foundry"),
            ("panda", 69, "wrist", "atelier"), ("sixaxis", 69, "side", "veranda"), ("sixaxis", 69, "wrist", "showroom"),
            ("panda", 71, "side", "atelier"), ("panda", 71, "wrist", "cellar"), ("sixaxis", 71, "front", "showroom"),
            ("sixaxis", 71, "wrist", "veranda"), ("panda", 76, "side", "cellar"), ("sixaxis", 74, "front", "foundry"),
            ("panda", 67, "front", "foundry"), ("sixaxis", 63, "side", "showroom"), ("panda", 74, "moving", "cellar"),
            ("sixaxis", 76, "moving", "showroom"),
        ),
        16, 2, first_level=True,
        kinds=TOLD,
    ),
    "three": Split(
        "three",
        (
            ("panda", 201, "front", "harbour"), ("panda", 201, "wrist", "bazaar"), ("sixaxis", 201, "front", "lighthouse"),
            ("sixaxis", 201, "wrist", "orchard"), ("panda", 203, "side", "orchard"), ("panda", 203, "wrist", "lighthouse"),
            ("sixaxis", 203, "side", "chapel"), ("sixaxis", 203, "wrist", "harbour"), ("panda", 205, "front", "chapel"),
            ("panda", 205, "wrist", "orchard"), ("sixaxis", 205, "front", "bazaar"), ("sixaxis", 205, "wrist", "chapel"),
            ("panda", 207, "side", "bazaar"), ("panda", 207, "wrist", "harbour"), ("sixaxis", 207, "side", "orchard"),
            ("sixaxis", 207, "wrist", "lighthouse"), ("panda", 209, "front", "lighthouse"), ("sixaxis", 209, "front", "harbour"),
            ("panda", 210, "side", "chapel"), ("sixaxis", 210, "side", "bazaar"), ("panda", 209, "moving", "orchard"),
            ("sixaxis", 210, "moving", "lighthouse"),
        ),
        16, 2, first_level=True, kinds=TOLD,
    ),
    "blind_three": Split(
        "three",
        (
            # Views and robots in turn, so that a run cut short has seen all of them.
            ("panda", 221, "front", "cloister"), ("sixaxis", 221, "wrist", "pavilion"),
            ("sixaxis", 223, "side", "tannery"), ("panda", 223, "wrist", "depot"),
            ("panda", 227, "side", "observatory"), ("sixaxis", 225, "wrist", "cloister"),
            ("sixaxis", 225, "front", "depot"), ("panda", 227, "wrist", "tannery"),
            ("panda", 230, "front", "pavilion"), ("sixaxis", 230, "wrist", "observatory"),
            ("sixaxis", 227, "side", "pavilion"), ("panda", 221, "wrist", "observatory"),
            ("panda", 223, "side", "depot"), ("sixaxis", 223, "wrist", "tannery"),
            ("sixaxis", 221, "front", "observatory"), ("panda", 225, "wrist", "pavilion"),
            ("panda", 225, "front", "tannery"), ("sixaxis", 227, "wrist", "depot"),
            ("sixaxis", 230, "front", "cloister"), ("panda", 230, "wrist", "cloister"),
        ),
        16, 2, first_level=True, kinds=TOLD, turned=5,
    ),
    "blind_three_more": Split(
        "three",
        (
            # Cameras on hands, and robots of the zoo, which hold nothing.
            ("panda", 241, "wrist", "refectory"), ("sixaxis", 241, "wrist", "arcade"),
            ("ur5_gripper", 1011, "front", "refectory"), ("panda", 243, "wrist", "granary"),
            ("sixaxis", 243, "wrist", "refectory"), ("kinova_jaco", 1012, "front", "arcade"),
            ("so100", 1011, "wrist", "granary"),
        ),
        16, 1, first_level=True, kinds=TOLD, turned=3,
    ),
    "blind_three_travelling": Split(
        "three", (("panda", 232, "moving", "arcade"), ("sixaxis", 234, "moving", "granary")), 16, 1, first_level=True,
        kinds=TOLD, turned=3,
    ),
    "blind_three_large": Split(
        # Another episode's pictures have another size, which alone would give it away.
        "three", (("panda", 236, "front", "granary"), ("sixaxis", 238, "front", "refectory")), 6, 1, first_level=True,
        kinds=tuple(kind for kind in TOLD if kind != "other_episode"), turned=6,
    ),
    "blind_three_fixed": Split(
        # Fixed views alone: many clean videos, and the faults that such views find least.
        "three",
        (
            ("panda", 251, "front", "boathouse"), ("sixaxis", 252, "side", "bakery"),
            ("panda", 253, "side", "greenhouse"), ("sixaxis", 251, "front", "foyer"),
            ("panda", 255, "front", "bakery"), ("sixaxis", 253, "front", "boathouse"),
            ("panda", 252, "side", "foyer"), ("sixaxis", 255, "side", "greenhouse"),
            ("panda", 254, "front", "greenhouse"), ("sixaxis", 254, "front", "bakery"),
            ("panda", 251, "side", "bakery"), ("sixaxis", 252, "front", "greenhouse"),
            ("panda", 253, "front", "foyer"), ("sixaxis", 251, "side", "boathouse"),
            ("panda", 255, "side", "boathouse"), ("sixaxis", 253, "side", "foyer"),
            ("panda", 252, "front", "boathouse"), ("sixaxis", 255, "front", "foyer"),
            ("panda", 254, "side", "bakery"), ("sixaxis", 254, "side", "greenhouse"),
        ),
        16, 1, first_level=True, turned=5,
        kinds=HARD,
    ),
    "blind_three_after": Split(
        # After what `blind_three_fixed` showed had led to changes.
        "three",
        (
            ("panda", 256, "front", "station"), ("sixaxis", 257, "side", "aviary"),
            ("panda", 257, "side", "station"), ("sixaxis", 256, "front", "aviary"),
            ("panda", 258, "front", "aviary"), ("sixaxis", 258, "side", "station"),
            ("panda", 259, "side", "aviary"), ("sixaxis", 259, "front", "station"),
        ),
        16, 1, first_level=True, turned=5,
        kinds=HARD,
    ),
    "blind_three_closing": Split(
        # Fixed views for the version after `blind_three_after`.
        "three",
        (
            ("panda", 261, "front", "kiosk"), ("sixaxis", 263, "side", "vault"),
            ("panda", 263, "side", "terrace"), ("sixaxis", 261, "front", "smithy"),
            ("panda", 262, "front", "vault"), ("sixaxis", 265, "side", "kiosk"),
            ("panda", 265, "front", "smithy"), ("sixaxis", 264, "front", "terrace"),
            ("panda", 264, "side", "kiosk"), ("sixaxis", 262, "side", "smithy"),
            ("panda", 267, "side", "vault"), ("sixaxis", 267, "front", "kiosk"),
            ("panda", 266, "front", "terrace"), ("sixaxis", 266, "side", "vault"),
        ),
        16, 1, first_level=True, turned=5,
        kinds=HARD,
    ),
    "blind_three_hands": Split(
        # Cameras on hands for the same version.
        "three",
        (
            ("panda", 271, "wrist", "smithy"), ("sixaxis", 272, "wrist", "kiosk"),
            ("panda", 273, "wrist", "terrace"), ("sixaxis", 271, "wrist", "vault"),
            ("panda", 272, "wrist", "vault"), ("sixaxis", 275, "wrist", "terrace"),
            ("panda", 275, "wrist", "kiosk"), ("sixaxis", 273, "wrist", "smithy"),
            ("panda", 274, "wrist", "terrace"), ("sixaxis", 274, "wrist", "vault"),
            ("panda", 277, "wrist", "smithy"), ("sixaxis", 277, "wrist", "kiosk"),
            ("panda", 276, "wrist", "vault"), ("sixaxis", 276, "wrist", "terrace"),
            ("panda", 279, "wrist", "kiosk"), ("sixaxis", 279, "wrist", "smithy"),
            ("panda", 278, "wrist", "smithy"), ("sixaxis", 278, "wrist", "terrace"),
            ("panda", 280, "wrist", "terrace"), ("sixaxis", 280, "wrist", "vault"),
        ),
        16, 1, first_level=True, turned=5,
        kinds=TOLD,
    ),
    "blind_three_final": Split(
        # After what `blind_three_closing` showed had led to changes.
        "three",
        (
            ("panda", 281, "front", "conservatory"), ("sixaxis", 282, "side", "subway"),
            ("panda", 283, "side", "conservatory"), ("sixaxis", 281, "front", "subway"),
            ("panda", 282, "front", "subway"), ("sixaxis", 283, "side", "conservatory"),
            ("panda", 284, "side", "subway"), ("sixaxis", 284, "front", "conservatory"),
        ),
        16, 1, first_level=True, turned=5,
        kinds=HARD,
    ),
    "blind_three_next": Split(
        # Fixed views for the version after `blind_three_final`.
        "three",
        (
            ("panda", 301, "front", "museum"), ("sixaxis", 301, "side", "laundry"),
            ("panda", 302, "side", "brewery"), ("sixaxis", 302, "front", "theatre"),
            ("panda", 303, "front", "skylight"), ("sixaxis", 303, "side", "museum"),
            ("panda", 304, "side", "laundry"), ("sixaxis", 304, "front", "brewery"),
            ("panda", 305, "front", "theatre"), ("sixaxis", 305, "side", "skylight"),
            ("panda", 306, "side", "museum"), ("sixaxis", 306, "front", "laundry"),
            ("panda", 307, "front", "brewery"), ("sixaxis", 307, "side", "theatre"),
            ("panda", 308, "side", "skylight"), ("sixaxis", 308, "front", "museum"),
            ("panda", 309, "front", "laundry"), ("sixaxis", 309, "side", "brewery"),
            ("panda", 310, "side", "theatre"), ("sixaxis", 310, "front", "skylight"),
            ("panda", 311, "front", "museum"), ("sixaxis", 311, "side", "laundry"),
            ("panda", 312, "side", "brewery"), ("sixaxis", 312, "front", "theatre"),
        ),
        16, 1, first_level=True, turned=5,
        kinds=HARD,
    ),
    "blind_three_since": Split(
        # After what `blind_three_next` showed had led to changes.
        "three",
        (
            ("panda", 321, "side", "gymnasium"), ("sixaxis", 321, "front", "pantry"),
            ("panda", 322, "front", "hangar"), ("sixaxis", 322, "side", "cafe"),
            ("panda", 323, "side", "cinema"), ("sixaxis", 323, "front", "pantry"),
            ("panda", 324, "front", "hangar"), ("sixaxis", 324, "side", "cafe"),
            ("panda", 325, "side", "cinema"), ("sixaxis", 325, "front", "gymnasium"),
            ("panda", 326, "front", "hangar"), ("sixaxis", 326, "side", "cafe"),
            ("panda", 327, "side", "cinema"), ("sixaxis", 327, "front", "gymnasium"),
            ("panda", 328, "front", "pantry"), ("sixaxis", 328, "side", "cafe"),
            ("panda", 329, "side", "cinema"), ("sixaxis", 329, "front", "gymnasium"),
            ("panda", 330, "front", "pantry"), ("sixaxis", 330, "side", "hangar"),
            ("panda", 331, "side", "cinema"), ("sixaxis", 331, "front", "gymnasium"),
        ),
        16, 1, first_level=True, turned=5,
        kinds=HARD,
    ),
}  # fmt: skip
"""No episode and no family of sets of one group of splits (tune; newton, mitsuba; blind_newton, blind_mitsuba; vtk;
three; blind_three; blind_three_more, _travelling, _large; blind_three_fixed;
blind_three_after; blind_three_closing, _hands; blind_three_final; blind_three_next;
blind_three_since) is in another. Limits may come from the first
three, and from `vtk` and `three` since they have been looked at; a split of `UNSEEN` is judged once, when nothing changes any
more."""
UNSEEN = (
    "blind_newton", "blind_mitsuba", "three", "blind_three", "blind_three_more", "blind_three_travelling", "blind_three_large",
    "blind_three_fixed", "blind_three_after", "blind_three_closing", "blind_three_hands",
    "blind_three_final", "blind_three_next", "blind_three_since",
)  # fmt: skip
"""Splits that nothing had been made by when they were judged; `painters_pages.LOOKED_AT` says of which that is over."""
OTHER = {
    21: 22, 22: 21, 33: 21, 34: 22, 41: 43, 42: 44, 43: 41, 44: 42, 45: 44, 46: 43,
    61: 63, 63: 61, 65: 67, 67: 69, 69: 71, 71: 65, 74: 76, 76: 74,
    201: 205, 205: 201, 203: 207, 207: 203, 209: 210, 210: 209,
    221: 225, 223: 227, 225: 221, 227: 223, 230: 221, 232: 234, 234: 232, 236: 238, 238: 236, 241: 243, 243: 241,
    256: 258, 258: 256, 257: 259, 259: 257, 251: 253, 253: 255, 255: 251, 252: 254, 254: 252,
    261: 263, 263: 265, 265: 267, 267: 261, 262: 264, 264: 266, 266: 262,
    271: 273, 273: 275, 275: 277, 277: 279, 279: 271, 272: 274, 274: 276, 276: 278, 278: 280, 280: 272,
    281: 283, 283: 281, 282: 284, 284: 282,
    301: 303, 302: 304, 303: 305, 304: 306, 305: 307, 306: 308, 307: 309, 308: 310, 309: 311, 310: 312, 311: 301, 312: 302,
    321: 323, 322: 324, 323: 325, 324: 326, 325: 327, 326: 328, 327: 329, 328: 330, 329: 331, 330: 321, 331: 322,
    1011: 1012, 1012: 1011,
}  # fmt: skip
OTHER_AT = {
    (41, "wrist"): 22, (42, "wrist"): 45, (45, "wrist"): 42, (44, "front"): 45, (43, "side"): 46,
    (61, "front"): 65, (63, "side"): 65, (74, "front"): 65, (76, "side"): 65,
    (209, "front"): 201, (210, "side"): 203,
}  # fmt: skip
"""Episode (and camera, where the episodes' cameras differ) -> the one whose truth an `other_episode` video is judged
against."""
