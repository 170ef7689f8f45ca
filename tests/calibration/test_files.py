"""Files: round trips, damage of every kind, and what other programs write."""

import hashlib
import json
import os
import zipfile
from pathlib import Path

import cv2
import numpy as np
import OpenEXR
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calibration.files import (
    load_model,
    read_exr,
    read_lights,
    save_model,
    write_exr,
    write_image,
    write_light_csv,
    write_normals_png,
)
from calibration.geometry import normalize
from calibration.lens import BrownConrady, LensModel
from calibration.lights.model import DistantLight, LightSet, NearLight
from calibration.provenance import Array, Model, Provenance, Quality

DATA = Path(os.environ.get("GNOMON_DATA", Path(__file__).parents[3] / "shared" / "data"))
LENS = BrownConrady(
    width=640,
    height=480,
    fx=500.1,
    fy=501,
    cx=320,
    cy=240,
    k1=-0.1,
    p2=1e-3,
    covariance=np.diag(np.arange(12.0)),
    views=np.full((3, 6), np.nan),
    quality=Quality(residual_rms=0.1, unit="px", observations=10, warnings=("µ is no ASCII",)),
    provenance=Provenance(session="ab", options={"fix_k3": True, "sigma": 0.1}),
)
LIGHTS = LightSet(
    lights={
        "led 01": DistantLight(direction=(0, 0, -1), covariance=np.eye(2)),
        "a/b": NearLight(position_mm=(1, 2, 3), intensity=(1e9, 2e9, 3e9)),
    }
)


class Anything(Model):
    kind: str = "anything"
    number: float
    flag: bool
    text: str
    table: dict[str, tuple[float, ...]]
    array: Array
    maybe: Array | None = None


# ---------------------------------------------------------------- models


@pytest.mark.parametrize("model", [LENS, LIGHTS, LENS.replace(covariance=None, views=None)])
def test_model_comes_back_equal_and_locked(tmp_path, model):
    digest = save_model(tmp_path / "m.json", model)
    back = load_model(tmp_path / "m.json", type(model), digest)
    assert back == model
    assert digest == hashlib.sha256((tmp_path / "m.json").read_bytes()).hexdigest()
    if isinstance(back, LensModel) and back.views is not None:
        assert not back.views.flags.writeable
    expected = ["m.json"] if model is not LENS and model is not LIGHTS else ["m.json", "m.npz"]
    assert sorted(os.listdir(tmp_path)) == expected


@given(
    st.floats(),
    st.text(max_size=8),
    st.dictionaries(st.text(max_size=4), st.lists(st.floats(), max_size=3).map(tuple), max_size=3),
    hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.uint16, np.bool_, np.int64, np.complex64]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
)
@settings(max_examples=60, deadline=None)
def test_any_value_comes_back(tmp_path_factory, number, text, table, array):
    path = tmp_path_factory.mktemp("any") / "m.json"
    try:
        (text + "".join(table)).encode()
    except UnicodeEncodeError:
        text, table = "", {}
    model = Anything(number=number, flag=True, text=text, table=table, array=array)
    save_model(path, model)
    back = load_model(path, Anything)
    # NaN is not equal to NaN among floats: compare what is written.
    assert repr(back.model_dump(exclude={"array"})) == repr(model.model_dump(exclude={"array"}))
    assert back.array.dtype == array.dtype
    assert back.array.shape == array.shape
    assert back.array.tobytes() == np.ascontiguousarray(array).tobytes()


def test_same_model_gives_the_same_bytes(tmp_path):
    assert save_model(tmp_path / "m.json", LENS) == save_model(tmp_path / "m.json", LENS.replace())
    first = (tmp_path / "m.npz").read_bytes()
    (tmp_path / "m.npz").unlink()
    save_model(tmp_path / "m.json", LENS)
    assert (tmp_path / "m.npz").read_bytes() == first
    other = np.diag(np.arange(9.0)) * (1 + 1e-15)
    assert save_model(tmp_path / "n.json", LENS.replace(covariance=other)) != save_model(
        tmp_path / "n.json", LENS
    )


