"""Merged radiance on the page: the picture, its SNR, what moved, and how the frames agree."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.files import load_model, read_exr
from calibration.provenance import Array, Model
from rigs.report import maps
from rigs.report.drawing import BLUE, GRAY, INK, drawing, png
from rigs.report.layout import MAP_PX, Figure, Section, Table, figure, image, number, scalar, with_sigma
from rigs.workflows import MergeRecord

_MOST = 12  # pictures shown with maps; the others in the table of all


class MergedPicture(Model):
    """One radiance picture and its record.

    Attributes
    ----------
    value, snr : ndarray, (h, w) or (h, w, 3), as small as the page shows them
    motion : ndarray (h, w) or None
        Frames left out at a pixel.
    record : MergeRecord
    """

    value: Array
    snr: Array
    motion: Array | None = None
    record: MergeRecord


def kind_of(path: Path) -> str:
    """Which model a JSON file holds, as its ``kind`` says; empty where it says none or is no such file."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return ""
    return str(content.get("kind", "")) if isinstance(content, dict) else ""


def read_merged(folder: Path) -> Iterator[MergedPicture]:
    """Pictures that ``gnomon merge`` wrote into a folder, in the order of their names."""
    for path in sorted(folder.glob("*.exr")):
        beside = path.with_suffix(".json")
        if kind_of(beside) != "merge":
            continue
        channels = read_exr(path)
        letters = "Y" if "Y" in channels else "RGB"
        value, sigma = (
            np.stack([channels[prefix + letter] for letter in letters], axis=-1) for prefix in ("", "sigma.")
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            snr = (value / sigma).mean(axis=-1)
        motion = channels.get("motion")
        yield MergedPicture(
            value=maps.shrink(value[..., 0] if letters == "Y" else value, MAP_PX),
            snr=maps.shrink(snr, MAP_PX),
            motion=None if motion is None else maps.shrink(motion, MAP_PX),
            record=load_model(beside, MergeRecord),
        )


def merged_sections(pictures: tuple[MergedPicture, ...]) -> Iterator[Section]:
    """A chapter for each of the first pictures, and one that lists the rest."""
    for picture in pictures[:_MOST]:
        yield _section(picture)
    rest = pictures[_MOST:]
    if rest:
        head = ("Picture", "Frames", "Reduced χ²", "Moved, %", "Exposures")
        rows = tuple(
            (
                p.record.picture,
                str(len(p.record.frames)),
                number(p.record.chi2),
                number(100 * float(np.mean(p.record.moved))),
                "refined" if p.record.refined else "told",
            )
            for p in rest
        )
        yield Section("Radiance of the other pictures", tables=(Table("All others", head, rows),))


def _section(picture: MergedPicture) -> Section:
    record = picture.record
    rows = [
        ("Units", record.units),
        ("Frames", f"{len(record.frames)}, {number(min(record.told_s))} to {number(max(record.told_s))} s"),
        ("Exposures used", "found in the pictures" if record.refined else "as told"),
        ("Reduced χ²", number(record.chi2)),
        ("Reduced χ², by the median", number(record.chi2_robust)),
        ("Moved", f"{number(100 * float(np.mean(record.moved)))} % of the samples"),
        ("Margin about saturation", f"{record.margin_px} px"),
        ("Without a valid sample", f"{number(100 * float(np.mean(~np.isfinite(picture.snr))))} %"),
    ]
    rows += [(f"Reduced χ² of {name}", number(value)) for name, value in record.chi2_colour.items()]
    if np.isfinite(record.bend_percent):
        rows += [
            ("Bend at full scale", with_sigma(record.bend_percent, record.bend_sigma_percent, "%")),
            ("Black level off by", with_sigma(record.black_off_dn, record.black_off_sigma_dn, "DN")),
            ("Reduced χ² with both, told exposures", number(record.bend_chi2)),
        ]
    if record.scale:
        rows.append(("Scale", f"{number(record.scale)} cd/m² a unit, ± {number(100 * record.scale_sigma)} %"))
    figures = [
        image(
            maps.photograph(_compressed(picture.value)),
            "Radiance",
            f"Merged radiance of {record.picture}, brightness compressed",
            "Brightness compressed, so that light and shadow show. White: no valid sample.",
        ),
        scalar(
            picture.snr,
            "Signal to noise",
            f"Radiance over its sigma, {record.picture}",
            "",
            "Radiance over its own sigma.",
        ),
    ]
    if picture.motion is not None and np.nanmax(picture.motion) > 0:
        figures.append(
            scalar(
                picture.motion,
                "Moved",
                f"Frames left out at each pixel of {record.picture}",
                "frames",
                "How many frames were left out at a pixel: they show another scene than the reference.",
            )
        )
    if record.chi2_signal:
        figures.append(_chi2_figure(record))
    return Section(f"Radiance: {record.picture}", tuple(figures), tuple(rows), tables=(_table(record),))


def _table(record: MergeRecord) -> Table:
    head = (
        "Frame",
        "Told, s",
        "Off, %",
        "± σ, %",
        "± syst., %",
        "Used, s",
        "Reduced χ²",
        "Shift, px",
        "Moved, %",
    )
    order = np.argsort(record.told_s, kind="stable")
    lines = []
    for i in order:
        known = np.isfinite(record.sigma[i])
        off = 100 * (record.found_s[i] / record.told_s[i] - 1)
        shift = float(np.hypot(*record.shift_px[i])) if record.shift_px else float("nan")
        lines.append(
            (
                Path(record.frames[i]).name + (" (reference)" if i == record.reference else ""),
                number(record.told_s[i]),
                number(off, 100 * record.sigma[i]) if known else "–",
                number(100 * record.sigma[i]),
                number(100 * record.systematic[i]),
                number(record.used_s[i]),
                number(record.chi2_frame[i]),
                number(shift),
                number(100 * record.moved[i]),
            )
        )
    return Table(
        "Frames",
        head,
        tuple(lines),
        note="Off: exposure by the pictures against told, on the scale of the told. Systematic: what dim and "
        "bright pixels disagree by.",
    )


def _compressed(value: NDArray[Any]) -> NDArray[np.float32]:
    """Global tone curve L / (L + L_log-mean), of the mean over colours."""
    level = np.asarray(value if value.ndim == 2 else value.mean(axis=-1), np.float32)
    bright = level[np.isfinite(level) & (level > 0)]
    middle = float(np.exp(np.mean(np.log(bright)))) if bright.size else 1.0
    with np.errstate(invalid="ignore"):
        factor = 1 / (np.maximum(level, 0) + 2 * middle)
    return np.asarray(value * (factor if value.ndim == 2 else factor[..., None]), np.float32)


def _chi2_figure(record: MergeRecord) -> Figure:
    signal, chi2, off, _ = np.array(record.chi2_signal).T
    with drawing(7.2, 2.6, 2) as (sheet, (left, right)):
        left.axhline(1, color=GRAY, linewidth=0.8)
        left.plot(signal, chi2, "o-", color=BLUE, markersize=3.5)
        left.set(xscale="log", xlabel="signal of a sample, e⁻", title="Reduced χ²")
        left.set_ylim(0, max(2.0, 1.1 * float(np.nanmax(chi2))))
        right.axhline(0, color=GRAY, linewidth=0.8)
        right.plot(signal, off, "o-", color=INK, markersize=3.5)
        right.set(xscale="log", xlabel="signal of a sample, e⁻", title="Mean residual, %")
        picture = png(sheet)
    return figure(
        picture,
        "Residuals against the noise",
        f"Reduced chi squared and mean residual over the signal, {record.picture}",
        "Left: 1 is what the noise explains. Right: samples against the merge; a slope is a response that is "
        "not linear, a rise at the dark end a black level that is off.",
        wide=True,
    )
