"""A mirror ball of the demo's dome without noise: the shadows of its lamps end on a ring round the ball."""

from pathlib import Path

import numpy as np

from calibration.geometry import angle_deg
from calibration.targets.spheres import detect_spheres
from rigs.simulated import Twin, load_truth

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def test_where_the_shadows_end_is_not_taken_for_the_outline():
    known = load_truth(CONFIGS / "truths" / "dome.yaml")
    (camera,) = known.cameras
    rig = Twin(known)
    lamps = [name for name in known.lights if name.startswith("led")]
    images = [rig.clean_radiance("spheres", {lamp: 1.0}, camera)[:600, :960] for lamp in lamps]
    lens = rig.lens(camera)
    (view,) = detect_spheres(images, lens.replace(width=960, height=600), count=1)
    ball = min(rig.spheres("spheres", camera), key=lambda ball: float(np.sum(ball.centre_mm[:2])))
    distance = np.linalg.norm(ball.centre_mm)
    # Without noise only sampling is left: three times what is measured.
    assert np.radians(angle_deg(view.direction, ball.centre_mm / distance)) * lens.fx < 0.03
    assert abs(view.angular_radius_rad - np.arcsin(ball.radius_mm / distance)) * lens.fx < 0.03
    assert view.remarks == ()
