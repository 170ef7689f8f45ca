"""What `reconstruct` takes by itself: what an import gave, and what balls say of pinned lights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.files import read_exr, write_image
from calibration.lights.model import NearLight
from rigs import workflows

SIZE = 33


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures of a matt ball in the layout of DiLiGenT."""
    path = tmp_path / "photos"
    path.mkdir()
    x, y = np.meshgrid(np.linspace(-1.1, 1.1, SIZE), np.linspace(1.1, -1.1, SIZE))
    inside = x**2 + y**2 < 0.9
    normals = np.stack([x, y, np.sqrt(np.where(inside, 1 - x**2 - y**2, 1))], axis=-1)
    lights = np.array([[0.1, 0.2, 1], [0.6, 0, 0.9], [-0.5, 0.3, 0.9], [0, -0.6, 0.9], [0.4, 0.5, 0.8]])
    lights /= np.linalg.norm(lights, axis=1, keepdims=True)
    names = [f"{number}.png" for number in range(5)]
    for name, light in zip(names, lights, strict=True):
        shade = np.where(inside, 25_000 * np.clip(normals @ light, 0, None), 0)
        write_image(path / name, np.repeat(np.rint(shade).astype(np.uint16)[..., None], 3, axis=2))
    (path / "filenames.txt").write_text("\n".join(names))
    np.savetxt(path / "light_directions.txt", lights)
    np.savetxt(path / "light_intensities.txt", np.ones((5, 3)))
    # The mask leaves out the lower half: only it can be why nothing is found there.
    write_image(path / "mask.png", np.where(inside & (y > 0), 255, 0).astype(np.uint8))
    return path


def test_lights_and_mask_of_the_import_are_taken(
    gnomon: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    assert gnomon("import", "diligent", folder, tmp_path / "s").code == 0
    done = gnomon("reconstruct", tmp_path / "s", "--out", tmp_path / "r")
    assert done.code == 0, done.err
    taken = [line for line in done.out.splitlines() if line.endswith("taken as given")]
    assert [Path(line.split(": ")[0]).name for line in taken] == ["lights.json", "mask.png"]
    found = np.isfinite(read_exr(tmp_path / "r/normals.exr")["N.X"])
    assert found[: SIZE // 2].any()
    assert not found[SIZE // 2 + 1 :].any()
    # What is named goes first.
    whole = tmp_path / "whole.png"
    write_image(whole, np.full((SIZE, SIZE), 255, np.uint8))
    named = ("--lights", tmp_path / "s/given/lights.json", "--mask", whole)
    done = gnomon("reconstruct", tmp_path / "s", *named, "--out", tmp_path / "r")
    assert done.code == 0, done.err
    assert "taken as given" not in done.out
    assert np.isfinite(read_exr(tmp_path / "r/normals.exr")["N.X"])[SIZE // 2 + 1 :].any()


def test_a_session_without_lights_still_asks_for_them(
    gnomon: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    gnomon("import", "diligent", folder, tmp_path / "s")
    (tmp_path / "s/given/lights.json").unlink()
    done = gnomon("reconstruct", tmp_path / "s", "--out", tmp_path / "r")
    assert done.code != 0
    assert "no lights: give --lights" in done.err


def test_of_several_cameras_the_one_that_saw_the_object_is_taken(
    gnomon: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    rows = [f"{number}.png,object,left,{number},0.01" for number in range(5)]
    manifest = folder / "manifest.csv"
    for name in ("flat.png", "other.png"):
        write_image(folder / name, np.full((SIZE, SIZE, 3), 20_000, np.uint16))
    manifest.write_text(
        "\n".join(["file,kind,camera,light,exposure_s", *rows, "flat.png,flat,right,,0.01"]) + "\n"
    )
    assert gnomon("import", "folder", folder, tmp_path / "s").code == 0
    lights = tmp_path / "lights.csv"
    # Not of length 1: said, and no reason to stop.
    vectors = np.loadtxt(folder / "light_directions.txt") * [1, -1, -1] * 3
    lights.write_text(
        "\n".join(["light,dx,dy,dz", *(f"{k},{x},{y},{z}" for k, (x, y, z) in enumerate(vectors))])
    )
    given = ("--lights", lights, "--mask", folder / "mask.png")
    done = gnomon("reconstruct", tmp_path / "s", *given, "--out", tmp_path / "r")
    assert done.code == 0, done.err
    assert "lights.csv: directions are not of length 1, and were made so: row 2 has 3" in done.out
    manifest.write_text(manifest.read_text() + "other.png,object,right,1,0.01\n")
    assert gnomon("import", "folder", folder, tmp_path / "both").code == 0
    done = gnomon("reconstruct", tmp_path / "both", *given, "--out", tmp_path / "r2")
    assert "has cameras left, right: say which with --camera" in done.err


def test_balls_in_view_say_which_pinned_light_has_moved(mini: Any, captured: Any, models: Any) -> None:
    session, pinned = captured("lights"), models.lights.lights
    options = {"sensor": models.sensor, "lens": models.lens}
    spheres = mini.config.targets.spheres
    # Calibrated from this session: nothing to learn from it.
    assert workflows.lights_changed(session, pinned, spheres, **options) == ()
    light = pinned.lights["led03"]
    assert isinstance(light, NearLight)
    moved = light.replace(position_mm=tuple(np.add(light.position_mm, [25.0, 0, 0])))
    earlier = pinned.replace(
        lights={**pinned.lights, "led03": moved},
        provenance=pinned.provenance.replace(session="of another day"),
    )
    (line,) = workflows.lights_changed(session, earlier, spheres, **options)
    assert line.startswith("led03: has moved")
    # No ball in view.
    assert workflows.lights_changed(captured("relief"), earlier, spheres, **options) == ()
