"""The chapter of a lens: parameters, residuals, uncertainty, halves, and what to take next."""

from collections.abc import Iterator

import numpy as np

from calibration.lens import LensModel
from calibration.lens.agreement import compare_halves, influence
from calibration.lens.guidance import idle_views, seen_board, suggest_views
from calibration.lens.uncertainty import free_parameters, image_grid, projection_sigma, working_distance_mm
from calibration.lens.verdict import place_in_words
from rigs.report import lens_plots
from rigs.report.layout import Figure, Section, Table, figure, number, quality_rows, with_sigma
from rigs.workflows import view_name

_NEXT = 3


def lens_section(lens: LensModel | None) -> Section:
    """Chapter of a lens model; one that comes without the corners of its fit has its numbers only."""
    if lens is None:
        return Section("Lens", missing=("No lens model: rays are taken as parallel.",))
    if lens.observations is None or lens.views is None or not free_parameters(lens).any():
        return Section(
            "Lens",
            rows=(*_parameters(lens), *quality_rows(lens.quality)),
            missing=("Residuals and uncertainty: the model comes without the corners of its fit.",),
        )
    figures, rows = _evidence(lens)
    return Section(
        "Lens",
        tuple(figures),
        (*_parameters(lens), *rows, *quality_rows(lens.quality)),
        (),
        tuple(_tables(lens)),
    )


def _evidence(lens: LensModel) -> tuple[list[Figure], list[tuple[str, str]]]:
    assert lens.views is not None
    names = [view_name(lens, i) for i in range(len(lens.views))]
    distance, grid = working_distance_mm(lens), image_grid(lens)
    sigma = projection_sigma(lens, distance, grid)
    idle = idle_views(lens)
    rows = [("Views", f"{int(np.isfinite(lens.views[:, 0]).sum())} of {len(lens.views)} in use")]
    if np.isfinite(sigma).any():
        worst = place_in_words(lens, grid.reshape(-1, 2)[int(np.nanargmax(sigma))])
        rows += [
            ("Distance of the boards", f"{distance:.0f} mm (median)"),
            (
                "Projection there",
                f"σ {number(float(np.nanmedian(sigma)))} px (median), {number(float(np.nanmax(sigma)))} px "
                f"at worst ({worst})",
            ),
        ]
    figures = [
        figure(
            lens_plots.residuals(lens),
            "Residuals",
            "Residuals of the board corners, in place and as a cloud",
            "Where corners were seen and how far the model misses them. The cloud should be round and "
            "centred, and neighbours should differ: a pattern is no noise.",
            wide=True,
        ),
        figure(
            lens_plots.uncertainty(lens, (distance, np.inf)),
            "Uncertainty of the projection",
            f"Standard deviation of the projection over the image {distance:.0f} mm away and at infinity",
            "How well it is known where a point fixed in space is imaged, after a turn and a shift of the "
            "camera are allowed for. White dots: corners.",
            wide=True,
        ),
    ]
    board_points, size, whole = seen_board(lens)
    suggestions = suggest_views(lens, board_points, size, count=_NEXT, whole=whole)
    if suggestions:
        words = "; ".join(f"{i}. {one.words}" for i, one in enumerate(suggestions, start=1))
        figures.append(
            figure(
                lens_plots.coverage(lens, suggestions),
                "Coverage and next views",
                "Where corners were seen, and outlines of the views that would help most",
                f"{words}. The first would take {100 * suggestions[0].gain:.0f} % of the mean variance away.",
                wide=True,
            )
        )
    changed = influence(lens)
    told = f"change it {changed.ratio:.2f} times as much as expected; {changed.limit:.2f} at most"
    rows.append(("Views left out in turn", told))
    compared = compare_halves(lens)
    if compared is not None:
        rows.append(
            (
                "Halves of the views",
                f"differ by {number(compared.rms)} px; {number(compared.expected)} expected, "
                f"{number(compared.limit)} at most",
            )
        )
        figures.append(
            figure(
                lens_plots.halves(lens, compared),
                "Halves of the views",
                "Difference of the lenses fitted to two halves of the views, over the image",
                f"Each half fitted for itself: they differ by {number(compared.rms)} px rms, the covariance "
                f"expects {number(compared.expected)}.",
            )
        )
    figures += [
        figure(
            lens_plots.views(lens, names, idle),
            "Views",
            f"Residual rms of {len(names)} views",
            "Pale: views that add less than 2 % each, 10 % together."
            if idle
            else "Every view adds something.",
        ),
        figure(
            lens_plots.distortion(lens),
            "Distortion",
            "Distortion in px over the angle to the axis",
            "Off the ideal lens, from the centre to four sides; dotted beyond the outermost corner.",
        ),
    ]
    if lens.board is not None:
        figures.append(
            figure(
                lens_plots.board(lens),
                "Board",
                "Height of the board as the fit found it",
                "Shape of the board beside its description.",
            )
        )
    return figures, rows


def _parameters(lens: LensModel) -> Iterator[tuple[str, str]]:
    values = lens.parameters
    sigma = np.zeros(len(values)) if lens.covariance is None else np.sqrt(np.diag(lens.covariance))
    yield "Picture", f"{lens.width} × {lens.height} px"
    yield "Model", lens.MODEL
    if lens.scores is not None:
        yield "Chosen", f"{lens.scores.chosen}: {lens.scores.reason}"
    if lens.covariance_factor > 1:
        yield "Sigmas", f"enlarged {np.sqrt(lens.covariance_factor):.1f} times: the views disagree"
    shown = [i for i, value in enumerate(values.tolist()) if value != 0 or sigma[i] > 0]
    if len(shown) > 20:
        yield "Parameters", str(len(shown))
        shown = shown[:4]
    for i in shown:
        yield lens.names[i], with_sigma(float(values[i]), float(sigma[i]), "px" if i < 4 else "")


def _tables(lens: LensModel) -> Iterator[Table]:
    if lens.scores is not None and lens.scores.candidates:
        rows = tuple(
            (
                f"{one.model} (chosen)" if one.model == lens.scores.chosen else one.model,
                one.failure or "",
                number(one.held_out_rms_px),
                "" if one.worse_px is None else with_sigma(one.worse_px, one.worse_sigma_px or 0.0, ""),
            )
            for one in lens.scores.candidates
        )
        yield Table(
            "Models",
            ("Model", "", "Unseen corners / px", "Worse than the best by / px"),
            rows,
            words=2,
            note=f"Rms of a coordinate, of views left out of the fit in {lens.scores.folds} parts.",
        )
    if lens.board is not None:
        shape = lens.board
        yield Table(
            "Board as found",
            ("Quantity", "Value"),
            (
                ("bulge along x", with_sigma(shape.warp_mm[0], shape.warp_sigma_mm[0], "mm")),
                ("bulge along y", with_sigma(shape.warp_mm[1], shape.warp_sigma_mm[1], "mm")),
                ("height to width of a square", with_sigma(shape.aspect, shape.aspect_sigma, "")),
            ),
        )
