# SPDX-License-Identifier: Apache-2.0
"""What docs/proof/verdicts.md says beside its tables: painters, looks at held-out data, what was not done."""

from __future__ import annotations

HEAD = """# Verdicts: what other painters, real video and composite takes showed

Made by `scripts/prove/painters.py` (`make prove`). Films are a stage's meshes at simulated poses, rendered by Newton's own
renderer (ray-traced Lambert light, one sun with cast shadows), by Mitsuba 3 (path traced: soft lights, interreflection,
glossy surfaces), by VTK (rasterised: physically based metals and lacquers, light from a panorama, a lamp with hard moving
shadows that swings in some films) or by three.js (rasterised in a browser: one or two lamps with filtered shadows, soft rims,
light through leaves, filmic curves), in drawn sets with other materials, walls and clutter. Nothing of the older painter
(`rematerialise.py`) is imported or copied. On top come looks of generative models and cameras (`appearance.py`); faults are
planted in the geometry before rendering (`film_faults.py`), except a melting texture and a drifting background. The
renderers share the reader of meshes and the appearance layer, the first two also the sets' generator; families of sets are split.
"""


LOOKS_TAKEN = """
**Looks at held-out data.** `tune`, `newton` and `mitsuba` have all been looked at and tuned on. The history of `mitsuba`: judged
blind by version 10 of the estimators, 49 of 88 clean videos of fixed views failed (all 40 of one film by the moment of the
gripper, on fingers of some 5 px), wrist 0 of 7; of 24 faulty videos 21 failed, 1 was unsure, 2 passed. Versions 11 and 12 were
made because of that, and version 14 (postures of objects) was tuned on all three. **`blind_newton` and `blind_mitsuba` are
episodes, sets and surfaces that nothing had seen; they were rendered while version 14 was being made, looked at by nobody, and
judged once when it was finished.** One limit was set after the estimators (`object_posture` .6 → .7 and its doubt .48 → .52, by a
test whose painter draws outlines 3 px narrower), while judging had begun and before any of these rows had been read. Version 15
came after: it weighs a change of an object's colour less where another side of it is seen (the demo's wrist take had failed by
that) and calls a change between .15 and .25 unsure, no failure, and version 16
asks more outline of a hand before it tells `wrist_turn` (exact takes of small hands had failed). Versions 17 to 25 judge
links along the robot's tree, hold a hand's turn against what its own silhouette can tell, compare a turning object's colours
with what the take has shown of that side, ask of each pixel what it can tell of a posture, learn a body where it is seen whole,
follow a whirling camera in smaller steps, ask no lag of a hand at rest in its own picture, believe points that return when they
are followed back, take the surroundings off the outline of a small link, ask of a sighting beside an object's fall that it
lasts two frames, and let no place of an object speak against it that no frame has shown or that looks like its surroundings.
These rows have not been judged again.

**`vtk` is a third renderer, with rooms, materials, textures and episodes of its own.** While that
painter was made, single frames of some ten films were looked at (whether it draws what the film says), and no verdict. Version 23
judged each of its videos once, before anything had been changed by what they showed; the table is of that. **Version 27 came of
its clean failures, so it is tuning data since; `three` took its place.** One mend came after rows had been read,
in the painter: in the two episodes of seed 67 a bystander that a tray overlaps is thrown off the table and falls for good, the
shadow map stretched after it, and all shadows faded and came back within one frame. 11 of 13 clean videos of these films had
failed by it (`seams` 9, `colour_shift` 7, `object_before` 5, `fall_acceleration` 2). Their videos and rows were thrown away;
such bodies no longer count for the shadow map. Clean videos of seed 67 in the table, where there are any, were rendered
after that. Pictures are 320x240, but for one film of 640x480: half of the px that were asked for. In some films the lamp swings.
Version 27 mends its clean failures by kind: a passer-by in clothes of the packet's hue, and what stood there before in another
hue or light (`object_unique`); the face of a dark packet that a codec bleached, which its first place shows already
(`object_posture`, now unsure); a texture that swims one way here and another there (`background_drift`); a bystander of which the
border of a hand camera's picture leaves less than half (`object_before`). Of its clean
videos 63 were judged again (55 fixed, 8 of hands, the seven that had failed among them): none failed, 3 are unsure; 25 videos of
objects' faults ended as they had before these mends (11 failed, 5 unsure, 9 passed: what sinks or lands some 2 px of 320 off,
melts or becomes a can is found as little as in the table).
Of the faults, a melting texture and a can in place of a box 24 px wide are found least. CPU times of this split were taken while
four other jobs shared two cores.

**`three` is a fourth renderer, with rooms, lamps, textures and episodes of its own, at 640x480.** While it was made, single
frames of eight films were looked at, and no verdict: 99.94 % of the pixels outside the set bear the simulator's id.
Version 27 judged 50 clean videos of nine films once, when it was finished; the table is of that. 16 failed, by the film: a
brick in the tray that the arm's shadow leaves (`object_posture`), a hand's camera over a plain table that sees little but the
hand's soft shadow (`camera_motion`), once a texture that swims (`background_drift`). Versions since were made because of these
rows, so the split is tuning data; clean and faulty videos of four of its films were painted for that.
Its other thirteen films have been seen by nobody, and none of them has been judged.

**`blind_three` is the same renderer in five other families of rooms and lamps (blinds, a low lamp, a cold and a warm one)
with ten new episodes, ten films of fixed views and ten of hands, all of them painted and judged.** Version 29 had judged four
of its films before, in another set of videos, which changed nothing; two frames had been looked at. Version 30 judged the 320
clean videos and one look of every fault once. **Fixed views: 4 of 160 clean videos failed (2.5 %, bound 5.6 %; 2 % were
asked); hands: 0 of 160 (bound 1.9 %; 4 % were asked), 17 unsure.** Nothing was changed for fixed views since. The four:
`still_objects` once, under the look that adds six changes at once; `object_posture` three times, in two films, each time
"sunk by 2 cm" (.70, .72 and .83 at a limit of .7; twice under that look, once where contours are wider), once before the
grasp and once in the tray. Of the 35 unsure clean videos 30 are of the two films of one episode (panda 230), by the same
doubt. Hands showed a hole: of their faulty videos 9 of 10 passed where the tray moved, 8 of 9 with a second object, 9 of 10
with a finger more, all 8 with an opened drawer, 4 of 10 with an object held beside. Such things had never been asked of a
camera that moves (`object_unique` was, and could not answer: every other frame is searched, and three in a row were asked
for). **Version 31 asks them, so hands of this split are tuning data for `still_objects`, `intruders` and `object_unique`**;
everything else is version 30's. The hands were judged again by it, and two looks of five faults of fixed views by version 31
as well (the same estimators there). What remains: three of nine second objects and six of ten fingers more pass before a
hand's camera: a person sees these fingers in no frame either (they lie behind the hand's own), and the objects stand where no
earlier frame had shown the place, or at the very border. Drawers pass that the hand sees once, from near. A can in place of a
box is mostly unsure from fixed views. Where a target is missed, not all that is not found is unsure: the column `passed` says how
much.

**Version 33 came of two rows of this table, the fixed views' drawers and grippers, which the table below still shows as
versions 30 and 31 judged them.** Four of the ten fixed films (panda 223 and 225, sixaxis 223 and 225) and two of `vtk` were
used for it, so they are tuning data for `gripper_event` and `still_objects`; the other six were judged once, when it was
finished. A drawer that opens towards the camera was nowhere in the picture as it had been before, and the search for its
place found nothing better than its own: its edges are asked now. A gripper's moment is told by how far its fingers reach over
the scenery. Of the videos that were painted and judged again by version 33: drawers from fixed views 16 of 16 fail (10
before, 5 passed; of the six films alone 8 of 8), moved trays 12 of 12 (8 of 10 before), **grippers three frames early 6 of 12
fail, 2 are unsure, 4 pass** (1, 2 and 9 before; of the six films alone 1, 2 and 3: their fingers cover little known scenery,
or stand before what has their colour), **clean videos 3 of 150 failed, each of which had failed before, none by what is
new**. What an extra finger is, a person does not see in these fixed films either (looked at in three of them: it lies behind
the hand's own finger, which looks a little wider). For hands, scenery without a recorded depth is followed by the camera's
turn since then; two films of hands and ten videos of a third were judged again: 36 clean videos pass, 31 of 35 faulty ones
fail and 1 is unsure (two drawers and a finger more pass).

**`blind_three_more` has other episodes and families again; version 31 judged what was painted of it once**: two films of
hands and one of a robot of the zoo. One of 48 clean videos failed, a hand's (`still_objects`: a drawer that the hand's own
plate cuts off, so that its picture fits beside its place). Version 32 came of that and of a composite take: a thing whose
simulated outline lies on edges as well as it would anywhere near stands in its place. It can only take a displacement back;
the videos of hands that had one were judged again, and this split is tuning data for that one check. All 11 moved trays that
had been found are found as before, and one opened drawer of four no longer. Beside the zoo's robot the objects stand all the
time: another colour, another shape, a second one, a turn or a sinking of such a bystander passes (it is only asked whether it
stays). Another robot of the zoo and three more hands are defined and were not painted: a
film costs some six minutes of a core.

**`blind_three_travelling` is two films of cameras that travel, with episodes of their own; version 33 judged them once, when
it was finished, and nothing was changed by what they showed.** Of 32 clean videos 2 failed (`still_objects` where contours
are wider; `gripper_event` where they are narrower, which before such a camera is asked of contours alone) and 1 is unsure. A
tray moved by 3 cm and a finger more pass in both films, and so does a can in place of a box in one; a wrist turned by 15
degrees is unsure in both (before such a camera it is not asked). Everything else is found, or unsure once.

**Version 34 adds one check, `still_colour`, and changes no other**: what nobody touches (bystanders, trays, tables, floors) was
asked for its place, never for its colour, and a table that turned from blue to red in the middle of a take passed. Its
limits (.22 and .3) were set by twelve films of `vtk`: 96 clean videos of fixed views reach .05, 96 of hands .09 (metals that
reflect other walls); things painted otherwise from some frame on (`repainted`, planted in the pictures) .44 and more in 22 of
24 videos, and .04 and less in two, of floors that the set hides more than half or that a hand sees twice, far apart. Three
films of `blind_three` were judged before and after its last change (to which small things of `vtk` had led): 38 clean videos
reach .04; of three things repainted one is told by it, and the two others, which the arm pushes,
by `object_colour`. Exact composite takes of a hand showed twice what such films do not, each of a tray in another shape of which
an earlier look shows a rim alone: one was unsure, one of 179 failed. A thing before a camera that moves is asked by looks that
show half of it since; both takes pass, and the films' figures stay.

**Version 35 takes one kind of failure back and adds none**: two exact composite takes of an unseen sample had failed
`gripper_openness`. Moved by its own width, a small finger's one outline lies on its other, and before shelves the rest lies on
edges of the scenery. Where a camera stands, the pixels themselves are asked now: known scenery in the place of that opening,
and fingers in their own, speak against it. Films of other painters have not been judged again by it: what it can change is
that a failure by `gripper_openness` alone is none.

**`blind_three_large` is two films of 1280x720 and 1920x1080 with an episode and a family of rooms each; version 35 judged
what is painted of it once.** The larger film's six clean videos pass; of the other's six five failed, all by `still_objects`:
in the first frames the hand's shadow lies on the robot's foot, the arm then covers half of it, and another shadow 16 px away
(the rim of what is searched) looks most like it. **Version 36 came of that**: the foot of a robot that works is no thing that
stands still by itself (it is judged with its arm), and what fits best at the rim of what is searched is no place. Judged
again, no clean video of the two fails, two are unsure; of 31 faulty ones 21 fail, 5 are unsure and 5 pass (of the smaller
film a packet turned by 45 degrees and a can in place of a box, of the larger a second object, a melting texture and a finger
more). The larger film's gripper that opens three frames early had passed: another moment explained its fingers better by a
likelihood of 3.7 where 4 are asked; from 3 on such a moment is in doubt now, and unsure. And in 16 of the 43 videos
`gripper_event` had said 0 of fingers whose contours fit three frames early or late about as well: that is no longer told
(`untold`; `--require gripper_event` makes such takes unsure). So the split is tuning data for `still_objects` and
`gripper_event`. A moved tray fails in both films as before. No other film was judged again: what version 36 can change
elsewhere is that a failure of a robot's foot, or by a place at the rim, is none, that a gripper is in doubt, and that its
moment is not told.

**`blind_three_fixed` is twenty films of fixed views of ten new episodes in four new families of rooms and lamps (light off
water, two warm lamps, panes, a flat bright sky), with the faults that such views had found least; while it was painted, version
37 was made of four films of `blind_three` and three of `three`, and judged it once.** What version 37 changes: a place that
looks as it did before the body moved speaks against no posture, what the first phase shows of another posture is taken off
later ones (142 of 144 faithful videos of those seven films reach .41 since, where .74 had been reached; turned and sunk ones
.46 to 1), and an object of its ground's colours is elsewhere only if silhouette and colours say so. **17 of the 320 clean
videos failed (5.3 %): eleven of one film by `gripper_event` (contours alone, beside rippling light), three by `link_texture`
(light off water and through panes on a link), three singly; and of 20 second objects, each a packet that a person sees at
once, 9 passed.** Five of the nine appear in the first half of the take: the mean over all frames knew them as scenery. In
episodes in which a bystander is thrown off the table and falls for good, the ground that things are looked for on had fallen
with it.

**Version 38 came of that**, so the split is tuning data since: the first frames say what a place looked like; what falls off is
no ground; contours alone fail no gripper before a camera that stands still; `link_texture` fails from .1. Judged again by it
(these kinds alone): 3 of 320 clean videos fail and 32 are unsure, of 20 second objects 18 fail and 1 passes (it touches the
packet in the tray), of 15 early grippers 4 fail, 1 is unsure and 10 pass, of 20 turned wrists 10 fail, 9 are unsure and 1
passes.

**`blind_three_after` is eight films of fixed views of eight further episodes in two further families, painted while version 38
was made; nobody looked at it, and version 38 judged it once, when it was finished. Nothing was changed since.** None of its 128
clean videos failed (bound 2.3 %), 9 are unsure. Of the faults 7 of 8 second objects fail (one passes: it stands beside where
the packet had stood), all 4 drawers, 6 of 8 turned, 6 of 8 sunk; no can in a box's
place and no turned wrist passes. What passes otherwise is a gripper that opens early (4 of 7: its fingers
change some 100 px of the picture), and **a finger more where it changes fewer than 150 px (6 of 6; the two that change more are
unsure)**: the tables say since this split how much of a fault shows.

**Version 39 came of looking at fingers at the size that takes show them.** A take is judged at 320 px of width; of 15
grippers of `blind_three_fixed` that open three frames early 10 had passed. Asked at 640 px, the same pixels tell 10 of them
(one more is unsure), and of the 320 clean videos none fails by it. On the way a kind of false alarm was found that no bench
had: composite takes as large as the demo's (640x480; the 520 below are 320x240) and films under lamps of two colours, whose
shadows have hues of their own. Of 56 such takes two had failed (`intruders`, `extra_finger`, both of the preset
night_terrace) and of nine films in the rooms of `blind_three_travelling` one; none does since: a coloured shadow that leaves
a place, or does to another what it undid there, is no thing.

**`blind_three_hands` is twenty films of cameras on hands, `blind_three_closing` fourteen of fixed views, of new episodes in
four new families of rooms (a striped awning, one narrow lamp in a dim room, leaves under a bright sky, a low orange lamp
beside a blue one); looked at by nobody while version 39 was made (one frame of another episode in each family was, when the
rooms were drawn), and judged by it once.** Hands: **2 of 320 clean videos failed, both by `object_posture` where contours are
narrower, 15 are unsure (bound 2.0 %; 4 % were asked).** The faults of some eight of its films were painted later and judged
once by version 40, which changes nothing for hands but what it took back: what passes is a finger more (7 of 7), a drawer (3
of 5), a second object (2 of 5), an early gripper (2 of 7) and what is held beside the hand (2 of 7). Fixed views: **40 of 224
clean videos failed**, 28 of them in two films (the tables show them at the present limits): a bystander that overlaps its
tray is thrown across the room at the beginning and lost while it flies (`fall_acceleration`, 13 videos), or comes to rest in
a tray of its own colour, where its colours find the tray (`object_before`, 15; `object_unique` 2 and 24 more unsure: a dark
shadow on the table has the colour of another); a finger that is drawn wider before its own colour (`extra_finger`, 6, which
version 39 had asked of the close-up from 4 px on, and which failed one clean video of `blind_three_after` as well); a
highlight of the orange lamp (`link_texture`, 2); one each by `background_drift` and `still_objects`. Seven of eight early
grippers failed and one passed.

**Version 40 came of that**, so this split is tuning data since: a fall is told from those of its frames that lie on one
parabola; an object that no robot holds and whose colours hardly differ from its scenery's is in doubt where it seems to be
elsewhere; a finger more is asked at the working size again, and must be as bright as its neighbour; `link_texture` fails from
.13. Judged again by it: 4 of 224 clean videos fail, each of another film (`extra_finger`, `background_drift`,
`object_present`, `still_objects`), and 70 are unsure, 41 of them by `object_unique` and 15 by `object_before` of that
bystander.

**`blind_three_final` is eight films of fixed views of eight further episodes in two further families (leaves before a warm
lamp beside a cold one, greenish lamps in a row), painted while version 40 was made; nobody looked at it, and version 40
judged it once, when it was finished. Nothing was changed since.** 1 of its 128 clean videos failed (0.8 %, `object_held`
where contours are wider), 5 are unsure. All eight second objects fail, six of eight sunk ones; of five early grippers three
fail and one passes; of seven fingers more five pass, as do two of eight turned packets.

**Version 41 came of these two splits** (so `blind_three_final` is tuning data, too): what a deep shadow makes of scenery, as it
does elsewhere in the take, is no copy; a hard shadow that moves over a tray leaves its outline and opens no drawer; a
curtain that is most of what has edges is no drift where the ground around the robot stays; the outline of what fingers hold
may be 2 px of 640 farther beside its place than its colours are, for fingers drawn wider leave less of it; the rim of an
object that has a finger's hue is no finger more; an object that flies by more than its size from frame to frame is not asked
whether it shows; and contours alone no longer make a gripper's moment doubtful before a camera that stands (5 % of faithful
videos were unsure by that check, and 2 of 28 with early grippers). Of 198 clean videos of `blind_three_closing` none failed
and 23 were unsure (4 and 70 of 224 by version 40), of 160 of `blind_three_fixed` none failed and 1 was unsure.

**`blind_three_next` is 24 films of fixed views of twelve further episodes in five further families (three narrow whites, one cold
even light, a dim room under a warm lamp, an amber and a blue lamp, panes under a bright sky); looked at by nobody but for one
frame of another episode in each family, and judged once by version 41. 33 of its 384 clean videos failed (8.6 %), 30 of them
in two films**: a red cube that a hard shadow leaves for good (`still_objects`, all 16 of one film: its edges are others in the
light), and a dark bystander in the arm's shadow that seemed taller (`object_posture`, 14 of one film and 2 of another); one by
`object_shape`. 24 were unsure, 22 of them by `object_posture`. So what a version shows on one set of rooms says little of the
next: films fail as a whole, and each kind was a new one.

**Version 42 came of that**: of a thing of which most is brighter or darker than at first by more than a quarter (log level .25;
the cube .41, opened drawers .1 at most) edges say nothing, and it stands where its outline lies; and the posture of one that
no robot holds and whose contrast is below .75 is in doubt where it would fail, as its place is since version 40.

Faults are painted of six of its films; version 42 judged them: no turned, sunk, doubled or other-shaped packet, no drawer and
nothing held beside passes (34 videos, 26 fail and 8 are unsure); of five turned wrists one passes, of three early grippers
two, and of four fingers more three.

**`blind_three_since` is 22 films of fixed views of eleven further episodes in five further families (a row of whites, one narrow
warm lamp, a low cold light, two warm lamps through leaves, a dim red lamp beside a bluish one); painted while versions 41 and
42 were made, looked at by nobody, and judged once by version 42, when it was finished. Nothing was changed since. 1 of its 352
clean videos failed (0.3 %, bound 1.3 %; 2 % were asked), by `object_settled` where contours are wider; 16 are unsure, 14 of
them by `object_posture`.** The bound is one of videos: films fail as a whole where they do, and of the 24 films before these
two had. Its faults are not painted.

**Version 43** takes one blindness of 42 back: a thing counts as in another light only beyond what most of the picture is, for a
drawer that opens while the exposure changes had been asked for its place alone. Nothing of a film led to that. 128 of the 352
videos were judged again by it, and end as they did; of 124 clean ones of `blind_three_next` 1 fails (`object_shape`) and 14 are
unsure, and its four drawers fail.

On the tuning splits the values of version 11 with the new checks of version 14 (an earlier state of `object_posture`)
leave 118 of 131 clean videos passed, 13 unsure and 0 failed, and 30 of 34 faulty ones failed, 3 unsure, 1 passed (sunk by
2 cm before a wrist camera); probabilities are fitted to these. They are no figures of unseen pictures.

What the path tracer's pictures are: traced at half the camera's size with 10 paths per pixel, like patches averaged, a 5 px
median; thin dark fingers lose contrast by it.

**Short of what was asked for**: 20 videos of a drawer, a finger more and a gripper that opens early, of which fewer films
show enough; a second painter that tuned nothing; more than two films each of travelling cameras and of 720p and 1080p: the tables
say what was judged. `make prove` goes on.
"""
