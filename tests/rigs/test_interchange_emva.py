"""EMVA 1288 descriptors: the numbers come in as they are, and what is wrong names its line."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from capture.session import Session
from rigs.interchange import ManifestError, import_emva, import_folder
from rigs.interchange.emva import find_descriptor, read_descriptor

DATA = Path(os.environ.get("GNOMON_DATA", Path(__file__).parents[3] / "shared" / "data")) / "emva1288/set001"

WIDTH, HEIGHT = 8, 6
SERIES = ("b 40000.0 120.0", "b 320000,5 961", "d 40000.0", "d\t320000.5")


def picture(index: int, top: int = 4095) -> NDArray[np.uint16]:
    values = np.random.default_rng(index).integers(0, top + 1, (HEIGHT, WIDTH), np.uint16)
    values[0, 0] = top
    return values


def write_set(folder: Path, *, name: str = "EMVA1288_Data.txt", ending: str = "\r\n", shift: int = 0) -> Path:
    """Two bright and two dark pairs of 12 bits, with backslashes, as the public sets have them."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = ["# Measurement", "", "v 3.0", "l Vendor A Company", f"n 12 {WIDTH} {HEIGHT}"]
    for number, series in enumerate(SERIES):
        lines.append(series)
        for repeat in range(2):
            index = 2 * number + repeat
            file = f"p {index}.png"
            stored = picture(index, 4095 if series[0] == "b" else 31) << np.uint16(shift)
            assert cv2.imwrite(str(folder / "images" / file), stored)
            lines.append(f"i images\\{file}")
    path = folder / name
    path.write_bytes(ending.join([*lines, ""]).encode())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_set(tmp_path / "set")
    return tmp_path / "set"


@pytest.mark.parametrize("named", [False, True], ids=["folder", "file"])
def test_a_set_becomes_flats_and_darks_with_their_photons(folder: Path, tmp_path: Path, named: bool) -> None:
    session = import_emva(folder / "EMVA1288_Data.txt" if named else folder, tmp_path / "session")
    assert not Session.open(session.path).verify()
    flats, darks = (session.stack("main").select(kind=kind) for kind in ("flat", "dark"))
    assert flats.exposure_s.tolist() == pytest.approx([40e-6, 40e-6, 320.0005e-6, 320.0005e-6])
    assert darks.exposure_s.tolist() == flats.exposure_s.tolist()
    assert flats.pixel_format == darks.pixel_format == "Mono12"
    assert flats.repeats == darks.repeats == (0, 1, 0, 1)
    for index in range(4):
        np.testing.assert_array_equal(flats[index], picture(index))
        np.testing.assert_array_equal(darks[index], picture(4 + index, 31))
    facts = session.facts
    assert facts["photons"] == [120.0, 120.0, 961.0, 961.0, None, None, None, None]
    assert (facts["emva1288_release"], facts["emva1288_about"]) == ("3.0", {"Vendor": "A Company"})
    assert facts["files"][5] == "images/p 5.png"
    assert facts["notes"] == facts["warnings"] == []
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_samples_at_the_upper_end_of_16_bits_are_shifted_down_with_a_note(tmp_path: Path) -> None:
    write_set(tmp_path / "set", shift=4)
    session = import_emva(tmp_path / "set", tmp_path / "session")
    stack = session.stack("main")
    np.testing.assert_array_equal(stack[0], picture(0))
    np.testing.assert_array_equal(stack[4], picture(4, 31))
    assert "shifted down by 4 bits" in session.facts["notes"][0]


def test_dark_pictures_that_use_all_bits_of_a_shifted_set_are_refused(tmp_path: Path) -> None:
    path = write_set(tmp_path / "set", shift=4)
    assert cv2.imwrite(str(tmp_path / "set" / "images" / "p 6.png"), picture(6, 31))
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if text.endswith("p 6.png"))
    with pytest.raises(ManifestError, match=rf"EMVA1288_Data.txt line {line}: p 6.png: uses all 16 bits"):
        import_emva(path, tmp_path / "session")
    assert list(tmp_path.iterdir()) == [tmp_path / "set"]


