"""Foreign pictures: what comes in is what the files hold, and mistakes name their row and column."""

from pathlib import Path

import cv2
import numpy as np
import OpenEXR
import pytest
import tifffile
from numpy.typing import NDArray

from capture.session import Session
from rigs.interchange import COLUMNS, ImageError, ManifestError, import_folder, read_image, read_manifest
from rigs.workflows.frames import sensor_for

RGB = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
GRAY = (np.arange(5 * 7, dtype=np.uint16) * 1801).reshape(5, 7)


def write_png(path: Path, image: NDArray[np.generic]) -> None:
    stored = image[..., [2, 1, 0, 3][: image.shape[2]]] if image.ndim == 3 else image
    assert cv2.imwrite(str(path), stored)


def write_exr(path: Path, **channels: NDArray[np.generic]) -> None:
    names = {name.replace("_", "."): plane for name, plane in channels.items()}
    OpenEXR.File({"type": OpenEXR.scanlineimage}, names).write(str(path))


def manifest(folder: Path, text: str, name: str = "manifest.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "photos"
    path.mkdir()
    for index in range(4):
        write_png(path / f"a{index}.png", GRAY + np.uint16(index))
    return path


def test_each_format_gives_the_numbers_it_was_written_with(tmp_path: Path) -> None:
    rgb16 = RGB.astype(np.uint16) * 601
    linear = (GRAY / np.float32(7)).astype(np.float32)
    write_png(tmp_path / "gray8.png", RGB[..., 0])
    write_png(tmp_path / "gray16.png", GRAY)
    write_png(tmp_path / "rgb8.png", RGB)
    write_png(tmp_path / "rgb16.png", rgb16)
    tifffile.imwrite(tmp_path / "gray16.tif", GRAY)
    tifffile.imwrite(tmp_path / "rgb16.tif", rgb16, photometric="rgb")
    tifffile.imwrite(
        tmp_path / "planar.tif", np.moveaxis(RGB, -1, 0), photometric="rgb", planarconfig="separate"
    )
    tifffile.imwrite(tmp_path / "big_deflate.tif", GRAY, compression="zlib", byteorder=">", bigtiff=True)
    tifffile.imwrite(tmp_path / "float.tif", linear)
    assert cv2.imwrite(str(tmp_path / "lzw.tif"), rgb16[..., ::-1])
    write_exr(tmp_path / "y.exr", Y=linear)
    write_exr(tmp_path / "rgba.exr", R=linear, G=linear + 1, B=linear + 2, A=linear * 0)
    write_exr(tmp_path / "layer.exr", view_R=linear, view_G=linear + 1, view_B=linear + 2, view_A=linear)
    three = np.stack([linear, linear + 1, linear + 2], axis=-1)
    tifffile.imwrite(tmp_path / "int32.tif", GRAY.astype(np.int32))
    assert cv2.imwrite(str(tmp_path / "gray.bmp"), RGB[..., 0])
    assert cv2.imwrite(str(tmp_path / "rgb.hdr"), np.full((4, 5, 3), [3.0, 2.0, 1.0], np.float32))
    for name, pixel_format, want in [
        ("gray8.png", "Mono8", RGB[..., 0]),
        ("gray16.png", "Mono16", GRAY),
        ("rgb8.png", "RGB8", RGB),
        ("rgb16.png", "RGB16", rgb16),
        ("gray16.tif", "Mono16", GRAY),
        ("int32.tif", "Mono16", GRAY),
        ("gray.bmp", "Mono8", RGB[..., 0]),
        ("rgb16.tif", "RGB16", rgb16),
        ("planar.tif", "RGB8", RGB),
        ("big_deflate.tif", "Mono16", GRAY),
        ("lzw.tif", "RGB16", rgb16),
        ("float.tif", "Mono32f", linear),
        ("y.exr", "Mono32f", linear),
        ("rgba.exr", "RGB32f", three),
        ("layer.exr", "RGB32f", three),
        ("rgb.hdr", "RGB32f", np.full((4, 5, 3), [1.0, 2.0, 3.0], np.float32)),
    ]:
        picture = read_image(tmp_path / name)
        assert picture.pixel_format == pixel_format, name
        assert picture.dn.dtype == want.dtype, name
        np.testing.assert_array_equal(picture.dn, want, err_msg=name)
        assert picture.warnings == (), name
    assert "A" in read_image(tmp_path / "rgba.exr").notes[0]


def test_jpeg_comes_with_a_warning_and_upright_as_stored(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "a.jpg"), np.full((8, 16, 3), [20, 90, 200], np.uint8))
    picture = read_image(tmp_path / "a.jpg")
    assert picture.pixel_format == "RGB8"
    # A flat patch survives JPEG up to the rounding of its colour transform.
    np.testing.assert_allclose(picture.dn[4, 8], [200, 90, 20], atol=2)
    assert "gamma" in picture.warnings[0]


