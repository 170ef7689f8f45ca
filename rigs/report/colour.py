"""The colour model's chapter of the page: the chart as found, its patches beside the reference, their ΔE."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from calibration.colour import ColourModel
from calibration.colour.spaces import ILLUMINANTS, adaptation, encode_srgb, lab_to_xyz, rgb_to_xyz
from calibration.geometry import Float
from rigs.report.drawing import BLUE, GRAY, INK, ORANGE, drawing, png
from rigs.report.layout import Figure, Section, Table, figure, number, quality_rows, with_sigma

_METHODS = {"matrix": "3 × 3 matrix", "root-polynomial": "root polynomial of degree 2"}


def colour_section(model: ColourModel) -> Section:
    """Chapter of a colour model."""
    figures: list[Figure] = []
    missing: list[str] = []
    if model.picture is not None and model.outlines is not None:
        figures.append(
            figure(
                _found(model),
                "Chart",
                "The ColorChecker as the camera saw it, with the part of each patch that was read",
                "As found, corrected, on a screen: outlined is what was read; an orange cross was left out.",
            )
        )
    else:
        missing.append("Picture of the chart: not given.")
    if model.patches:
        figures.append(
            figure(
                _patches(model),
                "Patches",
                "Each patch: the reference on the left, the camera's colour after correction on the right",
                "Left half: reference; right half: measured and corrected. The number is their ΔE2000.",
            )
        )
        figures.append(
            figure(
                _differences(model),
                "CIEDE2000",
                f"CIEDE2000 difference of each patch, mean {number(model.mean_delta_e)}",
                "Bars: fit to all patches. Dots: the patch was left out of the fit.",
                wide=True,
            )
        )
    gains = ", ".join(number(gain) for gain in model.white_balance)
    x, y = model.illuminant
    rows = [
        ("Method", _METHODS[model.method]),
        ("Output", "linear Rec.709 (primaries of sRGB), white D65"),
        ("Reference", f"{model.reference}, white x {x:.4f}, y {y:.4f}"),
        ("White balance R, G, B", gains),
        ("CIEDE2000", f"mean {number(model.mean_delta_e)}, greatest {number(model.max_delta_e)}"),
        ("CIEDE2000, patch left out", f"mean {number(model.cross_validated_delta_e)}"),
        ("White level", number(model.white_level)),
        ("Stray light", f"{100 * model.stray_light:.2f} % of the white".replace("-", "−")),
    ]
    if model.unevenness is not None:
        rows.append(("Light over the chart", f"varies by {100 * model.unevenness:.1f} %"))
    tables = (_matrix_table(model), *((_patch_table(model),) if model.patches else ()))
    return Section("Colour", tuple(figures), (*rows, *quality_rows(model.quality)), tuple(missing), tables)


def _matrix_table(model: ColourModel) -> Table:
    terms = ("r", "g", "b", "√(rg)", "√(gb)", "√(rb)")[: model.matrix.shape[1]]
    variance = np.zeros(model.matrix.size) if model.covariance is None else np.diag(model.covariance)
    values, sigmas = (np.asarray(a, float).reshape(3, -1) for a in (model.matrix, np.sqrt(variance)))
    rows = tuple(
        (name, *(with_sigma(float(v), float(s), "") for v, s in zip(values[k], sigmas[k], strict=True)))
        for k, name in enumerate("RGB")
    )
    return Table("Matrix, of white-balanced camera colours", ("Output", *terms), rows)


def _patch_table(model: ColourModel) -> Table:
    rows = []
    for patch in model.patches:
        if patch.measured is None or patch.delta_e is None or patch.left_out_delta_e is None:
            rows.append((patch.name, _lab(patch.reference), "–", "–", "–", patch.fault))
        else:
            rows.append(
                (
                    patch.name,
                    _lab(patch.reference),
                    _lab(patch.measured),
                    f"{patch.delta_e:.2f}",
                    f"{patch.left_out_delta_e:.2f}",
                    f"{patch.sigma:.2f}",
                )
            )
    head = ("Patch", "L*a*b* reference", "L*a*b* measured", "ΔE2000", "ΔE2000 left out", "σ of noise")
    return Table("Patches", head, tuple(rows), note="ΔE2000 about 1 is just visible side by side.")


def _lab(values: tuple[float, float, float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values).replace("-", "−")


def _shown(lab: NDArray[np.float64], model: ColourModel) -> Float:
    """SRGB 0..1 of L*a*b* under the reference's white, for the screen."""
    to_rgb = np.linalg.inv(rgb_to_xyz()) @ adaptation(model.illuminant, ILLUMINANTS["D65"])
    return encode_srgb(lab_to_xyz(lab, model.illuminant) @ to_rgb.T)


