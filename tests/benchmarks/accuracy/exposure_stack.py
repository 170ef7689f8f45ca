"""A raw exposure stack of a real camera: are its exposures recovered, are its residuals its noise?

Flea3, CCD, Bayer GBRG, a target of disks under 550 nm (B. Llanos): 25 to 3916 ms, two darks an exposure, 12
bits kept as 8. Nothing is published but the times; what the numbers say of the camera stands in the notes:
its response bends by 4 to 5 % towards full scale, its black level is cut off at DN 0, and samples beside a
saturated one read up to 3 DN too much.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from commands import bring_in, gnomon

from calibration.files import load_model, read_exr_attributes
from rigs.report import Metric
from rigs.workflows import MergeRecord

MERGE = "merge {work}/stack --margin 2 --exposures {exposures} --out {work}/{exposures}"
REPORT = "report {work}/refined"


def stack_rows(data: Path) -> Iterator[dict[str, object]]:
    """Rows of the manifest, from the names of the files."""
    for path in sorted(data.glob("*.tif")):
        found = re.search(r"_(\d+)ms_", path.name)
        assert found is not None
        kind = "dark" if "_dark_" in path.name else "object"
        yield {"file": path, "kind": kind, "exposure_s": repr(int(found[1]) / 1000)}


def exposure_stack(data: Path, work: Path) -> Iterator[Metric]:
    """Rows of the table, from the records that ``gnomon merge`` leaves."""
    bring_in(work, "stack", stack_rows(data), options="--bayer GBRG")
    records = {}
    for exposures in ("auto", "refined", "told"):
        gnomon(MERGE, work=work, exposures=exposures)
        records[exposures] = load_model(work / exposures / "object.json", MergeRecord)
    gnomon(REPORT, work=work)
    record = records["refined"]
    order = np.argsort(record.told_s)
    told, found, sigma, systematic = (
        np.array(values)[order] for values in (record.told_s, record.found_s, record.sigma, record.systematic)
    )
    known = np.isfinite(sigma)
    yield Metric(
        quantity="exposures with clear samples", value=int(known.sum()), bound=5, at_least=True,
        note="of 7; at 2 and 3.9 s every sample lies next to a saturated one",
    )  # fmt: skip
    for k in range(int(known.sum()) - 1):
        ratio, nominal = found[k + 1] / found[k], told[k + 1] / told[k]
        near = bool(abs(ratio / nominal - 1) < 0.03)
        spread = ratio * np.hypot(np.hypot(*sigma[k : k + 2]), np.hypot(*systematic[k : k + 2]))
        yield Metric(
            quantity=f"ratio of {1e3 * told[k + 1]:.0f} to {1e3 * told[k]:.0f} ms", value=ratio,
            truth=nominal, sigma=float(spread), bound=1.03 * nominal, passed=near,
            note="published: as told; bound: 3 % to either side",
        )  # fmt: skip
    yield Metric(
        quantity="exposures taken as told by auto", value=float(not records["auto"].refined), bound=1.0,
        at_least=True, note="what they are off, dim and bright samples disagree by",
    )  # fmt: skip
    for name in ("G1", "G2"):
        for exposures, bounded in (("refined", True), ("told", False)):
            chi2 = records[exposures].chi2_colour.get(name, np.nan)
            yield Metric(
                quantity=f"reduced chi^2, {name}, exposures {exposures}", value=chi2,
                bound=1.1 if bounded else None, passed=bool(0.9 <= chi2 <= 1.1) if bounded else None,
                note="noise from one half of the pixels, chi^2 on the other; 0.9 to 1.1",
            )  # fmt: skip
    bright = [row for row in record.chi2_signal if row[0] > 1000]
    chi2 = sum(row[1] * row[3] for row in bright) / sum(row[3] for row in bright)
    yield Metric(
        quantity="reduced chi^2, all colours, above 1000 e-", value=chi2, bound=1.1,
        passed=bool(0.9 <= chi2 <= 1.1), note="about 38 DN",
    )  # fmt: skip
    yield Metric(
        quantity="reduced chi^2, all unsaturated samples", value=record.chi2,
        note="blue and red, at 1 to 15 DN, are not linear: black cut off at DN 0, bright neighbours; there "
        f"it is {record.chi2_colour['B']:.2g} and {record.chi2_colour['R']:.2g}",
    )  # fmt: skip
    yield Metric(
        quantity="bend at full scale, if the told exposures are right", value=record.bend_percent,
        sigma=record.bend_sigma_percent, unit="%",
        note=f"with it and black off by {record.black_off_dn:.2g} DN, reduced chi^2 {record.bend_chi2:.3g}",
    )  # fmt: skip
    yield Metric(
        quantity="samples marked as moved", value=100 * float(np.mean(record.moved)), unit="%", bound=0.1,
        note="nothing moves",
    )  # fmt: skip
    written = read_exr_attributes(work / "refined" / "object.exr")["expTime"]
    used = record.used_s[record.reference]
    yield Metric(
        quantity="expTime in the EXR",
        value=written,
        unit="s",
        truth=used,
        passed=bool(np.isclose(written, used)),
    )
