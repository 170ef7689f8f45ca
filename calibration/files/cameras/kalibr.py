"""Kalibr's camchain: pinhole cameras with radtan or equidistant distortion, each placed by the one before.

Axes and pixels are ours; lengths there are metres; ``T_cn_cnm1`` takes points of the camera before to this.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from calibration.cameras import CameraSet, RigCamera
from calibration.files.cameras.intrinsics import (
    brown_conrady,
    checked,
    coefficients,
    kannala_brandt,
    numbers,
    read_yaml,
    refuse,
)
from calibration.files.models import write_bytes
from calibration.geometry import Float
from calibration.lens import BrownConrady, KannalaBrandt, LensModel
from calibration.provenance import Provenance

_MM = 1000.0
_NAME = re.compile(r"cam\d+")


def read_kalibr(path: Path) -> CameraSet:
    """Cameras of a camchain YAML, by their names there (cam0, cam1, ...); cam0's frame is the rig's.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        One line that names the entry that is missing or cannot be represented: omni, eucm and ds cameras,
        fov distortion.

    Notes
    -----
    A camera is placed by ``T_cn_cnm1``; without it by ``T_cam_imu`` or ``T_imu_cam`` of both.
    """
    path = Path(path)
    chain = read_yaml(path)
    names = sorted((name for name in chain if _NAME.fullmatch(str(name))), key=lambda name: int(name[3:]))
    if not names:
        raise ValueError(f"{path}: cam0: missing: no camchain of Kalibr")
    cameras: dict[str, RigCamera] = {}
    from_first, before = np.eye(4), names[0]
    for name in names:
        entry = chain[name]
        if not isinstance(entry, dict):
            raise ValueError(f"{path}: {name}: want a table of named entries")
        if name != names[0]:
            from_first = _step(path, chain, before, name) @ from_first
        lens = _lens(path, name, entry)
        cameras[name] = _placed(path, lens, from_first)
        before = name
    return CameraSet(
        cameras=cameras, reference=names[0], provenance=Provenance(note=f"read from {path.name}")
    )


def _lens(path: Path, name: str, entry: Mapping[str, Any]) -> LensModel:
    def need(key: str) -> tuple[str, Any]:
        if key not in entry:
            raise ValueError(f"{path}: {name}.{key}: missing")
        return f"{name}.{key}", entry[key]

    model = str(need("camera_model")[1])
    if model != "pinhole":
        raise ValueError(f"{path}: {name}.camera_model: {model} cannot be represented, only pinhole")
    core = numbers(path, *need("intrinsics"), (4,)).tolist()
    size = [int(side) for side in numbers(path, *need("resolution"), (2,))]
    distortion = str(entry.get("distortion_model", "none"))
    if distortion == "none":
        return brown_conrady(path, name, size, core, [])
    if distortion not in ("radtan", "equidistant"):
        raise ValueError(
            f"{path}: {name}.distortion_model: {distortion} cannot be represented, "
            "only radtan and equidistant"
        )
    make = brown_conrady if distortion == "radtan" else kannala_brandt
    key, given = need("distortion_coeffs")
    return make(path, key, size, core, numbers(path, key, given, (4,)).tolist())


def _step(path: Path, chain: Mapping[str, Any], before: str, name: str) -> Float:
    if "T_cn_cnm1" in chain[name]:
        return _motion(path, f"{name}.T_cn_cnm1", chain[name]["T_cn_cnm1"])
    for key in ("T_cam_imu", "T_imu_cam"):
        if key in chain[name] and key in chain[before]:
            here, there = (_motion(path, f"{n}.{key}", chain[n][key]) for n in (name, before))
            return np.asarray(
                here @ np.linalg.inv(there) if key == "T_cam_imu" else np.linalg.inv(here) @ there
            )
    raise ValueError(f"{path}: {name}.T_cn_cnm1: missing: nothing tells where the camera stands")


def _motion(path: Path, key: str, value: Any) -> Float:
    """Motion (4, 4) in mm; its rotation made exact."""
    found = numbers(path, key, value, (4, 4))
    u, _, v = np.linalg.svd(found[:3, :3])
    exact = u @ v
    if np.abs(exact - found[:3, :3]).max() > 1e-3 or np.linalg.det(exact) < 0:
        raise ValueError(f"{path}: {key}: its first three columns are no rotation")
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = exact, _MM * found[:3, 3]
    return out


def _placed(path: Path, lens: LensModel, motion: Float) -> RigCamera:
    from scipy.spatial.transform import Rotation

    rx, ry, rz = Rotation.from_matrix(motion[:3, :3]).as_rotvec().tolist()
    x, y, z = motion[:3, 3].tolist()
    return checked(path, lambda: RigCamera(lens=lens, rotvec_rad=(rx, ry, rz), t_mm=(x, y, z)))


def write_kalibr(path: Path, cameras: Mapping[str, RigCamera]) -> None:
    """Write cameras as a camchain YAML, in their order, as cam0, cam1, ...; the topic keeps the name.

    Raises
    ------
    ValueError
        A lens that is neither Brown-Conrady with k1, k2, p1, p2 alone nor fisheye.
    """
    content: dict[str, Any] = {}
    last = np.eye(4)
    for number, (name, camera) in enumerate(cameras.items()):
        lens = camera.lens
        if isinstance(lens, KannalaBrandt):
            model, distortion = "equidistant", lens.parameters[4:].tolist()
        elif isinstance(lens, BrownConrady):
            model, distortion = "radtan", coefficients(lens, (4,), f"camera {name}: Kalibr")
        else:
            raise refuse(lens, f"camera {name}: Kalibr")
        motion = np.eye(4)
        motion[:3, :3], motion[:3, 3] = camera.rotation, np.asarray(camera.t_mm) / _MM
        entry: dict[str, Any] = {}
        if number:
            entry["T_cn_cnm1"] = (motion @ np.linalg.inv(last)).tolist()
        entry |= {
            "cam_overlaps": [other for other in range(len(cameras)) if other != number],
            "camera_model": "pinhole",
            "distortion_coeffs": distortion,
            "distortion_model": model,
            "intrinsics": [lens.fx, lens.fy, lens.cx, lens.cy],
            "resolution": [lens.width, lens.height],
            "rostopic": f"/{name}/image_raw",
        }
        content[f"cam{number}"] = entry
        last = motion
    write_bytes(path, yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=200).encode())
