"""VTK: surfaces, two of them transparent with depth peeling (framebuffer objects), a text, and on demand a volume."""
import os
import sys

import vtkmodules.vtkInteractionStyle  # noqa: F401
import vtkmodules.vtkRenderingFreeType  # noqa: F401
import vtkmodules.vtkRenderingOpenGL2  # noqa: F401
import vtkmodules.vtkRenderingVolumeOpenGL2 as volumes
from vtkmodules.vtkCommonDataModel import vtkPiecewiseFunction
from vtkmodules.vtkFiltersSources import vtkConeSource, vtkSphereSource, vtkSuperquadricSource
from vtkmodules.vtkImagingCore import vtkRTAnalyticSource
from vtkmodules.vtkIOImage import vtkPNGWriter
from vtkmodules.vtkRenderingCore import (vtkActor, vtkColorTransferFunction, vtkPolyDataMapper, vtkRenderer, vtkRenderWindow,
                                         vtkTextActor, vtkVolume, vtkWindowToImageFilter)

sys.path.insert(0, os.path.dirname(os.environ["COMMANDS_MODULE"]))
import commands  # noqa: E402

renderer = vtkRenderer()
renderer.SetBackground(.1, .2, .4)
window = vtkRenderWindow()
window.SetSize(300, 200)
window.SetMultiSamples(0)
window.SetAlphaBitPlanes(1)
window.AddRenderer(renderer)


def add(source, x, opacity, color):
    mapper = vtkPolyDataMapper()
    mapper.SetInputConnection(source.GetOutputPort())
    actor = vtkActor()
    actor.SetMapper(mapper)
    actor.SetPosition(x, 0, 0)
    actor.GetProperty().SetOpacity(opacity)
    actor.GetProperty().SetColor(*color)
    renderer.AddActor(actor)


def add_volume():
    source = vtkRTAnalyticSource()
    source.SetWholeExtent(-8, 8, -8, 8, -8, 8)
    mapper = volumes.vtkOpenGLGPUVolumeRayCastMapper()
    mapper.SetInputConnection(source.GetOutputPort())
    mapper.SetUseJittering(0)
    colors, opacity = vtkColorTransferFunction(), vtkPiecewiseFunction()
    colors.AddRGBPoint(40, 0, 0, 1)
    colors.AddRGBPoint(250, 1, 0, 0)
    opacity.AddPoint(40, 0)
    opacity.AddPoint(250, .4)
    volume = vtkVolume()
    volume.SetMapper(mapper)
    volume.SetScale(.1, .1, .1)
    volume.GetProperty().SetColor(colors)
    volume.GetProperty().SetScalarOpacity(opacity)
    renderer.AddVolume(volume)


def execute(command, picture):
    if command == "volume":
        add_volume()
    else:
        renderer.GetActiveCamera().Azimuth(20)
    window.Render()
    image = vtkWindowToImageFilter()
    image.SetInput(window)
    image.SetInputBufferTypeToRGBA()
    image.ReadFrontBufferOff()
    image.Update()
    writer = vtkPNGWriter()
    writer.SetFileName(picture)
    writer.SetInputConnection(image.GetOutputPort())
    writer.Write()


sphere = vtkSphereSource()
sphere.SetThetaResolution(40)
sphere.SetPhiResolution(40)
add(sphere, 0, 1, (1, .3, .3))
add(vtkConeSource(), 1, .5, (.3, 1, .3))
add(vtkSuperquadricSource(), -1, .6, (.3, .3, 1))
text = vtkTextActor()
text.SetInput("stasis")
renderer.AddActor2D(text)
renderer.SetUseDepthPeeling(1)
renderer.SetMaximumNumberOfPeels(8)
renderer.SetOcclusionRatio(0)
window.Render()
commands.serve(execute)