def test_bayer_names_the_mosaic_and_refuses_colour(tmp_path: Path) -> None:
    write_png(tmp_path / "raw.png", GRAY)
    write_png(tmp_path / "rgb.png", RGB)
    assert read_image(tmp_path / "raw.png", bayer="GBRG").pixel_format == "BayerGB16"
    with pytest.raises(ImageError, match="colour already"):
        read_image(tmp_path / "rgb.png", bayer="RGGB")
    with pytest.raises(ImageError, match="RGBG"):
        read_image(tmp_path / "raw.png", bayer="RGBG")


def test_alpha_is_left_out_only_where_it_hides_nothing(tmp_path: Path) -> None:
    alpha = np.full((5, 7, 1), 255, np.uint8)
    write_png(tmp_path / "opaque.png", np.concatenate([RGB, alpha], axis=-1))
    picture = read_image(tmp_path / "opaque.png")
    np.testing.assert_array_equal(picture.dn, RGB)
    assert "alpha" in picture.notes[0]
    alpha[2, 3] = 254
    write_png(tmp_path / "hole.png", np.concatenate([RGB, alpha], axis=-1))
    with pytest.raises(ImageError, match="transparent"):
        read_image(tmp_path / "hole.png")


def test_files_that_are_no_measurement_are_refused_with_the_reason(tmp_path: Path) -> None:
    write_png(tmp_path / "whole.png", np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8))
    tifffile.imwrite(tmp_path / "whole.tif", GRAY)
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:5000])
    (tmp_path / "header.png").write_bytes(b"\x89PNG\r\n")
    (tmp_path / "cut.tif").write_bytes((tmp_path / "whole.tif").read_bytes()[:-20])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "text.txt").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.exr").write_bytes(b"\x76\x2f\x31\x01abc")
    (tmp_path / "photo.NEF").write_bytes(b"II*\0")
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([GRAY, GRAY]), photometric="minisblack")
    tifffile.imwrite(tmp_path / "int32.tif", GRAY.astype(np.int32) - 1)
    tifffile.imwrite(tmp_path / "white.tif", GRAY, photometric="miniswhite")
    write_exr(tmp_path / "depth.exr", Z=GRAY.astype(np.float32))
    write_exr(tmp_path / "two.exr", a_Y=GRAY.astype(np.float32), b_Y=GRAY.astype(np.float32))
    for name, reason in [
        ("cut.png", "damaged"),
        ("header.png", "damaged"),
        ("cut.tif", "damaged"),
        ("text.png", "not a picture, or damaged: does not begin as a .png file does"),
        ("text.txt", r"not a picture that is read here \(.png"),
        ("empty.png", "is empty"),
        ("cut.exr", "damaged"),
        ("photo.NEF", "camera raw"),
        ("pages.tif", "2 pages"),
        ("int32.tif", "int32|32 bits"),
        ("white.tif", "photometric"),
        ("depth.exr", "channels Z"),
        ("two.exr", "several layers"),
    ]:
        with pytest.raises(ImageError, match=reason):
            read_image(tmp_path / name)