@pytest.mark.parametrize(
    ("bits", "file", "dtype", "step", "pixel_format"),
    [
        (8, "a.bmp", np.uint8, 1, "Mono8"),
        (8, "a.png", np.uint16, 1, "Mono8"),
        (10, "a.tif", np.int32, 4, "Mono10"),
        (11, "a.png", np.uint16, 8, "Mono12"),
        (16, "a.png", np.uint16, 257, "Mono16"),
    ],
)
def test_the_descriptor_says_the_bits(
    tmp_path: Path, bits: int, file: str, dtype: type[np.integer], step: int, pixel_format: str
) -> None:
    dn = picture(0, 255).astype(dtype) * dtype(step)
    if dtype is np.int32:
        tifffile.imwrite(tmp_path / file, dn)
    else:
        assert cv2.imwrite(str(tmp_path / file), dn)
    (tmp_path / "d.txt").write_text(f"n {bits} {WIDTH} {HEIGHT}\nb 1000 5\ni {file}\n")
    stack = import_emva(tmp_path, tmp_path / "session").stack("main")
    assert stack.pixel_format == pixel_format
    np.testing.assert_array_equal(stack[0], dn)


def test_mosaics_and_light_that_changes_at_one_exposure(tmp_path: Path) -> None:
    lines = [f"n 12 {WIDTH} {HEIGHT}"]
    for index, photons in enumerate((10, 20, 0)):
        assert cv2.imwrite(str(tmp_path / f"{index}.png"), picture(index))
        lines += [f"b 5000 {photons}", f"i {index}.png"]
    (tmp_path / "d.txt").write_text("\n".join(lines))
    session = import_emva(tmp_path, tmp_path / "session", bayer="GRBG")
    stack = session.stack("main")
    assert stack.pixel_format == "BayerGR12"
    assert session.facts["photons"] == [10, 20, None]
    assert [record.shot.kinds for record in stack.records] == [("flat",), ("flat",), ("dark",)]
    assert stack.repeats == (0, 1, 0)


def test_of_several_descriptors_the_one_whose_pictures_are_there_is_taken(
    folder: Path, tmp_path: Path
) -> None:
    path = folder / "EMVA1288_Data.txt"
    (folder / "A_tif.txt").write_bytes(path.read_bytes().replace(b".png", b".tif"))
    (folder / "readme.txt").write_text("not a descriptor\n")
    (folder / "same_posix.txt").write_bytes(path.read_bytes().replace(b"\r\n", b"\n").replace(b"\\", b"/"))
    assert import_emva(folder, tmp_path / "session").facts["descriptor"] == "EMVA1288_Data.txt"
    (folder / "other.txt").write_bytes(path.read_bytes().replace(b" 961", b" 962"))
    with pytest.raises(ManifestError, match=r"several descriptors .*other.txt.*name the one"):
        import_emva(folder, tmp_path / "second")
    with pytest.raises(ManifestError, match=r"A_tif.txt line 7: images/p 0.tif not found \(8 of 8 pictures"):
        import_emva(folder / "A_tif.txt", tmp_path / "second")


