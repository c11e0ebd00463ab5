# SPDX-License-Identifier: Apache-2.0
"""The other end of `vtk_painter.py`, run by VTK's own interpreter: pickled requests in, pictures out."""

from __future__ import annotations

import numpy as np
import vtk
from painter_pipe import serve, take_answers
from vtk.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy

ANSWERS = take_answers()
vtk.vtkObject.GlobalWarningDisplayOff()
NEAR_M, FAR_M = 0.02, 12.0
LOWEST_M = -1.0
"""Below the floor nothing is seen."""
MOST_FACES = 2500
"""Of one mesh: at 320 px ten thousand more move some five pixels of a picture, and cost half of its time."""
SHADOW_PX = 512
SHADOW_SHARPNESS = 70.0
"""Of exponential shadow maps: at VTK's own 11 what is near the ground casts next to none; beyond 80 numbers overflow."""


def image_of(array: np.ndarray) -> vtk.vtkImageData:
    """A VTK image of (h, w, 3) uint8 or float32, first row at the top."""
    image = vtk.vtkImageData()
    image.SetDimensions(array.shape[1], array.shape[0], 1)
    values = numpy_to_vtk(np.ascontiguousarray(array[::-1]).reshape(-1, 3), deep=True)
    values.SetName("rgb")
    image.GetPointData().SetScalars(values)
    return image


def texture_of(array: np.ndarray) -> vtk.vtkTexture:
    """A repeating texture with mipmaps; sRGB where it is uint8."""
    made = vtk.vtkTexture()
    made.SetInputDataObject(image_of(array))
    made.SetColorModeToDirectScalars()
    made.MipmapOn()
    made.InterpolateOn()
    made.RepeatOn()
    if array.dtype == np.uint8:
        made.UseSRGBColorSpaceOn()
    return made


def surface_of(item: dict) -> vtk.vtkPolyData:
    """Triangles with texture coordinates and normals that are smooth up to creases of 35 degrees."""
    points = vtk.vtkPoints()
    points.SetData(numpy_to_vtk(np.ascontiguousarray(item["vertices"], np.float32), deep=True))
    faces = item["faces"]
    cells = vtk.vtkCellArray()
    table = np.c_[np.full(len(faces), 3), faces].astype(np.int64).ravel()
    cells.ImportLegacyFormat(numpy_to_vtkIdTypeArray(table, deep=True))
    data = vtk.vtkPolyData()
    data.SetPoints(points)
    data.SetPolys(cells)
    if len(faces) > MOST_FACES and item["texture"] is None:
        data = thinned(data, MOST_FACES / len(faces))
    else:
        uv = numpy_to_vtk(np.ascontiguousarray(item["uv"], np.float32), deep=True)
        uv.SetName("uv")
        data.GetPointData().SetTCoords(uv)
    normals = vtk.vtkPolyDataNormals()
    normals.SetInputData(data)
    normals.SetFeatureAngle(35)
    normals.SplittingOn()
    normals.ConsistencyOff()
    normals.Update()
    return normals.GetOutput()


def thinned(data: vtk.vtkPolyData, share: float) -> vtk.vtkPolyData:
    """The same shape of fewer triangles, without texture coordinates."""
    fewer = vtk.vtkQuadricDecimation()
    fewer.SetInputData(data)
    fewer.SetTargetReduction(1 - share)
    fewer.VolumePreservationOn()
    fewer.Update()
    return fewer.GetOutput()