def test_a_folder_becomes_a_session_with_one_frame_a_row(folder: Path, tmp_path: Path) -> None:
    manifest(
        folder,
        "kind,file,light,exposure_s,gain_db,pose,repeat,camera\n"
        "object+sphere,a0.png,led01,1/50,6,relief,,top\n"
        "sphere + object,a1.png,led02,0.02,6,relief,3,top\n"
        "\n"
        "dark,a2.png,,0.02,,,,top\n"
        "dark,a3.png,,0.02,,,,top\n",
    )
    session = import_folder(folder, tmp_path / "out" / "session")
    assert session.done
    assert session.verify() == ()
    shots = [frame.shot for frame in session.frames]
    assert [shot.kinds for shot in shots] == [("object", "sphere")] * 2 + [("dark",)] * 2
    assert [shot.light for shot in shots] == ["led01", "led02", "", ""]
    assert [shot.pose for shot in shots] == ["relief", "relief", "dark", "dark"]
    assert [shot.repeat for shot in shots] == [0, 3, 0, 1]
    assert [shot.gain_db for shot in shots] == [6, 6, 0, 0]
    stack = session.stack("top")
    np.testing.assert_array_equal(stack.exposure_s, [0.02] * 4)
    for index, image in enumerate(stack):
        np.testing.assert_array_equal(image, GRAY + np.uint16(index))
    assert session.facts["files"] == ["a0.png", "a1.png", "a2.png", "a3.png"]
    assert session.facts["warnings"] == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["session"]


@pytest.mark.parametrize(
    ("ceiling", "light", "found"), [(4095, 1e4, 4095), (4095, 500, None), (65535, 1e5, None)]
)
def test_a_ceiling_below_full_scale_is_found(
    tmp_path: Path, ceiling: int, light: float, found: int | None
) -> None:
    rng = np.random.default_rng(3)
    for index in range(2):
        image = np.minimum(rng.gamma(4.0, light / 4, (60, 80)), ceiling).astype(np.uint16)
        write_png(tmp_path / f"a{index}.png", image)
    manifest(tmp_path, "file,kind\na0.png,object\na1.png,object\n")
    session = import_folder(tmp_path, tmp_path / "session")
    facts = session.facts
    assert facts["saturation_dn"] == ({} if found is None else {"main": found})
    assert any("pile up" in note for note in facts["notes"]) == (found is not None)
    # Shot noise is guessed for a camera of so many bits as are in use, not for the file's 16.
    bits = np.bitwise_or.reduce([np.asarray(image) for image in session.stack("main")], axis=None)
    sensor = sensor_for(session, session.stack("main"), None)
    assert sensor.gain_dn_per_e == pytest.approx((2 ** int(bits).bit_length() - 1) / 1e4)
    assert sensor.saturation_dn == (found or 65535)