def test_capitals_that_the_files_have_not_are_no_matter(folder: Path, tmp_path: Path) -> None:
    path = folder / "EMVA1288_Data.txt"
    path.write_bytes(path.read_bytes().replace(b"i images\\p 1.png", b"i Images\\P 1.PNG"))
    assert import_emva(folder, tmp_path / "session").facts["files"][1] == "images/p 1.png"
    path.write_bytes(path.read_bytes().replace(b"Images\\P 1.PNG", b"Images\\P 9.PNG"))
    with pytest.raises(ManifestError, match=r"line 8: Images/P 9.PNG not found$"):
        import_emva(folder, tmp_path / "second")
    path.write_bytes(path.read_bytes().replace(b"Images\\P 9.PNG", b"images\\P 0.PNG"))
    with pytest.raises(ManifestError, match=r"line 8: .* stands in line 7 already"):
        import_emva(folder, tmp_path / "second")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("b 40000.0 120.0", "b -40000 120", "line 6: -40000 is negative"),
        ("b 40000.0 120.0", "b 0 120", "line 6: exposure 0"),
        ("b 40000.0 120.0", "b 40000 -1", "line 6: -1 is negative"),
        ("b 40000.0 120.0", "b 40000 many", "line 6: 'many' is not a number"),
        ("b 40000.0 120.0", "b nan 120", "line 6: 'nan' is not a number"),
        ("b 40000.0 120.0", "b 40000", "line 6: 1 value after 'b'; want b exposure_ns photons"),
        ("b 40000.0 120.0", "b 1 2 3", "line 6: 3 values after 'b'"),
        ("b 40000.0 120.0", "x 40000", "line 6: unknown letter 'x'"),
        ("b 40000.0 120.0", "# b", "line 7: a picture before any line"),
        ("d 40000.0", "d 1 2", "line 12: 2 values after 'd'; want d exposure_ns"),
        ("i images\\p 1.png", "i", "line 8: 'i' without a picture"),
        ("i images\\p 1.png", "i images\\p 0.png", "line 8: images\\p 0.png stands in line 7"),
        ("i images\\p 1.png", "i images\\q.png", "line 8: images/q.png not found"),
        ("i images\\p 1.png", "i /none/q.png", "line 8: /none/q.png not found"),
        ("i images\\p 1.png", "b 7 7", "no 'i path' lines follow line 8"),
        ("n 12 8 6", "n 12 8 7", "line 7: p 0.png: 8 x 6, but line 'n' says 8 x 7"),
        ("n 12 8 6", "n 8 8 6", "line 7: p 0.png: holds 4095 DN, but line 'n' says 8 bits"),
        ("n 12 8 6", "n 12 8", "line 5: 2 values after 'n'"),
        ("n 12 8 6", "n 12 8 0", "line 5: '0' is not a whole number above 0"),
        ("n 12 8 6", "n 32 8 6", "line 5: 32 bits a sample"),
        ("n 12 8 6", "n 12 8 6\r\nn 12 8 6", "line 6: a second line 'n'"),
        ("n 12 8 6", "# n", "no line 'n bits width height'"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place_and_nothing_is_left(
    folder: Path, tmp_path: Path, old: str, new: str, says: str
) -> None:
    path = folder / "EMVA1288_Data.txt"
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode())
    with pytest.raises(ManifestError) as caught:
        import_emva(path, tmp_path / "session")
    message = str(caught.value)
    assert message.startswith("EMVA1288_Data.txt")
    assert says in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == [folder]


def test_pictures_that_the_set_cannot_hold_are_refused(folder: Path, tmp_path: Path) -> None:
    images = folder / "images"
    for name, change, says in (
        ("p 3.png", picture(3)[:5], "line 11: p 3.png: 8 x 5, but line 'n' says 8 x 6"),
        ("p 3.png", picture(3).astype(np.uint8), "line 11: p 3.png: has 8-bit samples"),
        ("p 3.png", np.full((HEIGHT, WIDTH), 5000, np.uint16), "line 11: p 3.png: holds 5000 DN"),
        ("p 3.png", np.stack([picture(3)] * 3, -1), "line 11: p 3.png: 8 x 6 RGB12, but camera 'main' gave"),
    ):
        kept = (images / name).read_bytes()
        assert cv2.imwrite(str(images / name), change)
        with pytest.raises(ManifestError) as caught:
            import_emva(folder, tmp_path / "session")
        assert says in str(caught.value)
        (images / name).write_bytes(kept)
    (images / "p 3.png").write_text("torn")
    with pytest.raises(ManifestError, match=r"line 11: p 3.png: not a picture"):
        import_emva(folder, tmp_path / "session")


