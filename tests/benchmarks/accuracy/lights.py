"""Lights from balls, against the twin's truth and in photographs: run this file.

Frames come from the simulated twin (12 bits, noise, blur, distortion, two exposures) with balls in chance
places; nothing is given to the calibration but the frames, the lens and the balls' diameter. Prints one table
and exits with 1 when a bound is missed. Some ten minutes; ``--quick`` takes a quarter of the scenes and
``--real`` the photographs alone (half a minute).
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from real import find_data, table
from scipy.spatial.transform import Rotation

from calibration.geometry import Float, angle_deg, normalize, tangent_basis
from calibration.lights.fit import fit_lights
from calibration.lights.model import DistantLight, LightSet, NearLight
from calibration.lights.samples import sample_spheres
from calibration.lights.shading import fit_shading
from calibration.provenance import FitError
from calibration.targets.spheres import SphereView, detect_spheres, sphere_from_circle, sphere_from_mask
from rigs.report import Metric
from rigs.simulated import Twin
from rigs.simulated.truth import parse_truth

WIDTH, HEIGHT = 1920, 1200
SENSOR = {"full_well_e": 32500, "gain_dn_per_e": 0.125, "bits": 12, "black_dn": 64, "read_noise_e": 7}
GAIN, TOP, SCENE = 0.125, 4094, np.array([0.0, 0.0, 450.0])


class Seen(NamedTuple):
    """Merged frames of a twin, their variance, and its lights."""

    twin: Twin
    names: list[str]
    images: list[NDArray[np.float32]]
    variances: list[NDArray[np.float32]]


def look(
    things: list[dict[str, Any]], lights: dict[str, Any], focal: float, exposures: Sequence[float]
) -> Seen:
    """Frames of each light at some exposures, the longest that is not saturated taken at each pixel."""
    lens = {
        "width": WIDTH, "height": HEIGHT, "fx": focal, "fy": focal, "cx": WIDTH / 2, "cy": HEIGHT / 2,
        "k1": -0.1, "k2": 0.03,
    }  # fmt: skip
    optics = {"cos4": False, "vignetting": 0.0, "psf_sigma_px": 0.7}
    camera = {"lens": lens, "optics": optics, "sensor": SENSOR}
    poses = {"scene": things}
    twin = Twin(parse_truth({"cameras": {"cam": camera}, "lights": lights, "poses": poses, "ambient": 400}))
    twin.show("scene")
    images, variances = [], []
    for name in lights:
        twin.set_light(name, 1.0)
        value = np.full((HEIGHT, WIDTH), np.nan, np.float32)
        variance = np.full((HEIGHT, WIDTH), np.nan, np.float32)
        for seconds in exposures:
            dn = twin.expose("cam", seconds, 0.0).dn.astype(np.float32)
            take = np.isnan(value) & (dn < TOP)
            electrons = (dn - SENSOR["black_dn"]) / GAIN
            value[take] = electrons[take] / seconds
            variance[take] = (np.maximum(electrons[take], 0) + 60) / seconds**2
        twin.set_light(name, 0.0)
        images.append(value)
        variances.append(variance)
    return Seen(twin, list(lights), images, variances)


def dome(rng: np.random.Generator, count: int) -> Float:
    """Places 300 to 600 mm from the scene, 22 to 75 degrees above its plane."""
    turn = np.arange(count) * 2.39996 + rng.uniform(0, 6.3)
    up = np.arcsin(rng.uniform(0.38, 0.96, count))
    ray = np.stack([np.cos(turn) * np.cos(up), np.sin(turn) * np.cos(up), -np.sin(up)], axis=-1)
    return np.asarray(ray * rng.uniform(300, 600, count)[:, None] + SCENE)


def suns(rng: np.random.Generator, count: int) -> dict[str, Any]:
    return {
        f"lamp{i:02d}": {"kind": "distant", "direction": d.tolist(), "intensity": 1.2e6}
        for i, d in enumerate(normalize(dome(rng, count) - SCENE))
    }


def lamps(rng: np.random.Generator, count: int, order: float) -> dict[str, Any]:
    return {
        f"lamp{i:02d}": {
            "kind": "near",
            "position_mm": p.tolist(),
            "intensity": 2.4e11 * rng.uniform(0.7, 1.3),
            "axis": normalize(SCENE - p + 40 * rng.normal(size=3)).tolist(),
            "order": order,
        }
        for i, p in enumerate(dome(rng, count))
    }


def ball(centre: Float, radius: float, finish: str) -> dict[str, Any]:
    return {
        "kind": "sphere", "finish": finish, "centre_mm": centre.tolist(), "radius_mm": radius,
        "reflectance": 0.6,
    }  # fmt: skip


def backdrop(z_mm: float) -> dict[str, Any]:
    return {"kind": "plane", "translation_mm": [0, 0, z_mm], "albedo": 0.25}


def ring(rng: np.random.Generator, radius_mm: float) -> Float:
    """Four places round the scene."""
    turn = np.radians(rng.uniform(0, 90) + np.arange(4) * 90)
    return np.stack(
        [radius_mm * np.cos(turn), 0.95 * radius_mm * np.sin(turn), 450 + rng.uniform(-2, 2, 4)], -1
    )


class Errors(NamedTuple):
    """Of some lights: degrees or mm, and divided by what was claimed."""

    off: list[float]
    relative: list[float]
    irradiance: list[float]


def judged(found: LightSet, seen: Seen, errors: Errors) -> None:
    """Add a set's errors."""
    true = seen.twin.lights("cam")
    points = SCENE + np.random.default_rng(0).uniform(-50, 50, (20, 3))
    ratio = []
    for name, light in found.lights.items():
        if light.covariance is None or light.kind != true[name].kind:
            errors.off.append(float("nan"))
            continue
        if isinstance(light, NearLight):
            gap = np.asarray(light.position_mm) - true[name].position_mm
            errors.off.append(float(np.linalg.norm(gap)))
        else:
            gap = tangent_basis(light.direction) @ np.asarray(true[name].direction)
            errors.off.append(float(angle_deg(light.direction, true[name].direction)))
        errors.relative.extend(np.linalg.solve(np.linalg.cholesky(light.covariance), gap).tolist())
        ratio.append(float(np.mean(light.at(points)[1] / true[name].at(points)[1])))
    errors.irradiance.extend((np.array(ratio) / np.mean(ratio) - 1).tolist())