class Stage:
    """One scene in two renderers: one of materials and light, one whose colours are ids."""

    def __init__(self, request: dict) -> None:
        self.window, self.marks = vtk.vtkRenderWindow(), vtk.vtkRenderWindow()
        self.renderer, self.marker = vtk.vtkRenderer(), vtk.vtkRenderer()
        for window, renderer in ((self.window, self.renderer), (self.marks, self.marker)):
            window.SetOffScreenRendering(1)
            window.SetMultiSamples(0)
            window.SetSize(*request["size"])
            window.AddRenderer(renderer)
            renderer.SetBackground(0, 0, 0)
            renderer.SetAutomaticLightCreation(False)
        self.marker.SetUseFXAA(False)
        self.moved: list[list[vtk.vtkActor]] = [[] for _ in request["owners"]]
        textures: dict[int, vtk.vtkTexture] = {}
        for item in request["items"]:
            owner = request["owners"].index(item["owner"])
            surface = surface_of(item)
            shown, marked = vtk.vtkActor(), vtk.vtkActor()
            for actor in (shown, marked):
                mapper = vtk.vtkPolyDataMapper()
                mapper.SetInputData(surface)
                mapper.ScalarVisibilityOff()
                actor.SetMapper(mapper)
                self.moved[owner].append(actor)
            look = shown.GetProperty()
            look.SetInterpolationToPBR()
            look.SetColor(*item["colour"])
            look.SetMetallic(item["metallic"])
            look.SetRoughness(item["roughness"])
            if item["texture"] is not None:
                key = id(item["texture"])
                if key not in textures:
                    textures[key] = texture_of(item["texture"])
                look.SetColor(1, 1, 1)
                look.SetBaseColorTexture(textures[key])
            flat = marked.GetProperty()
            flat.LightingOff()
            flat.SetColor((owner + 1) / 255, 0, 0)
            self.renderer.AddActor(shown)
            self.marker.AddActor(marked)
        self.lamps = [self._lamp(lamp) for lamp in request["lamps"]]
        self._sky(request["sky"])
        self._passes()

    def _lamp(self, lamp: dict) -> vtk.vtkLight:
        """A spot that casts shadows."""
        light = vtk.vtkLight()
        light.SetLightTypeToSceneLight()
        light.SetPositional(True)
        light.SetConeAngle(lamp["cone"])
        light.SetExponent(0.3)
        light.SetFocalPoint(*lamp["at"])
        light.SetPosition(*lamp["from"])
        light.SetColor(*lamp["colour"])
        light.SetIntensity(lamp["power"])
        light.SetAttenuationValues(1, 0, 0)
        self.renderer.AddLight(light)
        return light

    def _sky(self, panorama: np.ndarray) -> None:
        """Light from an equirectangular picture (h, w, 3) float32, linear."""
        texture = texture_of(panorama)
        self.renderer.UseImageBasedLightingOn()
        self.renderer.UseSphericalHarmonicsOn()
        self.renderer.SetEnvironmentTexture(texture, False)
        self.renderer.SetEnvironmentUp(0, 0, 1)
        self.renderer.SetEnvironmentRight(1, 0, 0)
        prefilter = self.renderer.GetEnvMapPrefiltered()
        prefilter.SetPrefilterMaxSamples(64)
        self.renderer.SetBackground(*np.clip(panorama[: len(panorama) // 2].mean((0, 1)), 0, 1) ** (1 / 2.2))

    def _passes(self) -> None:
        """Shadow maps, opaque surfaces, FXAA."""
        shadows = vtk.vtkShadowMapPass()
        shadows.GetShadowMapBakerPass().SetResolution(SHADOW_PX)
        shadows.GetShadowMapBakerPass().SetExponentialConstant(SHADOW_SHARPNESS)
        order = vtk.vtkRenderPassCollection()
        order.AddItem(shadows.GetShadowMapBakerPass())
        order.AddItem(shadows)
        sequence = vtk.vtkSequencePass()
        sequence.SetPasses(order)
        camera = vtk.vtkCameraPass()
        camera.SetDelegatePass(sequence)
        smooth = vtk.vtkOpenGLFXAAPass()
        smooth.SetDelegatePass(camera)
        self.renderer.SetPass(smooth)

    def picture(self, request: dict) -> dict:
        """(h, w, 3) uint8 sRGB and (h, w) uint8 ids of a frame."""
        for actors, T in zip(self.moved, request["poses"], strict=True):
            matrix, shown = vtk.vtkMatrix4x4(), bool(T[2, 3] > LOWEST_M)
            # What is out of sight stays at the origin: shadow maps span the boxes of all that is there, seen or not, and a body
            # that falls out of the world would thin all shadows.
            matrix.DeepCopy((T if shown else np.eye(4)).ravel().tolist())
            for actor in actors:
                actor.SetUserMatrix(matrix)
                actor.SetVisibility(shown)
        for light, place in zip(self.lamps, request["lamps"], strict=True):
            light.SetPosition(*place)
        camera = self._camera(request["K"], request["T_camera_world"])
        out = {}
        for name, window, renderer in (("rgb", self.window, self.renderer), ("ids", self.marks, self.marker)):
            renderer.SetActiveCamera(camera)
            window.Render()
            pixels = vtk.vtkUnsignedCharArray()
            width, height = window.GetSize()
            window.GetPixelData(0, 0, width - 1, height - 1, 0, pixels, 0)
            out[name] = vtk_to_numpy(pixels).reshape(height, width, 3)[::-1].copy()
        return {"rgb": out["rgb"], "ids": out["ids"][..., 0]}

    def _camera(self, K: np.ndarray, T_camera_world: np.ndarray) -> vtk.vtkCamera:
        """A camera with any principal point: T_camera_world looks along +z with y down."""
        T = np.linalg.inv(T_camera_world)
        width, height = self.window.GetSize()
        camera = vtk.vtkCamera()
        camera.SetPosition(*T[:3, 3])
        camera.SetFocalPoint(*(T[:3, 3] + T[:3, 2]))
        camera.SetViewUp(*(-T[:3, 1]))
        n, f = NEAR_M, FAR_M
        rows = np.zeros((4, 4))
        rows[0, 0], rows[0, 2] = 2 * K[0, 0] / width, 1 - 2 * K[0, 2] / width
        rows[1, 1], rows[1, 2] = 2 * K[1, 1] / height, 2 * K[1, 2] / height - 1
        rows[2, 2], rows[2, 3] = -(f + n) / (f - n), -2 * f * n / (f - n)
        rows[3, 2] = -1
        matrix = vtk.vtkMatrix4x4()
        matrix.DeepCopy(rows.ravel().tolist())
        camera.SetClippingRange(n, f)
        camera.SetUseExplicitProjectionTransformMatrix(True)
        camera.SetExplicitProjectionTransformMatrix(matrix)
        return camera


if __name__ == "__main__":
    serve(ANSWERS, Stage)
