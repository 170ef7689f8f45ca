"""Progress of a reconstruction: every loop that is shown runs to its end, and showing it changes nothing."""

from collections.abc import Iterable, Iterator
from operator import length_hint
from typing import Any

import numpy as np
import pytest
from relief_scene import DEPTH_MM, dome, lens, render

from calibration.lights.model import DistantLight
from calibration.photometric import Gloss, pixels
from calibration.photometric.solver import Method
from calibration.surface import reconstruct


class _Watch:
    """Shares done, loop by loop; the share is what a progress bar makes of it."""

    def __init__(self) -> None:
        self.shares: list[tuple[str, list[float]]] = []

    def __call__(self, items: Iterable[Any], what: str) -> Iterator[Any]:
        total = length_hint(items)
        assert total > 0
        done: list[float] = []
        self.shares.append((what, done))
        for number, item in enumerate(items, start=1):
            yield item
            done.append(number / total)

    def of(self, what: str) -> list[list[float]]:
        return [done for said, done in self.shares if said == what]


def _same(one: Any, other: Any) -> bool:
    return all(
        np.array_equal(np.asarray(getattr(one.normals, name)), np.asarray(getattr(other.normals, name)), True)
        for name in ("normals", "albedo", "sigma_deg", "lights_used")
    ) and np.array_equal(one.depth_mm, other.depth_mm, equal_nan=True)


@pytest.mark.parametrize(("method", "distant"), [("robust", False), ("mixture", True)])
def test_progress_reaches_the_end_and_changes_no_bit(
    monkeypatch: pytest.MonkeyPatch, method: Method, distant: bool
) -> None:
    near = dome(9)
    far = [DistantLight(direction=tuple(np.subtract(light.position_mm, (0, 0, DEPTH_MM)))) for light in near]
    view = lens(36, 28)
    scene = render(view, far if distant else near, gloss=(0.3, 0.05))
    options: dict[str, Any] = {"lens": view, "mask": scene.mask, "method": method, "depth_mm": DEPTH_MM}
    if not distant:
        options["gloss"] = Gloss(0.3, 0.05)
    given = (scene.radiance, scene.variance, scene.lights)
    plain = reconstruct(*given, **options)
    monkeypatch.setattr(pixels, "_BAND", 100)
    watch = _Watch()
    shown = reconstruct(*given, **options, track=watch)
    assert _same(plain, shown)
    for what in ("solving normals", *(["solving normals of the mixture"] if method == "mixture" else [])):
        for done in watch.of(what):
            assert len(done) > 3
            assert done == sorted(done)
            assert done[-1] == 1
        assert watch.of(what)
    told = {what for what, _ in watch.shares}
    assert {"finding depth", "finding shadows" if distant else "finding normals and depth together"} <= told
    assert ("choosing the model" in told) == (method != "robust")
