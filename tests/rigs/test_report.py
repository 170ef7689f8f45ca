"""The report: every number and model given is on the page, and what is missing is said."""

import base64
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.files import save_model, write_exr
from calibration.lens import BrownConrady
from calibration.lights.model import DistantLight, LightSet, NearLight
from calibration.photometric import NormalMap
from calibration.provenance import Provenance, Quality
from calibration.radiometric import RadiometricModel
from rigs.config import ConfigError
from rigs.report import (
    Metric,
    Report,
    SphereSight,
    Surface,
    maps,
    report_directory,
    write_report,
)
from rigs.report.layout import number

H, W = 60, 80


def ball_normals() -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    y, x = np.mgrid[:H, :W]
    x, y = (x - 40) / 25, (y - 30) / 25
    valid = x**2 + y**2 < 0.95
    z = -np.sqrt(np.where(valid, 1 - x**2 - y**2, 1))
    normals = np.where(valid[..., None], np.stack([x, y, z], axis=-1), np.nan)
    return normals.astype(np.float32), valid


def normal_map(**changes: object) -> NormalMap:
    normals, valid = ball_normals()
    blank = np.where(valid, np.float32(1), np.float32(np.nan))
    model = NormalMap(
        normals=normals,
        albedo=0.5 * blank,
        valid=valid,
        sigma_deg=0.3 * blank,
        lights_used=(8 * valid).astype(np.uint8),
        quality=Quality(residual_rms=1.0, unit="sigma", observations=12345),
        provenance=Provenance(session="ab" * 32, code_version="0.1.0", options={"method": "robust"}),
    )
    return model.replace(**changes)


def sensor() -> RadiometricModel:
    exposure = np.geomspace(1e-3, 1e-1, 12)
    mean = 64 + exposure * 3e4
    variance = 0.125 * (mean - 64) + 0.8
    return RadiometricModel(
        width=W,
        height=H,
        pixel_format="Mono12",
        black_dn=64,
        gain_dn_per_e=0.125,
        read_noise_e=7,
        saturation_dn=4000,
        gain_sigma_dn_per_e=0.0004,
        flat_map=np.ones((H, W), np.float32),
        photon_transfer=np.stack([exposure, mean, variance, mean < 2000], axis=1),
        quality=Quality(
            residual_rms=0.1, unit="%", observations=12, verdict="doubtful", warnings=("the lamp <flickers>",)
        ),
    )


def near_lights(offset: float = 0.0) -> LightSet:
    return LightSet(
        lights={
            f"led{i}": NearLight(position_mm=(100.0 * i + offset, -50.0 * i, 100.0), covariance=np.eye(3))
            for i in range(4)
        },
        sphere_centres_mm=np.array([[0.0, 0.0, 450.0], [70.0, 0.0, 450.0]]),
        sphere_radius_mm=12.0,
    )


def whole_report() -> Report:
    normals, _ = ball_normals()
    depth = np.where(np.isfinite(normals[..., 2]), 450 + 25 * normals[..., 2], np.nan)
    rng = np.random.default_rng(3)
    observations = np.zeros((50, 8))
    observations[:, 0] = np.repeat(np.arange(5), 10)
    observations[:, 4:6] = rng.uniform(0, H, (50, 2))
    observations[:, 6:8] = rng.normal(size=(50, 2)) * 0.05
    return Report(
        title="A <rig>",
        summary="A summary.",
        metrics=(
            Metric(section="Sensor", quantity="gain", value=0.12496, truth=0.125, sigma=0.0002, unit="DN/e⁻"),
            Metric(section="Lights", quantity="worst position", value=6.4, bound=6.0, unit="mm"),
            Metric(section="Lights", quantity="boards found", value=19, bound=15, at_least=True),
        ),
        surfaces=(
            Surface(
                name="ball",
                normals=normal_map(),
                depth_mm=depth,
                picture=np.nan_to_num(-normals[..., 2]),
                true_normals=normals,
                depth_error_mm=depth - 450,
                snr=np.where(np.isfinite(depth), 50.0, np.nan),
            ),
        ),
        sensor=sensor(),
        lens=BrownConrady(
            width=W,
            height=H,
            fx=90,
            fy=90,
            cx=40,
            cy=30,
            covariance=np.diag([0.01] * 4 + [0.0] * 5),
            observations=observations,
        ),
        lights=near_lights(1.5),
        true_lights=near_lights(),
        spheres=SphereSight(
            picture=rng.uniform(0, 1, (H, W)),
            circles=np.array([[40.0, 30.0, 12.0], [5.0, 5.0, 9.0]]),
            highlights=np.array([[42.0, 31.0]]),
        ),
        provenance={"truth": "dome.yaml"},
        warnings=("look here",),
    )


