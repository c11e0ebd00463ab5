# SPDX-License-Identifier: Apache-2.0
"""A robot description (URDF, MJCF) as a USD stage: a script for another interpreter, which retake starts and never imports.

The converters bring a USD library and a MuJoCo of their own, which must not lie beside Retake's; so they live in an
environment of their own (docs/motion.md), and this file is run there with the standard library and them alone.

usage: converter_host.py urdf|mjcf FILE OUT_DIR

OUT_DIR/stage/ holds what the converter wrote, OUT_DIR/converted.json its root layer's name and what had to be mended.
"""

from __future__ import annotations

import json
import shutil
import struct
import sys
import xml.etree.ElementTree as ET
import zlib
from copy import deepcopy as copy_of
from pathlib import Path

try:
    from retake.newton import gltf
except ImportError:  # the converters' own interpreter, which has no Retake: the file beside this one
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import gltf


def packages_of(file: Path) -> dict[str, Path]:
    """Folder of every `package://NAME/` in a URDF: a parent folder of that name, or a folder beside one."""
    text, out = file.read_text("utf-8", errors="replace"), {}
    for part in text.split("package://")[1:]:
        name = part.split("/", 1)[0]
        for parent in file.resolve().parents:
            if name and (parent.name == name or (parent / name).is_dir()):
                out.setdefault(name, parent if parent.name == name else parent / name)
                break
    return out


MOVABLE = ("revolute", "continuous", "prismatic")
MASS_KG, INERTIA = "0.1", {"ixx": "1e-4", "iyy": "1e-4", "izz": "1e-4", "ixy": "0", "ixz": "0", "iyz": "0"}
"""Of a palm whose description states no mass. Nothing depends on it: the converter's world holds the root."""
READABLE = (".stl", ".obj", ".dae")
"""Meshes that the converter reads."""


def file_of(name: str, file: Path, packages: dict[str, Path]) -> Path:
    """The file that a mesh of a URDF names."""
    if name.startswith("package://"):
        head, _, rest = name.removeprefix("package://").partition("/")
        return packages.get(head, Path("/none")) / rest
    return file.parent / name.removeprefix("file://")


def mended(file: Path, packages: dict[str, Path], meshes: Path) -> tuple[Path, list[str]]:
    """The URDF, or a copy beside it without what the converter refuses: binary glTF is written to `meshes` as OBJ, meshes
    that are not there or of another format go (the link's collision shapes are shown instead), and so do mimics of
    joints that do not exist. Says what was taken out."""
    tree, missing, written, found = ET.parse(file), [], 0, 0
    names = {joint.get("name") for joint in tree.getroot().iter("joint")}
    for joint in tree.getroot().iter("joint"):
        for mimic in joint.findall("mimic"):
            if mimic.get("joint") not in names:
                missing.append(f"mimic of {mimic.get('joint')}")
                joint.remove(mimic)
    for link in tree.getroot().iter("link"):
        for tag in ("collision", "visual"):
            for element in link.findall(tag):
                mesh = element.find("geometry/mesh")
                name = "" if mesh is None else mesh.get("filename", "")
                if mesh is None:
                    continue
                named = file_of(name, file, packages)
                place = named if named.is_file() else elsewhere(name, named, file)
                if place is not None and place.suffix.lower() == ".glb" and (obj := _as_obj(place, meshes)) is not None:
                    mesh.set("filename", str(obj))
                    written += 1
                    continue
                if place is not None and place.suffix.lower() in READABLE:
                    if place != named:
                        mesh.set("filename", str(place))
                        found += 1
                    continue
                missing.append(name)
                link.remove(element)
                if tag == "visual" and link.find("visual") is None:
                    # What is left of the link is its collision shapes; a robot that nobody sees is none.
                    for shape in link.findall("collision"):
                        shown = copy_of(shape)
                        shown.tag = "visual"
                        link.append(shown)
    palms = _given_mass(tree.getroot())
    if not missing and not written and not found and not palms:
        return file, []
    copy = file.with_name(f".{file.stem}.mended{file.suffix}")
    tree.write(copy)
    missing += [f"no mass of {name}, from which several joints lead: {MASS_KG} kg" for name in palms]
    more = ((written, "glTF meshes read as OBJ"), (found, "meshes found elsewhere or in another format"))
    return copy, [*sorted(set(missing)), *(f"{count} {what}" for count, what in more if count)]


