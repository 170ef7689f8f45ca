"""Cameras that say, unopened, that their numbers are not proportional to light, or may not be."""

import json

import cv2
import numpy as np
import pytest
from capture_fakes import CAMERA
from pydantic import TypeAdapter

from calibration.provenance import FitError
from capture.drivers import CameraConfig
from capture.plan import Block, CapturePlan, ExposureBracket
from capture.session import Session
from rigs.config import RigConfig
from rigs.workflows.capturing import capture_session
from rigs.workflows.encoding import refuse_encoded

BASE = CAMERA.model_dump()


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"driver": "genicam"}, None),
        ({"driver": "genicam", "nodes": {"LUTEnable": False, "Gamma": 1.0, "BlackLevel": 4}}, None),
        ({"driver": "genicam", "nodes": [{"ReverseX": True}, {"LUTEnable": True}]}, "suspected"),
        ({"driver": "pylon", "nodes": {"Gamma": 0.45}}, "suspected"),
        (
            {"driver": "micromanager", "library": "A", "device": "B", "properties": {"Gamma": "2"}},
            "suspected",
        ),
        ({"driver": "gphoto2", "pixel_format": "BayerRG14"}, None),
        ({"driver": "gphoto2", "pixel_format": "RGB8", "jpeg": True}, "gamma"),
        ({"driver": "opencv", "pixel_format": "RGB8"}, "gamma"),
        ({"driver": "opencv", "pixel_format": "Mono8", "fourcc": "MJPG"}, "gamma"),
        ({"driver": "opencv", "pixel_format": "Mono16", "fourcc": "Y16 "}, "unknown"),
        ({"driver": "opencv", "backend": "images"}, "unknown"),
    ],
)
def test_a_camera_says_where_its_numbers_are_not_linear(changes, kind):
    config = TypeAdapter(CameraConfig).validate_python(BASE | changes)
    assert (config.encoding and config.encoding.kind) == kind


def test_a_session_keeps_what_its_camera_says_and_linear_work_is_refused(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(2):
        cv2.imwrite(str(tmp_path / "photos" / f"{number}.jpg"), np.full((6, 8), 90 + number, np.uint8))
    camera = {"driver": "replay", "path": tmp_path / "photos", "exposures_s": 0.01, "pixel_format": "Mono8"}
    config = RigConfig.model_validate({"name": "desk", "cameras": {"main": BASE | camera}})
    block = Block(
        kinds="object", pose="still", prompt="", cameras="main", bracket=ExposureBracket(exposures_s=0.01)
    )
    session = capture_session(config, CapturePlan(name="p", blocks=(block,)), tmp_path / "taken")
    told = json.loads((session.path / "facts.json").read_text())["encoding"]
    assert told == {"main": {"kind": "gamma", "why": "JPEG"}}
    message = r"merge wants linear data, but camera 'main' gave gamma-encoded \(JPEG\): have it give raw data"
    with pytest.raises(FitError, match=message):
        refuse_encoded(session, "main", None, "merge")
    # played again, it is no better
    again = TypeAdapter(CameraConfig).validate_python(BASE | {"driver": "replay", "path": session.path})
    assert again.encoding == ("gamma", "JPEG")
    assert Session.open(session.path).verify() == ()