class Page(HTMLParser):
    """Titles, pictures and text of a page; fails on tags that are not closed in order."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.images: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.feed(path.read_text("utf-8"))
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        values = dict(attrs)
        if tag == "img":
            self.images.append(values)
        self.links += [str(values[key]) for key in ("src", "href", "srcset", "action") if key in values]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("report") / "report.html", whole_report())


def test_the_page_stands_alone_with_pictures_that_decode_and_say_what_they_show(page: Path) -> None:
    parsed = Page(page)
    assert parsed.links
    assert all(link.startswith("data:image/png;base64,") for link in parsed.links)
    assert not re.search(r"url\(|@import|<script|<link", page.read_text("utf-8"))
    for image in parsed.images:
        data = base64.b64decode(str(image["src"]).partition(",")[2], validate=True)
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        if "width" in image:
            assert picture.shape[:2] == (int(str(image["height"])), int(str(image["width"])))
            assert image["alt"]
        assert np.ptp(picture) > 0 or "Flat" in str(image["alt"])


def test_every_part_given_is_on_the_page(page: Path) -> None:
    text = Page(page).text
    for word in [
        "A <rig>",
        "A summary.",
        "1 of 2 bounds missed: worst position",
        "look here",
        "Sensor: the lamp <flickers>",
        "0.12496",
        "0.00020",
        "0.12500",
        "≥ 15",
        "held",
        "missed",
        "Object: ball",
        "Normals",
        "Albedo",
        "Relief",
        "Depth",
        "Depth error",
        "Sigma of the normals",
        "Error of the normals",
        "Lights used",
        "Signal to noise",
        "Photon transfer",
        "Linearity",
        "Flat field",
        "Residuals",
        "Positions",
        "Spheres",
        "truth",
        "dome.yaml",
        "ab" * 32,
        "method robust",
        "12\N{NARROW NO-BREAK SPACE}345 observations",
        "doubtful",
    ]:
        assert word in text, word


def test_the_same_report_has_the_same_bytes(page: Path, tmp_path: Path) -> None:
    again = write_report(tmp_path / "report.html", whole_report())
    assert again.read_bytes() == page.read_bytes()


def test_what_is_missing_is_said_and_left_out(tmp_path: Path) -> None:
    lights = {"a": DistantLight(direction=(0.0, 0.0, -1.0)), "b": DistantLight(direction=(0.6, 0.0, -0.8))}
    report = Report(
        title="little", surfaces=(Surface(name="x", normals=normal_map()),), lights=LightSet(lights=lights)
    )
    text = Page(write_report(tmp_path / "a.html", report)).text
    for word in [
        "No numbers",
        "Depth: not integrated",
        "No sensor calibration",
        "No lens model",
        "Directions",
    ]:
        assert word in text, word
    for word in ["Photon transfer", "Positions", "Warnings", "bounds"]:
        assert word not in text, word
    nothing = Page(write_report(tmp_path / "b.html", Report(title="nothing"))).text
    for word in ["No object", "No light model", "No lens model", "No sensor", "Not given"]:
        assert word in nothing, word


def test_an_object_without_a_valid_pixel_still_has_a_page(tmp_path: Path) -> None:
    nowhere = np.full((H, W), np.nan, np.float32)
    normals = normal_map(
        normals=np.full((H, W, 3), np.nan, np.float32),
        albedo=nowhere,
        sigma_deg=nowhere,
        valid=np.zeros((H, W), bool),
        lights_used=np.zeros((H, W), np.uint8),
    )
    surface = Surface(
        name="x", normals=normals, depth_mm=nowhere, true_normals=ball_normals()[0], snr=nowhere
    )
    assert "0% of the picture" in write_report(
        tmp_path / "a.html", Report(title="t", surfaces=(surface,))
    ).read_text("utf-8")


def test_the_numbers_are_beside_it_as_json(page: Path) -> None:
    rows = json.loads((page.parent / "metrics.json").read_text("utf-8"))["metrics"]
    assert tuple(Metric.model_validate(row) for row in rows) == whole_report().metrics
    assert [row["passed"] for row in rows] == [None, False, True]


@pytest.mark.parametrize(
    ("value", "bound", "at_least", "passed"),
    [
        (1.0, 1.0, False, True),
        (1.1, 1.0, False, False),
        (1.0, 1.0, True, True),
        (0.9, 1.0, True, False),
        (math.nan, 1.0, False, False),
        (math.nan, 1.0, True, False),
        (1.0, None, False, None),
    ],
)
def test_a_bound_is_judged_and_nan_misses_it(
    value: float, bound: float | None, at_least: bool, passed: bool | None
) -> None:
    assert Metric(quantity="q", value=value, bound=bound, at_least=at_least).passed is passed


def test_a_number_that_could_not_be_had_is_null_in_json_and_comes_back(tmp_path: Path) -> None:
    metric = Metric(quantity="q", value=math.nan, bound=1.0)
    write_report(tmp_path / "a.html", Report(title="t", metrics=(metric,)))
    (row,) = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    assert row["value"] is None
    assert math.isnan(Metric.model_validate(row).value)
    assert Metric.model_validate(row).passed is False


@pytest.mark.parametrize(
    ("value", "sigma", "text"),
    [
        (0.124963, 0.0002, "0.12496"),
        (3001.234, 0.5, "3001.23"),
        (3001.234, 12.0, "3001"),
        (0.0312345, None, "0.03123"),
        (-7.84e-14, 1.4e-13, "−7.8e−14"),
        (123456.0, None, "123456"),
        (-1.5, None, "−1.5"),
        (math.nan, None, "–"),
        (None, None, "–"),
    ],
)
def test_numbers_have_as_many_digits_as_they_deserve(
    value: float | None, sigma: float | None, text: str
) -> None:
    assert number(value, sigma) == text


def test_normals_are_coloured_by_where_they_lean() -> None:
    lean = np.array([[[0, 0, -1], [1, 0, 0], [0, -1, 0], [np.nan] * 3]], np.float32)
    # Half of 255 rounds to 128: straight at the camera is (128, 128, 255).
    want = [[128, 128, 255], [255, 128, 128], [128, 255, 128], [255, 255, 255]]
    np.testing.assert_array_equal(maps.normal_colours(lean)[0], want)


def test_shrinking_averages_what_is_there_and_keeps_the_outline() -> None:
    values = np.full((40, 60), np.nan, np.float32)
    values[10:30, 20:40] = np.arange(20, dtype=np.float32)
    small = maps.shrink(values, 30)
    assert small.shape == (20, 30)
    want = np.full((20, 30), np.nan, np.float32)
    want[5:15, 10:20] = np.arange(0.5, 20, 2)
    # Area means of four equal-weight samples: a few roundings of float32.
    np.testing.assert_allclose(small, want, rtol=4 * np.finfo(np.float32).eps)


def test_scalar_maps_are_png_with_a_palette() -> None:
    values = np.array([[0.0, 0.5, 1.0, 2.0, np.nan]], np.float32)
    picture = cv2.imdecode(np.frombuffer(maps.coloured(values, 0, 1), np.uint8), cv2.IMREAD_COLOR)[0, :, ::-1]
    ends = cv2.applyColorMap(np.array([[0, 255]], np.uint8), cv2.COLORMAP_VIRIDIS)[0, :, ::-1]
    np.testing.assert_array_equal(picture[[0, 2, 3]], ends[[0, 1, 1]])
    np.testing.assert_array_equal(picture[4], [255, 255, 255])


def test_a_folder_of_results_becomes_a_report(tmp_path: Path) -> None:
    normals = normal_map()
    folder = tmp_path / "ball"
    (folder / "models").mkdir(parents=True)
    channels = {f"N.{axis}": normals.normals[..., i] for i, axis in enumerate("XYZ")}
    write_exr(folder / "normals.exr", {**channels, "sigma": normals.sigma_deg})
    assert "Sigma by the lights" not in Page(report_directory(folder, folder / "report.html")).text
    channels |= {"sigma": normals.sigma_deg, "sigma.lights": 0.5 * normals.sigma_deg}
    write_exr(folder / "normals.exr", channels)
    write_exr(folder / "albedo.exr", {"albedo.Y": normals.albedo})
    write_exr(folder / "depth.exr", {"Z": normals.albedo})
    save_model(folder / "models" / "lights.json", near_lights())
    save_model(folder / "models" / "sensor.json", sensor())
    text = Page(report_directory(folder, folder / "report.html")).text
    for word in [
        "Object: ball",
        "Depth",
        "Sigma by the lights",
        "Positions",
        "Photon transfer",
        "No lens model",
    ]:
        assert word in text, word
    # One level up, as a demo's folder holds its objects.
    above = Page(report_directory(tmp_path, tmp_path / "report.html")).text
    for word in ["Object: ball", "Positions", "Photon transfer"]:
        assert word in above, word
    (tmp_path / "empty").mkdir()
    for wrong in ("empty", "nowhere"):
        with pytest.raises(ConfigError, match=wrong):
            report_directory(tmp_path / wrong, tmp_path / "report.html")