def _given_mass(robot: ET.Element) -> list[str]:
    """Gives a mass to links without one that are the root or fixed to it and from which joints lead, where several parts hang
    from them: the converter makes no body of such links, and each finger of a hand would be a robot of its own. Returns the
    names of links that got one."""

    def end(joint: ET.Element, tag: str) -> str:
        found = joint.find(tag)
        return "" if found is None else found.get("link", "")

    joints = [(j.get("type"), end(j, "parent"), end(j, "child")) for j in robot.findall("joint")]
    links = {link.get("name", ""): link for link in robot.findall("link")}
    roots = set(links) - {child for _, _, child in joints}
    held = set(roots)
    while more := {c for kind, p, c in joints if kind == "fixed" and p in held} - held:
        held |= more
    carriers = [p for kind, p, _ in joints if kind in MOVABLE and p in held]
    solid = {name for name in held & set(links) if links[name].find("inertial") is not None}
    light = dict.fromkeys(name for name in carriers if name in links and name not in solid)
    if len(roots) != 1 or len(carriers) + len(solid - set(carriers)) < 2:
        return []
    for name in light:
        inertial = ET.SubElement(links[name], "inertial")
        ET.SubElement(inertial, "mass", value=MASS_KG)
        ET.SubElement(inertial, "inertia", INERTIA)
    return list(light)


def elsewhere(name: str, named: Path, file: Path) -> Path | None:
    """A mesh that is not where a URDF says: under a folder above the description by its package's path (a package without
    a name counts as well), else the file of that stem beside it in another format. None where neither is there."""
    places = [named]
    if name.startswith("package://"):
        rest = name.removeprefix("package://").lstrip("/")
        places += [parent / rest for parent in file.resolve().parents]
    for place in places:
        if place.is_file():
            return place.resolve()
    for place in places:
        others = [place.with_suffix(suffix) for suffix in (*READABLE, ".glb")]
        if other := next((other for other in others if other.is_file()), None):
            return other.resolve()
    return None


def _as_obj(glb: Path, meshes: Path) -> Path | None:
    """The OBJ of a binary glTF mesh; None where it cannot be read."""
    meshes.mkdir(parents=True, exist_ok=True)
    obj = meshes / f"{glb.stem}_{zlib.crc32(str(glb).encode()):08x}.obj"
    try:
        gltf.write_obj(glb, obj)
    except (ValueError, KeyError, IndexError, struct.error):
        return None
    return obj


def mended_mjcf(file: Path) -> tuple[Path, list[str]]:
    """The MJCF, or a copy beside it that MuJoCo accepts: a part meant to be included gets a model around it with the
    `*_dependencies.xml` beside it, and a second mesh of one name goes. Says what was done."""
    tree, done = ET.parse(file), []
    copy = file.with_name(f".{file.stem}.mended{file.suffix}")
    if tree.getroot().tag == "mujocoinclude":
        model = ET.Element("mujoco", model=file.stem)
        for part in sorted(file.parent.glob("*_dependencies.xml")):
            ET.SubElement(model, "include", file=part.name)
        ET.SubElement(ET.SubElement(model, "worldbody"), "include", file=file.name)
        ET.ElementTree(model).write(copy)
        return copy, ["a model put around an include"]
    for asset in tree.getroot().iter("asset"):
        names: set[str] = set()
        for mesh in asset.findall("mesh"):
            name = mesh.get("name") or Path(mesh.get("file", "")).stem
            if name in names:
                asset.remove(mesh)
                done.append(f"second mesh named {name}")
            names.add(name)
    if not done:
        return file, []
    tree.write(copy)
    return copy, done


def convert(kind: str, file: Path, out: Path) -> None:
    """Convert one description. A mended copy stands beside it only meanwhile. Errors of the converter are its own."""
    given = file
    if kind == "urdf":
        import urdf_usd_converter

        packages = packages_of(file)
        file, mending = mended(file, packages, (out / "meshes").resolve())
        ros = [{"name": name, "path": str(path)} for name, path in packages.items()]
        converter = urdf_usd_converter.Converter(ros_packages=ros)
    else:
        import mujoco_usd_converter

        file, mending = mended_mjcf(file)
        converter = mujoco_usd_converter.Converter()
    try:
        asset = converter.convert(str(file), str(out / "stage"))
    finally:
        if file != given:
            file.unlink(missing_ok=True)
        shutil.rmtree(out / "meshes", ignore_errors=True)
    report = {"stage": Path(asset.path).name, "mended": mending}
    (out / "converted.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    convert(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