def test_a_folder_of_pictures_of_one_kind_needs_no_table(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in ("v10.png", "v2.png", "left/v1.png", "right/v1.png", "left/.hidden.png"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        write_png(photos / name, GRAY)
    (photos / "notes.txt").write_text("no picture")
    session = import_folder(photos, tmp_path / "session", kind="board")
    shots = [record.shot for record in session.frames]
    assert [(shot.camera, shot.pose) for shot in shots] == [
        ("main", "v2"), ("main", "v10"), ("left", "v1"), ("right", "v1"),
    ]  # fmt: skip
    assert {shot.kinds for shot in shots} == {("board",)}
    assert session.facts["files"] == ["v2.png", "v10.png", "left/v1.png", "right/v1.png"]
    flats = import_folder(photos / "left", tmp_path / "flats", kind="flat")
    assert [record.shot.pose for record in flats.frames] == ["flat"]
    write_png(photos / "left" / "v3.png", GRAY[:-1])
    with pytest.raises(ManifestError, match=r"photos: left/v3.png: .*camera 'left' gave .* in left/v1.png"):
        import_folder(photos, tmp_path / "no", kind="board")
    assert not (tmp_path / "no").exists()
    with pytest.raises(ManifestError, match="unknown kind 'boards'; did you mean 'board'"):
        import_folder(photos, tmp_path / "no", kind="boards")
    with pytest.raises(ManifestError, match="no such folder"):
        import_folder(tmp_path / "photos" / "right" / "none", tmp_path / "no", kind="board")
    manifest(photos, "file,kind\nv2.png,board\n")
    with pytest.raises(ManifestError, match="leave --kind away"):
        import_folder(photos, tmp_path / "no", kind="board")


def test_the_same_folder_gives_the_same_digest(folder: Path, tmp_path: Path) -> None:
    manifest(folder, "file,kind\na0.png,object\na1.png,object\n")
    first, second = (import_folder(folder, tmp_path / name) for name in ("one", "two"))
    assert first.digest == second.digest
    # The digest covers the pixels.
    write_png(folder / "a1.png", GRAY[::-1])
    assert import_folder(folder, tmp_path / "three").digest != first.digest


def test_blank_cells_have_defaults(folder: Path) -> None:
    rows = read_manifest(
        manifest(
            folder, "file,kind,camera,exposure_s\na0.png,object,,\na1.png,object+board,,\na2.png,board\n"
        )
    )
    assert [row.pose for row in rows] == ["object", "default", "a2"]
    assert {(row.camera, row.light, row.exposure_s, row.gain_db, row.repeat) for row in rows} == {
        ("main", "", 1.0, 0.0, 0)
    }


@pytest.mark.parametrize(
    "text",
    [
        "\ufefffile,kind,exposure_s\r\na0.png,object,0.5\r\n",
        "file;kind;exposure_s\na0.png;object;0,5\n",
        "File\tKind\tExposure_s\t\na0.png\tobject\t0,5\t\n",
        'file,kind,exposure_s,,\n"a0.png",object,.5,,\n',
        "file, kind, exposure_s\na0.png, object, 1/2\n",
    ],
    ids=["byte-order mark, CRLF", "semicolon", "tab", "quotes, empty columns", "spaces"],
)
def test_tables_as_spreadsheets_write_them(folder: Path, text: str) -> None:
    (row,) = read_manifest(manifest(folder, text))
    assert (row.file, row.kinds, row.exposure_s) == (folder / "a0.png", ("object",), 0.5)


HEAD = "file,kind,camera,light,exposure_s,gain_db,pose,repeat\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            HEAD + "\na0.png,object,,,10ms,,,\n",
            "manifest.csv row 3, column exposure_s: '10ms' is not a number",
        ),
        (HEAD + "a0.png,object,,,0,,,\n", "manifest.csv row 2, column exposure_s: 0 is not above 0"),
        (HEAD + "a0.png,object,,,nan,,,\n", "manifest.csv row 2, column exposure_s: 'nan'"),
        (HEAD + 'a0.png,object,,,"0,5",,,\n', "manifest.csv row 2, column exposure_s: '0,5'"),
        (HEAD + "a0.png,object,,,,loud,,\n", "manifest.csv row 2, column gain_db: 'loud'"),
        (HEAD + "a0.png,object,,,,,,1.5\n", "manifest.csv row 2, column repeat: '1.5'"),
        (HEAD + "a0.png,object,,,,,,-1\n", "manifest.csv row 2, column repeat: '-1'"),
        (
            HEAD + "a9.png,object,,,,,,\n",
            r"row 2, column file: a9.png not found in .*; did you mean 'a\d.png'",
        ),
        (HEAD + ",object,,,,,,\n", "manifest.csv row 2, column file: blank"),
        (HEAD + "a0.png,,,,,,,\n", "manifest.csv row 2, column kind: blank"),
        (HEAD + "a0.png,objekt,,,,,,\n", "row 2, column kind: unknown kind 'objekt'; did you mean 'object'"),
        (HEAD + "a0.png,dark+flat,,,,,,\n", "row 2, column kind: a dark frame"),
        (HEAD + "a0.png,dark,,led,,,,\n", "row 2, column light: 'led' burns in a frame of kind dark"),
        (HEAD + "a0.png,object,,l1..l4,,,,\n", "row 2, column light: 'l1..l4' is not a name"),
        (HEAD + "a0.png,object,,,,,,,7\n", "row 2, column repeat: more cells than the header"),
        (HEAD + "a0.png,object\na0.png,dark\n", "row 3, column file: a0.png stands in row 2 already"),
        (HEAD + "a0.png,object,,,,,,1\na1.png,object,,,,,,1\n", "row 3, column repeat: row 2 has the same"),
        ("file,kind,exposure\n", "row 1: unknown column 'exposure'; did you mean 'exposure_s'"),
        ("file,light\n", "row 1: no column kind"),
        ("file,kind,kind\n", "row 1: column kind stands twice"),
        ("file,kind\n", "no row below the header"),
        ("", "manifest.csv: empty"),
        ('file,kind\n"a0.png,object\n', "manifest.csv row"),
    ],
)
def test_a_mistake_is_one_line_that_names_row_and_column(folder: Path, text: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message) as error:
        read_manifest(manifest(folder, text))
    assert "\n" not in str(error.value)


