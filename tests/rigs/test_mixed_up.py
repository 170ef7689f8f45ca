"""Pictures and lights that do not belong together: named, as far as the pictures tell.

A matt landscape under eight lights; the fault is put into the pictures or into the list.
"""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.files import read_exr, read_exr_attributes, save_model
from calibration.geometry import normalize
from calibration.lights.model import DistantLight, LightSet
from calibration.photometric import pair
from calibration.provenance import Quality
from calibration.radiometric.checks import are_unlike

HEIGHT, WIDTH = 48, 56
NOISE = 20.0
TOWARDS = normalize(
    [
        [0.5, 0.1, 1], [-0.5, 0.2, 1], [0.1, 0.6, 1], [0.2, -0.5, 1],
        [-0.3, -0.4, 1], [0, 0.1, 1], [0.6, -0.3, 1], [-0.6, 0.5, 1],
    ]
)  # y up, z to the camera  # fmt: skip
NAMES = [f"lamp{number}" for number in range(len(TOWARDS))]


def pictures(seed: int = 0) -> np.ndarray:
    """The landscape under each light, DN."""
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    z = 4 * np.sin(0.11 * x + 0.07 * y) * np.cos(0.13 * y - 0.05 * x) + 0.0015 * (x - 30) * (y - 20)
    by_y, by_x = np.gradient(z)
    normals = normalize(np.stack([by_x, by_y, -np.ones_like(z)], axis=-1))
    shade = np.clip(np.moveaxis(normals @ (TOWARDS * [1, -1, -1]).T, -1, 0), 0, None)
    return 20_000 * shade + np.random.default_rng(seed).normal(0, NOISE, shade.shape)


LIGHTS = [DistantLight(direction=tuple(towards)) for towards in TOWARDS * [1, -1, -1]]


def paired(images, lights=LIGHTS):
    values = np.asarray(images, np.float32)
    return pair(values, np.full_like(values, NOISE**2), lights, mask=np.ones((HEIGHT, WIDTH), bool))


def write(folder: Path, images: np.ndarray, more=()) -> Path:
    """Pictures, their list ``l.lp``, a table, a mask of all, and with ``more`` (name, light, picture)."""
    folder.mkdir(parents=True)
    rows = ["file,kind,light,exposure_s"]
    for name, light, image in [*zip(NAMES, NAMES, images, strict=True), *more]:
        cv2.imwrite(str(folder / f"{name}.png"), np.rint(np.clip(image, 0, 65535)).astype(np.uint16))
        rows.append(f"{name}.png,object,{light},1")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    listed = [f"{name}.png {' '.join(map(str, light))}" for name, light in zip(NAMES, TOWARDS, strict=True)]
    (folder / "l.lp").write_text("\n".join([str(len(listed)), *listed, ""]))
    cv2.imwrite(str(folder / "mask.png"), np.full((HEIGHT, WIDTH), 255, np.uint8))
    return folder


@pytest.fixture
def solved(gnomon, tmp_path):
    """``solved(images, more)``: what `reconstruct` says of them."""

    def run(images, more=(), **options):
        folder = write(tmp_path / "photos", images, more)
        assert gnomon("import", "folder", folder, folder / "s", "--assume-linear").code == 0
        words = {"lights": folder / "l.lp", "mask": folder / "mask.png", "out": folder / "o"} | options
        words |= {"method": "robust", "intensities": "given"}
        return gnomon(
            "reconstruct", folder / "s", *(part for k, v in words.items() for part in (f"--{k}", v))
        )

    return run


def test_pictures_in_their_places_are_not_blamed():
    found = paired(pictures())
    assert found.contradictions(NAMES) == ()
    # Noise of 20 in some 15 000 DN, 800 pixels: the median ratio is good to 6e-5.
    assert np.abs(found.strength - 1).max() < 3e-4


@pytest.mark.parametrize("factor", [0.6, 1.5, 3.0])
def test_a_light_of_another_strength_is_named_with_it(factor):
    images = pictures()
    images[2] *= factor
    found = paired(images)
    assert found.strength[2] == pytest.approx(factor, rel=1e-3)
    assert np.flatnonzero(found.off).tolist() == [2]
    told = found.contradictions(NAMES)
    assert len(told) == 1
    assert told[0].startswith(f"light lamp2: its picture is {factor:.2f} times as bright")
    strong = [light.replace(intensity=(factor if i == 2 else 1.0,)) for i, light in enumerate(LIGHTS)]
    assert paired(images, strong).contradictions(NAMES) == ()