def scatter(errors: Errors, bound: bool) -> Iterator[Metric]:
    """Claimed against true errors."""
    std = float(np.std(errors.relative))
    yield Metric(
        quantity="error over claimed sigma: standard deviation", value=std, bound=1.2 if bound else None,
        passed=(0.8 <= std <= 1.2) if bound else None, note=f"0.8 to 1.2; {len(errors.relative)} numbers",
    )  # fmt: skip


def one_ball(finish: str, scenes: int) -> Iterator[Metric]:
    """Distant lights by one ball of 100 to 160 px anywhere in a field of 60 degrees."""
    errors, focal = Errors([], [], []), WIDTH / 2 / np.tan(np.radians(30))
    for seed in range(scenes):
        rng = np.random.default_rng(seed)
        ray = normalize(
            np.array([rng.uniform(-0.85, 0.85) * WIDTH / 2, rng.uniform(-0.75, 0.75) * HEIGHT / 2, focal])
        )
        centre = ray * 20 * focal / rng.uniform(100, 150)
        seen = look(
            [ball(centre, 20, finish), backdrop(float(centre[2]) + 60)], suns(rng, 8), focal, (0.02, 0.002)
        )
        lens = seen.twin.lens("cam")
        try:
            views = detect_spheres(seen.images, lens, count=1, finish=finish)
        except FitError:
            errors.off.append(float("nan"))
            continue
        if finish == "mirror":
            found = fit_lights(seen.names, seen.images, views, lens)
        else:
            found = fit_shading(seen.names, sample_spheres(seen.images, seen.variances, views, lens))
        judged(found, seen, errors)
    off = np.array(errors.off)
    bounds = (0.1, 0.3) if finish == "mirror" else (None, None)
    yield Metric(
        quantity="direction, mean", value=off.mean(), unit="°", bound=bounds[0], note=f"{len(off)} lights"
    )
    yield Metric(quantity="direction, greatest", value=off.max(), unit="°", bound=bounds[1])
    yield from scatter(errors, bound=False)