@pytest.mark.parametrize("name", ["m.json", "m.npz"])
def test_no_changed_byte_goes_unseen(tmp_path, name):
    digest = save_model(tmp_path / "m.json", LENS)
    whole = (tmp_path / name).read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.choice(len(whole), 40, replace=False):
        changed = bytearray(whole)
        changed[at] ^= 1 << int(rng.integers(8))
        (tmp_path / name).write_bytes(changed)
        with pytest.raises(ValueError, match=r"m\.(json|npz): "):
            load_model(tmp_path / "m.json", LensModel, digest)
    (tmp_path / name).write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"m\.(json|npz): "):
        load_model(tmp_path / "m.json", LensModel, digest)


def rewrite(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=2), "format 2, this version"),
        (lambda d: d.update(extra=1), "extra: unknown entry"),
        (lambda d: d.pop("model"), "damaged, or no gnomon model"),
        (lambda d: d["model"].update(fz=1.0), "fz: Extra inputs"),
        (lambda d: d["model"].update(fx=-1.0), "fx: Input should be greater"),
        (lambda d: d["model"]["quality"].update(verdict="fine"), "quality.verdict: Input should be"),
        (lambda d: d["model"].update(views={"$array": "gone"}), "no array 'gone'"),
        (lambda d: d.update(arrays={"file": "../m.npz", "sha256": "0"}), "not a plain file name"),
        (lambda d: d.update(arrays=[1]), "arrays: want file and sha256"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path, change, message):
    path = tmp_path / "m.json"
    save_model(path, LENS)
    rewrite(path, change)
    with pytest.raises(ValueError, match=message) as caught:
        load_model(path, LensModel)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_missing_and_foreign_files_are_named(tmp_path):
    path = tmp_path / "m.json"
    with pytest.raises(FileNotFoundError, match=r"m\.json: no such model"):
        load_model(path, LensModel)
    save_model(path, LENS)
    with pytest.raises(ValueError, match="holds a 'lens' model, want 'lights'"):
        load_model(path, LightSet)
    with pytest.raises(ValueError, match="not the pinned model"):
        load_model(path, LensModel, "0" * 64)
    (tmp_path / "m.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"m\.npz: missing; it holds the arrays of m\.json"):
        load_model(path, LensModel)
    path.write_text("[1, 2")
    with pytest.raises(ValueError, match="damaged, or no gnomon model"):
        load_model(path, LensModel)
    with pytest.raises(ValueError, match=r"ends in \.json"):
        save_model(tmp_path / "m.yaml", LENS)


def test_a_pickle_is_neither_written_nor_run(tmp_path):
    with pytest.raises(ValueError, match="array: an array of objects"):
        save_model(
            tmp_path / "m.json",
            Anything(number=1, flag=True, text="", table={}, array=np.array([{}], dtype=object)),
        )
    path = tmp_path / "m.json"
    save_model(path, LENS)
    np.savez(tmp_path / "m.npz", covariance=np.array([{}], dtype=object), allow_pickle=True)
    digest = hashlib.sha256((tmp_path / "m.npz").read_bytes()).hexdigest()
    rewrite(path, lambda d: d["arrays"].update(sha256=digest))
    with pytest.raises(ValueError, match=r"m\.npz: no sidecar of arrays"):
        load_model(path, LensModel)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "m.json"
    save_model(path, LIGHTS.replace(lights={"a": DistantLight(direction=(0, 0, -1))}))
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_model(path, LIGHTS.replace(lights={"b": DistantLight(direction=(0, 0, -1))}))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.json"]


def test_sidecar_is_readable_by_numpy(tmp_path):
    save_model(tmp_path / "m.json", LIGHTS)
    with np.load(tmp_path / "m.npz", allow_pickle=False) as archive:
        assert archive.files == ["lights/led 01/covariance"]
        np.testing.assert_array_equal(archive["lights/led 01/covariance"], np.eye(2))
    assert zipfile.ZipFile(tmp_path / "m.npz").testzip() is None


# ---------------------------------------------------------------- images


def test_exr_keeps_every_bit_and_the_header(tmp_path):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(7, 5)).astype(np.float32)
    z[0, 0], z[1, 1], z[2, 2] = np.nan, np.inf, 1e-42
    channels = {"N.X": z, "N.Y": -z, "Z": 2 * z, "albedo.R": z, "R": z, "G": z, "B": z}
    write_exr(
        tmp_path / "a.exr", channels, {"units": "mm", "frame": "x right, y down", "scale": 0.5, "count": 3}
    )
    back = read_exr(tmp_path / "a.exr")
    assert set(back) == set(channels)
    for name, plane in channels.items():
        assert back[name].dtype == np.float32
        np.testing.assert_array_equal(back[name], plane)
    header = OpenEXR.File(str(tmp_path / "a.exr")).header()
    assert (header["units"], header["scale"], header["count"]) == ("mm", 0.5, 3)
    assert header["compression"] == OpenEXR.ZIP_COMPRESSION
    assert os.listdir(tmp_path) == ["a.exr"]


