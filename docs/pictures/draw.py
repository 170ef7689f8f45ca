"""Draw overview.png of a finished demo: ``python docs/pictures/draw.py out/demo``, from the clone's root."""

import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from calibration.files import load_model, read_exr
from calibration.geometry import angle_deg, normalize
from calibration.lens import LensModel
from calibration.lights.model import LightSet, NearLight
from calibration.radiometric import RadiometricModel
from capture.session import Session
from rigs.report import maps
from rigs.simulated import Twin, load_truth

INK, GRAY, BLUE, ORANGE = "#1c2733", "#5b6673", "#1f6fb2", "#d9661f"
CAMERA, POSE, LIGHT = "top", "relief", "led21"
PIXELS_PER_MM = 6.67
ERRORS_DRAWN = 100


def main(demo: Path) -> None:
    """Six panels: what was seen, what came out, and how far it is from the truth."""
    twin = Twin(load_truth("configs/truths/dome.yaml"))
    true = twin.maps(POSE, CAMERA)
    on_object = true.thing == 0
    found = read_exr(demo / "normals.exr")
    normals = np.stack([found[f"N.{axis}"] for axis in "XYZ"], axis=-1)
    error = angle_deg(normals, true.normals)
    normals[~on_object] = np.nan
    depth = np.where(on_object, read_exr(demo / "depth.exr")["Z"], np.nan)
    plt.rcParams.update({"font.size": 9, "text.color": INK})
    figure = plt.figure(figsize=(12.6, 8.5), dpi=110)
    width, height, gap = 0.322, 0.455, 0.0085
    places = [
        (gap + column * (width + gap), 0.515 - row * 0.505, width, height)
        for row in (0, 1)
        for column in (0, 1, 2)
    ]
    axes = [figure.add_axes(place) for place in places]
    window = maps.window(on_object, 0.045)
    photograph(axes[0], demo, window)
    surface_colours(axes[1], normals[window])
    heights(axes[2], depth[window], normals[window])
    balls(axes[3], demo)
    lamps(axes[4], demo, twin)
    errors(axes[5], np.where(on_object, error, np.nan)[window])
    out = Path(__file__).parent / "overview.png"
    figure.savefig(out)
    # 64 levels a channel look the same and take half the space.
    pixels = np.asarray(Image.open(out).convert("RGB"), np.int16)
    coarse = np.clip((pixels + 2) // 4 * 4 + pixels // 252, 0, 255).astype(np.uint8)
    Image.fromarray(coarse).save(out, optimize=True)
    print(out, out.stat().st_size // 1000, "kB")


def panel(axes: Axes, text: str, image: NDArray[Any] | None = None) -> None:
    """Bare axes under a caption."""
    axes.set_title(text, fontsize=11, loc="left", pad=6, color=INK)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_anchor("N")
    if image is not None:
        axes.imshow(image, interpolation="antialiased")


def scale_bar(axes: Axes, x: float, y: float, length: float, text: str, colour: str) -> None:
    """Horizontal bar with its length above."""
    axes.plot([x, x + length], [y, y], color=colour, lw=2.2, solid_capstyle="butt")
    axes.annotate(
        text, (x + length / 2, y), (0, 3), textcoords="offset points", color=colour, ha="center", va="bottom"
    )


def raw(demo: Path, session: str, exposure: int, **wanted: Any) -> list[NDArray[Any]]:
    """Raw frames less the black level, of the ``exposure``-th exposure time."""
    stack = Session.open(demo / "sessions" / session).stack(CAMERA).select(**wanted)
    times = sorted(set(stack.exposure_s))
    black = load_model(demo / "models" / "sensor.json", RadiometricModel).black_dn
    return [
        np.asarray(frame, np.float32) - black for frame in stack.select(exposure_s=float(times[exposure]))
    ]


def photograph(axes: Axes, demo: Path, window: maps.Window) -> None:
    """One raw frame."""
    (frame,) = raw(demo, POSE, 1, kind="object", light=LIGHT)
    frame = np.maximum(frame[window], 0)
    panel(axes, "One of 72 raw frames: one LED, 20 ms", maps.photograph(maps.shrink(frame, 600), 99.5))
    factor = min(600 / max(frame.shape), 1)
    scale_bar(axes, 16, 0.96 * frame.shape[0] * factor, 20 * PIXELS_PER_MM * factor, "20 mm", "white")


def surface_colours(axes: Axes, normals: NDArray[Any]) -> None:
    """Normals, with the ball that explains the colours."""
    panel(axes, "Normals, from 24 LEDs × 3 exposures", maps.normal_colours(normals))
    inset = axes.inset_axes((0.0, -0.02, 0.14, 0.14))
    ball = maps.normal_ball(200)
    inset.imshow(np.dstack([ball, 255 * (ball < 255).any(axis=-1)]))
    inset.axis("off")


def heights(axes: Axes, depth: NDArray[Any], normals: NDArray[Any]) -> None:
    """Height above the lowest point, shaded, with contours."""
    height = np.nanmax(depth) - depth
    low, high = np.nanpercentile(height, [0.1, 99.9])
    colours = plt.get_cmap("viridis")(0.12 + 0.83 * np.clip((height - low) / (high - low), 0, 1))[..., :3]
    shade = np.clip(normals @ normalize([-0.5, -0.6, -0.9]), 0, 1)[..., None]
    rgb = colours * (0.25 + 0.85 * shade)
    rgb[~np.isfinite(height)] = 1
    panel(axes, "Depth, a contour every 2 mm", np.clip(rgb, 0, 1))
    axes.contour(height, levels=np.arange(2, 40, 2), colors="white", linewidths=0.7, alpha=0.75)


def balls(axes: Axes, demo: Path) -> None:
    """The commissioning pose, and each ball with the highlights of all lights."""
    frames = raw(demo, "lights", 1)
    mean, brightest = np.mean(frames, axis=0), np.max(frames, axis=0)
    lights = load_model(demo / "models" / "lights.json", LightSet)
    lens = load_model(demo / "models" / "lens.json", LensModel)
    panel(axes, "Four mirror balls, all lights overlaid", maps.photograph(maps.shrink(mean, 800), 99.9))
    assert lights.sphere_centres_mm is not None
    centres = lens.project(lights.sphere_centres_mm)
    order = np.lexsort((centres[:, 0], centres[:, 1] > mean.shape[0] / 2))
    for number, (u, v) in enumerate(centres[order]):
        rows, columns = (slice(round(float(at)) - 105, round(float(at)) + 105) for at in (v, u))
        inset = axes.inset_axes((number * 0.2525, -0.4, 0.2425, 0.388))
        inset.imshow(
            maps.photograph(maps.shrink(brightest[rows, columns], 150), 99.3), interpolation="antialiased"
        )
        inset.axis("off")


def lamps(axes: Axes, demo: Path, twin: Twin) -> None:
    """Positions of the lights across the camera's axis, errors enlarged."""
    panel(axes, f"The LEDs found in them, errors ×{ERRORS_DRAWN}")
    lights = load_model(demo / "models" / "lights.json", LightSet)
    true = twin.lights(CAMERA)
    for name, light in lights.lights.items():
        known = true[name]
        assert isinstance(light, NearLight)
        assert isinstance(known, NearLight)
        at, off = np.array(known.position_mm), np.subtract(light.position_mm, known.position_mm)
        axes.plot(*at[:2], "o", ms=15, mfc="none", mew=1.1, color=ORANGE)
        axes.plot(*np.array([at, at + ERRORS_DRAWN * off])[:, :2].T, color=BLUE, lw=1.6)
        axes.plot(*(at + ERRORS_DRAWN * off)[:2], "o", ms=4.5, color=BLUE)
    axes.add_patch(Rectangle((-60, -55), 120, 110, angle=4, rotation_point="center", color="#e3e7eb", lw=0))
    axes.text(0, 0, "object", color=GRAY, ha="center", va="center", fontsize=9)
    axes.set(aspect="equal", xlim=(-375, 375), ylim=(338, -338))
    axes.plot(-350, -312, "o", ms=15, mfc="none", mew=1.1, color=ORANGE)
    axes.text(-325, -312, "true", va="center", color=ORANGE)
    axes.plot(-350, -270, "o", ms=4.5, color=BLUE)
    axes.text(-325, -270, "found", va="center", color=BLUE)
    scale_bar(axes, -370, 328, 100, "100 mm", GRAY)


def errors(axes: Axes, error: NDArray[Any]) -> None:
    """Angle between found and true normals."""
    low = maps.shrink(error, 190)
    colours = plt.get_cmap("magma")(np.clip(np.nan_to_num(low) / 0.5, 0, 1))[..., :3]
    colours[~np.isfinite(low)] = 1
    panel(axes, f"Angle to the true normal, mean {np.nanmean(error):.2f}°", colours)
    bar = axes.inset_axes((0.03, 0.0, 0.22, 0.022))
    bar.imshow(np.linspace(0, 1, 64)[None], aspect="auto", cmap="magma")
    bar.set(xticks=[], yticks=[])
    bar.text(-2, 0, "0", ha="right", va="center")
    bar.text(66, 0, "0.5°", ha="left", va="center")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