def four_balls(finish: str, scenes: int) -> Iterator[Metric]:
    """Near lights at 300 to 600 mm: mirror balls of 20 mm on a ring of 160 mm, matte ones of 40 mm on 120."""
    errors = Errors([], [], [])
    radius, reach = (10.0, 80.0) if finish == "mirror" else (20.0, 60.0)
    for seed in range(scenes):
        rng = np.random.default_rng(seed)
        things = [ball(centre, radius, finish) for centre in ring(rng, reach)]
        exposures = (0.03, 0.001) if finish == "mirror" else (0.02, 0.005)
        seen = look([*things, backdrop(500)], lamps(rng, 12, 1.5), 2250, exposures)
        lens = seen.twin.lens("cam")
        try:
            views = detect_spheres(seen.images, lens, count=4, finish=finish)
        except FitError:
            errors.off.append(float("nan"))
            continue
        if finish == "mirror":
            found = fit_lights(seen.names, seen.images, views, lens, sphere_radius_mm=radius)
        else:
            samples = sample_spheres(
                seen.images, seen.variances, views, lens, radius_mm=radius, reflectance=0.6
            )
            found = fit_shading(seen.names, samples)
        judged(found, seen, errors)
    off = np.array(errors.off)
    yield Metric(
        quantity="position, median", value=np.median(off), unit="mm",
        bound=1.5 if finish == "mirror" else None,
        note=f"{len(off)} lights",
    )  # fmt: skip
    yield Metric(quantity="position, greatest", value=off.max(), unit="mm")
    yield from scatter(errors, bound=finish == "mirror")
    if finish == "matte":
        yield Metric(
            quantity="irradiance against the other lights, greatest error",
            value=100 * np.abs(errors.irradiance).max(), unit="%",
        )  # fmt: skip


def against_marks(name: str, seen: SphereView, marked: SphereView, points: Float) -> Iterator[Metric]:
    """A circle found against the one through points marked by hand, whose scatter tells its sigma."""
    away = points - points.mean(axis=0)
    turn = np.arctan2(away[:, 1], away[:, 0])
    design = np.stack([np.cos(turn), np.sin(turn), np.ones(len(turn))], axis=-1)
    middle, *_ = np.linalg.lstsq(np.c_[2 * away, np.ones(len(away))], np.sum(away**2, axis=1))
    off = np.hypot(*(away - middle[:2]).T) - marked.radius_px
    sigma = np.sqrt(off @ off / (len(off) - 3) * np.diag(np.linalg.inv(design.T @ design)))
    claimed = np.sqrt(np.diag(seen.covariance))
    yield Metric(
        quantity=f"{name}: centre against the marks",
        value=float(np.hypot(*(seen.centre_px - marked.centre_px))), unit="px", bound=1.5,
        note=f"sigma of the marks {np.hypot(*sigma[:2]):.1f}, of ours {np.hypot(*claimed[:2]):.1f}",
    )  # fmt: skip
    yield Metric(
        quantity=f"{name}: radius against the marks",
        value=abs(seen.radius_px - marked.radius_px), unit="px", bound=1.5,
        note=f"sigma of the marks {sigma[2]:.1f}, of ours {claimed[2]:.1f}",
    )  # fmt: skip