def test_exr_of_others_half_floats_and_integers(tmp_path):
    h = np.linspace(0, 1, 12).reshape(3, 4).astype(np.float16)
    header = {"compression": OpenEXR.PIZ_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"RGB": np.stack([h, h, h], axis=-1), "id": h.astype(np.uint32)}).write(
        str(tmp_path / "a.exr")
    )
    back = read_exr(tmp_path / "a.exr")
    assert set(back) == {"R", "G", "B", "id"}
    np.testing.assert_array_equal(back["G"], h.astype(np.float32))


def test_bad_exr_is_one_clear_error(tmp_path):
    plane = np.zeros((4, 4), np.float32)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_exr(tmp_path / "a.exr")
    (tmp_path / "b.exr").write_text("text")
    with pytest.raises(ValueError, match="no readable OpenEXR file"):
        read_exr(tmp_path / "b.exr")
    write_exr(tmp_path / "a.exr", {"Z": np.random.default_rng(0).random((50, 50))})
    (tmp_path / "c.exr").write_bytes((tmp_path / "a.exr").read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"c\.exr: "):
        read_exr(tmp_path / "c.exr")
    for channels in ({}, {"Z": plane, "Y": plane[1:]}, {"Z": plane[0]}):
        with pytest.raises(ValueError, match="of one shape"):
            write_exr(tmp_path / "d.exr", channels)
    with pytest.raises(ValueError, match="belongs to the format"):
        write_exr(tmp_path / "d.exr", {"Z": plane}, {"dataWindow": 3})
    assert not (tmp_path / "d.exr").exists()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_picture_is_written_as_it_is(tmp_path, suffix, kind, channels):
    image = (np.random.default_rng(0).random((5, 7, *channels)) * 255).astype(kind)
    path = tmp_path / f"a{suffix}"
    if kind == np.float32 and suffix == ".png":
        with pytest.raises(ValueError, match=r"a\.png: cannot hold an image"):
            write_image(path, image)
        assert not list(tmp_path.iterdir())
        return
    write_image(path, image)
    back = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(back[..., ::-1] if channels else back, image)
    assert back.dtype == kind
    assert os.listdir(tmp_path) == [path.name]
    with pytest.raises(ValueError, match="cannot hold"):
        write_image(path, np.zeros((2, 2, 2), np.uint8))