def test_places_that_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "note.txt").write_text("n thing")
    with pytest.raises(ManifestError, match="not empty"):
        import_emva(folder, tmp_path / "used")
    with pytest.raises(ManifestError, match="cannot be read: No such file"):
        import_emva(tmp_path / "nowhere.txt", tmp_path / "session")
    with pytest.raises(ManifestError, match=r"note.txt line 1: 1 value after 'n'"):
        import_emva(tmp_path / "used", tmp_path / "session")
    with pytest.raises(ManifestError, match="no EMVA 1288 descriptor"):
        import_emva(folder / "images", tmp_path / "session")
    with pytest.raises(ManifestError, match="not a descriptor text"):
        import_emva(folder / "images" / "p 0.png", tmp_path / "session")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    series=st.lists(
        st.tuples(
            st.floats(1, 1e10), st.none() | st.floats(0.001, 1e7), st.integers(1, 3), st.sampled_from("\t ,")
        ),
        min_size=1,
        max_size=5,
    ),
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_a_descriptor_says_what_was_written(
    tmp_path: Path, series: list[tuple[float, float | None, int, str]], ending: str
) -> None:
    lines, count = ["n 10 4 3"], 0
    for exposure, photons, pictures, style in series:
        values = [repr(value) for value in (exposure, photons) if value is not None]
        if style == ",":
            values = [value.replace(".", ",") for value in values]
        lines.append(("\t" if style == "\t" else "  ").join(["d" if photons is None else "b", *values]))
        lines += ["", "# between"] + [f"i\timages\\{count + n}.png" for n in range(pictures)]
        count += pictures
    path = tmp_path / "set.txt"
    path.write_bytes(ending.join(lines).encode())
    found = read_descriptor(path)
    assert (found.bits, found.width, found.height) == (10, 4, 3)
    assert [(one.exposure_s, one.photons, len(one.files)) for one in found.series] == [
        (exposure / 1e9, photons, pictures) for exposure, photons, pictures, _ in series
    ]
    files = [file for one in found.series for _, file in one.files]
    assert files == [tmp_path / "images" / f"{n}.png" for n in range(count)]


def test_a_manifest_may_tell_the_photons(tmp_path: Path) -> None:
    for index in range(3):
        assert cv2.imwrite(str(tmp_path / f"{index}.png"), picture(index))
    table = tmp_path / "manifest.csv"
    table.write_text("file,kind,exposure_s,photons\n0.png,flat,1,2500\n1.png,flat,2,5e3\n2.png,dark,2,\n")
    assert import_folder(tmp_path, tmp_path / "session").facts["photons"] == [2500, 5000, None]
    table.write_text("file,kind,photons\n0.png,flat,-3\n")
    with pytest.raises(ManifestError, match="row 2, column photons: -3 is not above 0"):
        import_folder(tmp_path, tmp_path / "second")
    table.write_text("file,kind\n0.png,flat\n")
    assert "photons" not in import_folder(tmp_path, tmp_path / "third").facts


@pytest.mark.skipif(not DATA.is_dir(), reason="no emva1288/set001 at GNOMON_DATA")
def test_both_descriptors_of_the_public_set_say_the_same() -> None:
    found = find_descriptor(DATA)
    assert (found.version, found.bits, found.width, found.height) == ("3.0", 12, 640, 480)
    bright = [series for series in found.series if series.photons is not None]
    assert [len(series.files) for series in bright] == [2] * 50 + [50]
    assert [len(series.files) for series in found.series[len(bright) :]] == [2] * 50 + [50]
    assert (bright[36].exposure_s, bright[36].photons) == (pytest.approx(0.0103), 30957.0)
    for path in DATA.glob("*.txt"):
        assert read_descriptor(path).series == found.series