def real(folder: Path) -> Iterator[Metric]:
    """Two mirror balls beside one object; a mirror and a matte ball under the same lights."""
    flip = np.array([1.0, -1.0, -1.0])
    for name in ("cat", "frog"):
        found: dict[str, list[Float]] = {"found": [], "marked": [], "listed": []}
        circles: list[Metric] = []
        for probe in (1, 2):
            place = folder / "two_spheres" / name / f"LightProbe-{probe}"
            files = [str(place / f"Image_{i:02d}.JPG") for i in range(1, 21)]
            images = [cv2.imread(file, cv2.IMREAD_GRAYSCALE).astype(np.float32) for file in files]
            images = [np.where(image >= 250, np.nan, image) for image in images]
            x, y, radius = np.loadtxt(place / "circle_data.txt")
            marked = sphere_from_circle((x - 1, images[0].shape[0] - y), radius, None)
            (seen,) = detect_spheres(images, None, count=1)
            circles += against_marks(
                f"two_spheres/{name}, circle {probe}", seen, marked,
                np.loadtxt(folder / "two_spheres" / name / "ManualData" / f"circle{probe}_pts.txt"),
            )  # fmt: skip
            for key, views in (("found", (seen,)), ("marked", (marked,))):
                lights = fit_lights([str(i) for i in range(20)], images, views, None).lights.values()
                found[key].append(np.array([v.direction for v in lights if isinstance(v, DistantLight)]))
            found["listed"].append(np.loadtxt(place / "light_directions.txt").T * flip)
        yield from circles
        both = {key: normalize(a + b) for key, (a, b) in found.items()}
        for key in ("found", "marked"):
            own = [angle_deg(a, b).mean() for a, b in zip(found[key], found["listed"], strict=True)]
            yield Metric(
                quantity=f"two_spheres/{name}, circles {key}: both against light_directions.txt",
                value=angle_deg(both[key], both["listed"]).mean(), unit="°", bound=0.7,
                note="each against its own: " + ", ".join(f"{value:.2f}" for value in own),
            )  # fmt: skip
            # The balls stand side by side: neither parallax nor the view turns one about the row of both.
            turn = Rotation.align_vectors(found[key][1], found[key][0])[0].as_rotvec(degrees=True)[0]
            yield Metric(
                quantity=f"two_spheres/{name}, circles {key}: sphere 2 turned about the row of both",
                value=turn, unit="°", truth=0.0, note="0.1 ° is 0.5 px of a centre; sigma 0.1 °",
            )  # fmt: skip
        yield Metric(
            quantity=f"two_spheres/{name}: sphere 1 against sphere 2",
            value=angle_deg(*found["found"]).mean(), unit="°", bound=1.2,
            truth=angle_deg(*found["listed"]).mean(), note="published: their own files",
        )  # fmt: skip
    sets = []
    for name in ("chrome", "gray"):
        place = folder / "psm" / name
        images = [
            cv2.imread(str(place / f"{name}.{i}.png"), cv2.IMREAD_GRAYSCALE).astype(np.float32)
            for i in range(12)
        ]
        images = [np.where(image >= 250, np.nan, image) for image in images]
        views = [sphere_from_mask(cv2.imread(str(place / f"{name}.mask.png"), 0) > 127, None)]
        names = [str(i) for i in range(12)]
        if name == "chrome":
            sets.append(fit_lights(names, images, detect_spheres(images, None, count=1), None))
        else:
            samples = sample_spheres(images, [np.ones_like(image) for image in images], views, None)
            sets.append(fit_shading(names, samples))
    chrome, gray = (np.array([light.direction for light in s.lights.values()]) for s in sets)
    yield Metric(
        quantity="psm: chrome ball against the gray ball's shading", value=angle_deg(chrome, gray).mean(),
        unit="°", bound=2.3, truth=2.3, note="published: a Lambertian fit",
    )  # fmt: skip


def twin(*, quick: bool) -> list[Metric]:
    """Rows of all scenes of the twin."""
    share = 4 if quick else 1
    rows: list[Metric] = []
    for finish in ("mirror", "matte"):
        rows += [r.replace(section=f"one {finish} ball") for r in one_ball(finish, 16 // share)]
        rows += [r.replace(section=f"four {finish} balls") for r in four_balls(finish, 12 // share)]
    return rows


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a quarter of the scenes")
    parser.add_argument("--real", action="store_true", help="the photographs alone")
    arguments = parser.parse_args()
    rows = [] if arguments.real else twin(quick=arguments.quick)
    data = find_data()
    if (data / "two_spheres").is_dir() and (data / "psm").is_dir():
        rows += [r.replace(section="photographs") for r in real(data)]
    else:
        print(f"two_spheres, psm: not in {data}; set GNOMON_DATA to where the data are")
    print(table(rows))
    return int(any(row.passed is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