def test_several_mistakes_are_all_named(folder: Path) -> None:
    lines = [f"a{index}.png,wrong" for index in range(4)] + ["b.png,object"] * 12
    with pytest.raises(ManifestError) as error:
        read_manifest(manifest(folder, "file,kind\n" + "\n".join(lines)))
    shown = str(error.value).splitlines()
    assert len(shown) == 11
    assert "row 5" in shown[3]
    assert shown[-1] == "... and 6 more"


def test_other_encodings_are_refused_clearly(folder: Path) -> None:
    for data in ("file,kind\nü.png,object\n".encode("latin-1"), "file,kind\n".encode("utf-16")):
        (folder / "manifest.csv").write_bytes(data)
        with pytest.raises(ManifestError, match="CSV UTF-8"):
            read_manifest(folder / "manifest.csv")
    with pytest.raises(ManifestError, match="nowhere"):
        read_manifest(folder / "nowhere" / "manifest.csv")


def test_paths_may_leave_the_folder_and_come_from_windows(folder: Path) -> None:
    (folder / "sub").mkdir()
    write_png(folder / "sub" / "b.png", GRAY)
    write_png(folder.parent / "c.png", GRAY)
    text = f"file,kind\nsub\\b.png,object\n../c.png,object\n{folder / 'a0.png'},object\n"
    names = [row.file.name for row in read_manifest(manifest(folder, text))]
    assert names == ["b.png", "c.png", "a0.png"]


def test_pictures_of_one_camera_must_be_alike(folder: Path, tmp_path: Path) -> None:
    write_png(folder / "small.png", GRAY[:4])
    write_png(folder / "rgb.png", RGB)
    for name, says in [("small.png", "7 x 4 Mono16"), ("rgb.png", "7 x 5 RGB8")]:
        manifest(folder, f"file,kind\na0.png,object\na1.png,object\n{name},object\n")
        with pytest.raises(ManifestError, match=f"row 4, column file: {name}: {says}.*row 2"):
            import_folder(folder, tmp_path / "session")
        manifest(folder, f"file,kind,camera\na0.png,object,one\n{name},object,two\n")
        assert import_folder(folder, tmp_path / name).cameras == ("one", "two")


def test_nothing_is_left_after_a_failure_and_nothing_overwritten(folder: Path, tmp_path: Path) -> None:
    (folder / "bad.png").write_text("no picture")
    manifest(folder, "file,kind\na0.png,object\nbad.png,object\n")
    out = tmp_path / "out"
    with pytest.raises(ManifestError, match=r"row 3, column file: bad.png: not a picture"):
        import_folder(folder, out / "session")
    assert list(out.iterdir()) == []
    manifest(folder, "file,kind\na0.png,object\n")
    (out / "session").mkdir()
    import_folder(folder, out / "session")
    with pytest.raises(ManifestError, match="not empty"):
        import_folder(folder, out / "session")
    assert len(Session.open(out / "session").frames) == 1


def test_what_speaks_against_the_pictures_is_recorded(folder: Path, tmp_path: Path) -> None:
    assert cv2.imwrite(str(folder / "a.jpg"), RGB)
    write_png(folder / "left.png", (GRAY >> 4) << 4)
    write_png(folder / "twelve.png", GRAY >> 4)
    manifest(
        folder,
        "file,kind,camera\na.jpg,object,one\nleft.png,object,two\ntwelve.png,object,three\na0.png,object,four\n",
    )
    facts = import_folder(folder, tmp_path / "session").facts
    assert facts["warnings"][0].startswith("camera one: 1 file: JPEG")
    assert [note.split(";")[0] for note in facts["notes"]] == [
        "camera two: 16-bit samples whose lowest 4 bits are 0",
        "camera three: 16-bit samples that use 12 bits",
    ]


def test_the_manifest_of_the_documentation_is_read(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "own-images.md").read_text("utf-8")
    table = next(block for block in text.split("```") if block.lstrip().startswith("file,"))
    for line in table.split()[1:]:
        write_png(tmp_path / line.partition(",")[0], GRAY)
    rows = read_manifest(manifest(tmp_path, table.lstrip()))
    assert {row.pose for row in rows} == {"relief"}
    assert [row.exposure_s for row in rows[:2]] == [1 / 4, 1 / 250]
    for column in COLUMNS:
        assert f"| `{column}` |" in text
