"""Attributes of EXR files: of the types that OpenEXR defines, as its own package reads them."""

from pathlib import Path

import numpy as np
import OpenEXR
import pytest

from calibration.files import read_exr_attributes, write_exr

PLANE = {"Y": np.ones((2, 3), np.float32)}
REC709 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)


def stored_type(path: Path, name: str) -> bytes:
    """Type of an attribute in the bytes of the file: name, zero, type, zero."""
    data = path.read_bytes()
    at = data.index(name.encode() + b"\0") + len(name) + 1
    return data[at : data.index(b"\0", at)]


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("expTime", 0.125, b"float"),
        ("expTime", 2, b"float"),  # an int in the code, a float in the file
        ("whiteLuminance", np.float64(3.5), b"float"),
        ("chromaticities", REC709, b"chromaticities"),
        ("exposuresUsed", [0.5, 0.25], b"floatvector"),
        ("exposuresUsed", np.array([0.5, 0.25]), b"floatvector"),
        ("framesUsed", ["a", "b"], b"stringvector"),
        ("saturationMargin", 2, b"int"),
        ("units", "cd/m^2", b"string"),
    ],
)
def test_types(tmp_path, name, value, kind):
    path = tmp_path / "a.exr"
    write_exr(path, PLANE, {name: value})
    assert stored_type(path, name) == kind
    with OpenEXR.File(str(path), separate_channels=True) as file:
        theirs = file.header()[name]
    ours = read_exr_attributes(path)
    assert list(ours) == [name]
    for found in (theirs, ours[name]):
        if isinstance(value, str) or kind == b"stringvector":
            assert found == value
        else:
            np.testing.assert_allclose(found, value, rtol=1e-7)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("chromaticities", (0.3, 0.3), "want eight numbers"),
        ("chromaticities", "sRGB", "want eight numbers"),
        ("chromaticities", (*REC709[:7], np.nan), "want eight numbers"),
        ("expTime", "1/100", "want a number"),
        ("channels", "R", "belongs to the format"),
    ],
)
def test_an_attribute_of_another_type_is_refused(tmp_path, name, value, says):
    with pytest.raises(ValueError, match=says):
        write_exr(tmp_path / "a.exr", PLANE, {name: value})
    assert list(tmp_path.iterdir()) == []


def test_attributes_of_what_is_no_exr(tmp_path):
    (tmp_path / "a.exr").write_bytes(b"no")
    with pytest.raises(ValueError, match="no readable OpenEXR file"):
        read_exr_attributes(tmp_path / "a.exr")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_exr_attributes(tmp_path / "b.exr")
