"""The chapter of several cameras: where they stand, what the boards say of it, how sure it is."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.cameras import CameraSet, RigCamera
from calibration.geometry import transform
from rigs.report.drawing import BLUE, GRAY, GREEN, INK, ORANGE, drawing, png
from rigs.report.layout import Section, Table, figure, number, quality_rows, with_sigma

_COLOURS = (BLUE, ORANGE, GREEN, "#7a4fa3", "#b0892a", "#3d8f9b")


def cameras_section(cameras: CameraSet) -> Section:
    """Chapter of the cameras of a rig."""
    figures = [
        figure(
            rig_plan(cameras),
            "Cameras and boards",
            f"{len(cameras.cameras)} cameras and {len(cameras.frames)} boards from above and from the side",
            f"To scale, in the frame of camera {cameras.reference}. Each camera with what it sees, as far "
            "as the boards stand; boards with their print's top edge thick.",
            wide=True,
        )
    ]
    if cameras.observations is not None:
        figures.append(
            figure(
                residual_plots(cameras),
                "Residuals by camera",
                "Residuals of the corners of every camera, as clouds",
                "Measured less modelled place of every corner in use. Each should be round and centred, "
                "and no camera's much larger than another's.",
                wide=True,
            )
        )
    return Section(
        "Cameras",
        tuple(figures),
        (*_rows(cameras), *quality_rows(cameras.quality)),
        (),
        (_poses(cameras), *([_evidence(cameras)] if cameras.observations is not None else [])),
    )


def rig_plan(cameras: CameraSet) -> bytes:
    """Cameras with their fields of view and boards, from above (x, z) and from the side (z, y)."""
    outline = _outline(cameras)
    boards = [] if cameras.boards is None else [transform(b[:3], b[3:], outline) for b in cameras.boards]
    reach = _reach(cameras, boards)
    with drawing(9.5, 4.4, 2) as (figure_, axes):
        for ax, (i, j), words in (
            (axes[0], (0, 2), ("x, mm", "z, mm", "From above")),
            (axes[1], (2, 1), ("z, mm", "y, mm", "From the side")),
        ):
            for board in boards:
                ax.plot(board[:, i], board[:, j], color=GRAY, lw=0.6, alpha=0.8)
                ax.plot(board[:2, i], board[:2, j], color=INK, lw=1.1, alpha=0.6)
            for k, (name, camera) in enumerate(cameras.cameras.items()):
                colour = _COLOURS[k % len(_COLOURS)]
                for a, b in _frustum(camera, reach):
                    ax.plot([a[i], b[i]], [a[j], b[j]], color=colour, lw=0.8, alpha=0.7)
                centre = camera.centre_mm
                ax.plot(centre[i], centre[j], "o", ms=4, color=colour)
                ax.annotate(
                    name, (centre[i], centre[j]), textcoords="offset points", xytext=(5, -10), color=colour
                )
            ax.set(xlabel=words[0], ylabel=words[1], title=words[2], aspect="equal")
            ax.margins(0.06)
        axes[1].invert_yaxis()
        return png(figure_)


def residual_plots(cameras: CameraSet) -> bytes:
    """Cloud of residuals of each camera, one scale for all."""
    rows = np.asarray(cameras.observations)
    used = rows[:, 0] >= 0
    names = list(cameras.cameras)
    shown = names[:6]
    span = 4 * float(np.sqrt(np.mean(rows[used, 7:9] ** 2))) or 1e-3
    with drawing(min(9.5, 2.6 * len(shown) + 0.6), 2.7, len(shown), sharex=True, sharey=True) as (
        figure_,
        axes,
    ):
        for k, (ax, name) in enumerate(zip(np.atleast_1d(axes), shown, strict=True)):
            own = rows[used & (rows[:, 1] == k)]
            ax.scatter(own[:, 7], own[:, 8], s=2, color=_COLOURS[k % len(_COLOURS)], alpha=0.35, lw=0)
            rms = float(np.sqrt(np.mean(own[:, 7:9] ** 2))) if len(own) else float("nan")
            ax.set(title=f"{name}: {rms:.3f} px rms", xlabel="x, px", aspect="equal")
            ax.set(xlim=(-span, span), ylim=(span, -span))
        np.atleast_1d(axes)[0].set_ylabel("y, px")
        return png(figure_)


def _rows(cameras: CameraSet) -> Iterator[tuple[str, str]]:
    yield "Cameras", f"{len(cameras.cameras)}; the rig's frame is that of {cameras.reference}"
    if cameras.frames:
        yield "Board poses", str(len(cameras.frames))
    if cameras.board is not None:
        (x, y), (sx, sy) = cameras.board.warp_mm, cameras.board.warp_sigma_mm
        yield "Sag of the board", f"{with_sigma(x, sx, 'mm')} along x, {with_sigma(y, sy, 'mm')} along y"


def _poses(cameras: CameraSet) -> Table:
    rows = []
    for name, camera in cameras.cameras.items():
        pose = cameras.relative(cameras.reference, name)
        known = name != cameras.reference and bool(np.isfinite(pose.covariance).all())
        sigma = np.sqrt(np.diag(pose.covariance)) if known else np.zeros(6)
        centre = " ".join(number(float(c)) for c in camera.centre_mm)
        rows.append(
            (
                name,
                centre,
                with_sigma(pose.baseline_mm, pose.baseline_sigma_mm if known else 0.0, ""),
                with_sigma(pose.angle_deg, pose.angle_sigma_deg if known else 0.0, ""),
                number(float(np.degrees(np.linalg.norm(sigma[:3])))) if known else "–",
                number(float(np.linalg.norm(sigma[3:]))) if known else "–",
            )
        )
    return Table(
        f"Poses against {cameras.reference}",
        ("Camera", "Centre, mm", "Distance, mm", "Turned, °", "σ of the turn, °", "σ of the place, mm"),
        tuple(rows),
        2,
        "Centre of projection in the rig's frame. The last two are the lengths of the three sigmas together.",
    )


def _evidence(cameras: CameraSet) -> Table:
    rows = np.asarray(cameras.observations)
    used = rows[:, 0] >= 0
    frame = np.where(used, rows[:, 0], -1 - rows[:, 0]).astype(int)
    seers = [set(rows[used & (frame == f), 1].astype(int)) for f in range(len(cameras.frames))]
    out = []
    for k, name in enumerate(cameras.cameras):
        own = rows[:, 1] == k
        out.append(
            (
                name,
                str(sum(k in seer for seer in seers)),
                str(sum(k in seer and len(seer) > 1 for seer in seers)),
                str(int((own & used).sum())),
                str(int((own & ~used).sum())),
                number(float(np.sqrt(np.mean(rows[own & used, 7:9] ** 2)))) if (own & used).any() else "–",
            )
        )
    return Table(
        "What it rests on",
        ("Camera", "Boards", "shared", "Corners", "thrown out", "Residual, px rms"),
        tuple(out),
        1,
        "A board is shared that another camera saw in the same pose.",
    )


def _outline(cameras: CameraSet) -> NDArray[Any]:
    if cameras.observations is None:
        return np.zeros((5, 3))
    points = cameras.observations[:, 2:5]
    (x0, y0, _), (x1, y1, _) = points.min(axis=0), points.max(axis=0)
    return np.array([[x0, y0, 0], [x1, y0, 0], [x1, y1, 0], [x0, y1, 0], [x0, y0, 0]])


def _reach(cameras: CameraSet, boards: list[NDArray[Any]]) -> float:
    """How far to draw what a camera sees: to the boards."""
    centres = np.array([camera.centre_mm for camera in cameras.cameras.values()])
    if not boards:
        return float(np.ptp(centres, axis=0).max()) or 100.0
    middle = np.mean(boards, axis=(0, 1))
    return float(np.median(np.linalg.norm(centres - middle, axis=1)))


def _frustum(camera: RigCamera, reach: float) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Edges of the pyramid that a camera sees, in the rig's frame."""
    lens = camera.lens
    right, bottom = lens.width - 0.5, lens.height - 0.5
    corners = np.array([[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom]])
    middle = np.array([(lens.width - 1) / 2, (lens.height - 1) / 2])
    for inward in np.linspace(0, 0.9, 19):  # a fisheye does not see into its corners
        rays = lens.unproject(corners + inward * (middle - corners))
        if np.isfinite(rays).all():
            break
    ends = camera.centre_mm + reach * (rays @ camera.rotation)
    for k in range(4):
        yield camera.centre_mm, ends[k]
        yield ends[k], ends[(k + 1) % 4]