def test_normals_png_points_up_and_to_the_camera(tmp_path):
    normals = np.array([[[0, 0, -1.0], [1, 0, 0], [0, -1, 0], [np.nan] * 3]])
    write_normals_png(tmp_path / "n.png", normals)
    rgb = cv2.imread(str(tmp_path / "n.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    assert rgb.dtype == np.uint16
    middle = 32768  # of 0 .. 65535, rounded to even
    expected = [[middle, middle, 65535], [65535, middle, middle], [middle, 65535, middle], [0, 0, 0]]
    assert rgb[0].tolist() == expected


# ---------------------------------------------------------------- lights


def test_lp_list_is_turned_into_the_camera_frame(tmp_path):
    (tmp_path / "dome.lp").write_text(
        "3\r\nC:\\shots\\img 01.tif 0 0 1\r\nimg/02.jpg 0 2 0\n\n03.png 0.6 0 0.8\n"
    )
    lights = read_lights(tmp_path / "dome.lp").lights
    assert list(lights) == ["img 01", "02", "03"]
    # Towards the camera is -z, up is -y.
    assert lights["img 01"].direction == (0, 0, -1)
    assert lights["02"].direction == (0, -1, 0)
    assert lights["03"].direction == pytest.approx((0.6, 0, -0.8))
    assert lights["03"].intensity == (1.0,)


def test_csv_of_directions_and_positions(tmp_path):
    (tmp_path / "a.csv").write_text(
        "\ufeff# by hand\nlight, dx,dy,dz, intensity,frame\nn,0,0,-2,3,\ns,0,1,1,,yup\n"
    )
    lights = read_lights(tmp_path / "a.csv").lights
    assert lights["n"].direction == (0, 0, -1)
    assert lights["n"].intensity == (3.0,)
    assert lights["s"].direction == pytest.approx((0, -(0.5**0.5), -(0.5**0.5)))
    assert lights["s"].intensity == (1.0,)
    (tmp_path / "b.csv").write_text(
        "light,x_mm,y_mm,z_mm,intensity_r,intensity_g,intensity_b,frame\nn,1,2,-3,4,5,6,yup\n"
    )
    light = read_lights(tmp_path / "b.csv").lights["n"]
    assert light == NearLight(position_mm=(1, -2, 3), intensity=(4, 5, 6))


def test_csv_of_positions_with_lobes(tmp_path):
    header = "light,x_mm,y_mm,z_mm,order,axis_x,axis_y,axis_z,frame\n"
    (tmp_path / "a.csv").write_text(header + "n,1,2,-3,1.5,0,0.6,-0.8,yup\ns,1,2,3,,,,,\nt,1,2,3,1,0,0,5,\n")
    lights = read_lights(tmp_path / "a.csv").lights
    # Shining up and away from the camera: -y and +z in its frame, as the position's signs go.
    assert lights["n"] == NearLight(position_mm=(1, -2, 3), order=1.5, axis=(0, -0.6, 0.8))
    assert lights["s"] == NearLight(position_mm=(1, 2, 3))
    assert lights["t"].axis == (0, 0, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("near", [True, False])
def test_lights_come_back_from_a_csv(tmp_path, near, channels):
    rng = np.random.default_rng(3)
    lights = {}
    for number in range(4):
        x, y, z = rng.normal(size=3).tolist()
        strength = tuple(rng.uniform(1, 2, channels).tolist())
        if near:
            a, b, c = (float(value) for value in normalize(rng.normal(size=3)))
            lights[f"led {number}, a"] = NearLight(
                position_mm=(x, y, z), intensity=strength, order=0.7 * number, axis=(a, b, c)
            )
        else:
            a, b, c = (float(value) for value in normalize([x, y, z]))
            lights[f"led {number}, a"] = DistantLight(direction=(a, b, c), intensity=strength)
    write_light_csv(tmp_path / "a.csv", lights)
    found = read_lights(tmp_path / "a.csv").lights
    assert list(found) == list(lights)
    places = np.array([[3.0, -4.0, 20.0], [0.0, 1.0, -9.0]])
    for name, light in lights.items():
        for have, want in zip(found[name].at(places), light.at(places), strict=True):
            np.testing.assert_allclose(have, want, rtol=1e-14)


def test_a_csv_tells_no_intensities_where_none_are_known(tmp_path):
    lights = {f"l{i}": DistantLight(direction=(0.6, 0.0, -0.8)) for i in range(3)}
    write_light_csv(tmp_path / "a.csv", lights)
    found = read_lights(tmp_path / "a.csv")
    assert found.lights == lights
    assert found.provenance.options == {"intensity": "equal"}


def test_a_csv_of_lights_that_cannot_be_written(tmp_path):
    near, far = NearLight(position_mm=(1, 2, 3)), DistantLight(direction=(0, 0, -1))
    with pytest.raises(ValueError, match="near and distant"):
        write_light_csv(tmp_path / "a.csv", {"a": near, "b": far})
    with pytest.raises(ValueError, match="'#a'"):
        write_light_csv(tmp_path / "a.csv", {"#a": near})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.lp", "# a dome\n2\n\nn 1.png 0 0.6 0.8\n# the other\nm.tif\t1 0 0\n"),
        ("a.lp", "\ufeff2\r\n'n 1.png' 0 0.6 0.8\r\n\"C:\\my pictures\\m.tif\" 1 0 0\r\n"),
        ("a.csv", "Light;DX;dy;dz\nn 1;0;-0,6;-8e-1\nm;1,0;0;0\n"),
        ("a.csv", "light\tdx\tdy\tdz\r\nn 1\t0\t-,6\t-0.8\r\nm\t1\t0\t0\r\n"),
    ],
)
def test_lists_of_spreadsheets_and_of_other_systems_are_read(tmp_path, name, text):
    (tmp_path / name).write_bytes(text.encode())
    lights = read_lights(tmp_path / name).lights
    assert list(lights) == ["n 1", "m"]
    assert lights["n 1"].direction == pytest.approx((0.0, -0.6, -0.8))
    assert lights["m"].direction == pytest.approx((1.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "light,dx,dy,dz,order\n", "row 1: column 'order': a lobe wants a position"),
        ("a.csv", "light,x_mm,y_mm,z_mm,order\n", "row 1: column axis_x: missing"),
        (
            "a.csv",
            "light,x_mm,y_mm,z_mm,order,axis_x,axis_y,axis_z\nn,1,2,3,-1,0,0,1\n",
            "row 2: column order: -1: want 0 or more",
        ),
        (
            "a.csv",
            "light,x_mm,y_mm,z_mm,order,axis_x,axis_y,axis_z\nn,1,2,3,1,0,0,0\n",
            "row 2: column axis_x: the axis is zero",
        ),
        ("a.lp", "", "row 1: want the number of lights"),
        ("a.lp", "a.png 0 0 1\n", "row 1: want the number of lights"),
        ("a.lp", "2\na.png 0 0 1\n", "row 1 promises 2 lights, the file has 1"),
        ("a.lp", "1\na.png 0 x 1\n", "row 2: y: 'x' is no number"),
        ("a.lp", "1\na.png 0 1\n", "row 2: want an image's name"),
        ("a.lp", "1\na.png 0 0 1 0.5\n", "row 2: 4 numbers after a.png, want x y z alone"),
        ("a.lp", "1\na.png 0,1 0 1\n", "row 2: x: '0,1' is no number: write a decimal point"),
        ("a.lp", "# made by hand\n1 light\na.png 0 0 1\n", "row 2: want the number of lights alone"),
        ("a.lp", "1\na.png 0 0 0\n", "row 2: the direction is zero"),
        ("a.lp", "2\na.png 0 0 1\nb/a.tif 0 0 1\n", "row 3: column light: 'a' is there twice"),
        ("a.csv", "", "holds no light"),
        ("a.csv", "light,dx,dy,dz\n", "holds no light"),
        ("a.csv", "light,dx,dy,dz,colour\n", "row 1: column 'colour' is unknown: want light"),
        ("a.csv", "light,dx,dx,dz\n", "row 1: column 'dx' is there twice"),
        ("a.csv", "light,dx,dy\nn,0,0\n", "row 1: column dz: missing"),
        ("a.csv", "dx,dy,dz\n0,0,1\n", "row 1: column light: missing"),
        ("a.csv", "light,dx,dy,dz,x_mm\n", "row 1: want dx, dy, dz OR"),
        ("a.csv", "light,dx,dy,dz\nn,0,0\n", "row 2: 3 cells, the header has 4"),
        ("a.csv", "light,dx,dy,dz\nn,0,0,inf\n", "row 2: column dz: 'inf' is no number"),
        ("a.csv", "light,dx,dy,dz\n\nn,0,0,1\nn,0,0,1\n", "row 4: column light: 'n' is there twice"),
        ("a.csv", "light,dx,dy,dz\n,0,0,1\n", "row 2: column light: empty"),
        (
            "a.csv",
            "light,dx,dy,dz,intensity\nn,0,0,1,0\n",
            "row 2: column intensity: 0: an intensity is above 0",
        ),
        ("a.csv", "light,dx,dy,dz,frame\nn,0,0,1,world\n", "row 2: column frame: 'world'"),
        ("a.txt", "1\n", "ends in .lp or .csv"),
    ],
)
def test_faults_name_file_row_and_column(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_lights(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))


def test_light_list_that_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such light list"):
        read_lights(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="UTF-8"):
        read_lights(tmp_path / "a.csv")