def _values(values: Iterable[float | None]) -> list[float]:
    return [np.nan if value is None else value for value in values]


def _found(model: ColourModel) -> bytes:
    assert model.picture is not None
    assert model.outlines is not None
    picture = np.asarray(model.picture, np.float64)
    missing = np.asarray(np.isnan(picture).any(axis=-1, keepdims=True))
    shown = encode_srgb(model.apply(np.where(missing, 1.0, picture)))
    h, w = picture.shape[:2]
    with drawing(4.2, 4.2 * h / w) as (drawn, axes):
        axes.imshow(shown, interpolation="nearest")
        for outline, patch in zip(np.asarray(model.outlines), model.patches, strict=True):
            closed = np.vstack([outline, outline[:1]])
            axes.plot(*closed.T, color="white", linewidth=1.6)
            axes.plot(*closed.T, color=INK, linewidth=0.7)
            if patch.fault:
                axes.plot(*outline.mean(axis=0), "x", color=ORANGE, markersize=9, markeredgewidth=2)
        axes.set_xlim(-0.5, w - 0.5)
        axes.set_ylim(h - 0.5, -0.5)
        axes.axis("off")
        return png(drawn)


def _patches(model: ColourModel) -> bytes:
    from matplotlib.patches import Rectangle

    reference = _shown(np.array([patch.reference for patch in model.patches]), model)
    measured = _shown(np.array([patch.measured or patch.reference for patch in model.patches]), model)
    with drawing(4.2, 2.95) as (drawn, axes):
        for index, patch in enumerate(model.patches):
            row, column = divmod(index, 6)
            axes.add_patch(Rectangle((column + 0.04, row + 0.04), 0.46, 0.92, color=reference[index]))
            dark = patch.reference[0] < 55
            if patch.delta_e is None:
                text = "left\nout"
                box = Rectangle(
                    (column + 0.5, row + 0.04), 0.46, 0.92, fill=False, edgecolor=GRAY, hatch="///"
                )
                axes.add_patch(box)
            else:
                text = f"{patch.delta_e:.2f}"
                axes.add_patch(Rectangle((column + 0.5, row + 0.04), 0.46, 0.92, color=measured[index]))
            axes.text(
                column + 0.5, row + 0.84, text, ha="center", va="center", fontsize=7,
                color="white" if dark else INK,
            )  # fmt: skip
        axes.set_xlim(0, 6)
        axes.set_ylim(4, 0)
        axes.set_aspect("equal")
        axes.axis("off")
        return png(drawn)


def _differences(model: ColourModel) -> bytes:
    names = [patch.name for patch in model.patches]
    place = np.arange(len(names))
    with drawing(8.6, 2.7) as (drawn, axes):
        axes.bar(
            place,
            _values(patch.delta_e for patch in model.patches),
            color=BLUE,
            width=0.7,
            label="in the fit",
        )
        axes.plot(
            place,
            _values(patch.left_out_delta_e for patch in model.patches),
            "o",
            color=ORANGE,
            markersize=4,
            label="left out of the fit",
        )
        axes.axhline(model.mean_delta_e, color=INK, linewidth=0.8, label=f"mean {model.mean_delta_e:.2f}")
        axes.set_xticks(place, names, rotation=60, ha="right", rotation_mode="anchor")
        axes.set_ylabel("ΔE2000")
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.set_ylim(bottom=0)
        axes.grid(axis="x", visible=False)
        axes.legend(loc="upper left", ncols=3)
        return png(drawn)