def test_swapped_and_moved_pictures_are_told_apart():
    images = pictures()
    swapped = images[[0, 4, 2, 3, 1, 5, 6, 7]]
    assert paired(swapped).contradictions(NAMES) == ("lights lamp1 and lamp4: their pictures are swapped",)
    twice = images[[0, 1, 2, 3, 4, 5, 2, 7]]
    assert paired(twice).contradictions(NAMES) == (
        "light lamp6: its picture is one under lamp2: swapped, or taken twice?",
    )


def test_a_list_of_other_pictures_blames_no_light():
    assert paired(pictures()[np.random.default_rng(1).permutation(8)]).contradictions(NAMES) == ()


def test_the_order_of_the_lights_does_not_matter():
    images = pictures()
    images[2] *= 2
    turned = paired(images[::-1], LIGHTS[::-1])
    assert np.array_equal(turned.strength[::-1], paired(images).strength)


def test_reconstruct_names_a_light_that_is_too_strong(solved):
    images = pictures()
    images[2] *= 2.5
    answer = solved(images)
    assert answer.code == 0
    assert answer.err.count("\n") == 1
    assert "warning: light lamp2: its picture is 2.50 times as bright" in answer.err


def test_one_picture_under_two_lights_is_named(solved):
    images = pictures()
    images[4] = images[1]
    answer = solved(images)
    assert answer.code == 0
    assert "lights lamp1 and lamp4: the same picture" in answer.err


def test_one_picture_under_all_lights_is_refused(solved):
    answer = solved(np.repeat(pictures()[:1], 8, axis=0))
    assert answer.code == 4
    assert "the pictures under all 8 lights are one and the same" in answer.err


def test_two_frames_of_one_light_are_told(solved):
    again = pictures(seed=1)
    answer = solved(pictures(), [("again2", "lamp2", again[2]), ("again5", "lamp5", 1.1 * again[5])])
    assert (answer.code, answer.err) == (0, "")
    assert "2 frames of one exposure averaged under lamp2, lamp5\n" in answer.out


def test_two_different_pictures_of_one_light_are_refused(solved, gnomon, tmp_path):
    answer = solved(pictures(), [("other", "lamp2", pictures(seed=1)[5])])
    assert answer.code == 4
    assert answer.err.count("\n") == 1
    for word in ("light lamp2", "frames/000002.tif (lamp2.png)", "frames/000008.tif (other.png)"):
        assert word in answer.err
    checked = gnomon("session", "check", tmp_path / "photos" / "s")
    assert checked.code == 1
    assert "fail     repeats: shots 2 and 8, both lamp2 1 s: different pictures" in checked.out


def test_noise_and_another_strength_make_no_other_picture():
    rng = np.random.default_rng(3)
    x = rng.uniform(10, 100, 500)
    noisy = 1.4 * x + rng.normal(0, 8, 500)
    known = np.zeros(500), np.full(500, 64.0)
    assert not are_unlike(x, noisy, *known)
    assert are_unlike(x, rng.permutation(noisy), *known)


def test_a_depth_without_a_lens_is_refused(solved):
    answer = solved(pictures(), depth=400)
    assert answer.code == 2
    assert answer.err == (
        "gnomon: a depth of 400 mm: without a lens model the surface is in px, not in mm: give --lens\n"
    )


def test_doubtful_lights_that_know_millimetres_make_a_doubtful_surface_in_pixels(solved, tmp_path):
    doubt = Quality(residual_rms=1, unit="px", observations=8, verdict="doubtful", warnings=("ball in fog",))
    lights = LightSet(lights=dict(zip(NAMES, LIGHTS, strict=True)), scene_depth_mm=500.0, quality=doubt)
    save_model(tmp_path / "lights.json", lights)
    answer = solved(pictures(), lights=tmp_path / "lights.json")
    assert answer.code == 0
    assert "warning: the light model is doubtful: ball in fog\n" in answer.err
    out = tmp_path / "photos" / "o"
    assert json.loads(read_exr_attributes(out / "normals.exr")["quality"])["verdict"] == "doubtful"
    assert read_exr_attributes(out / "depth.exr")["units"] == "px"
    # Hills of some 4 px either way, about 0.
    assert np.abs(read_exr(out / "depth.exr")["Z"]).max() < 30
