"""Meshes against trimesh and the formats' specifications."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from calibration.files import write_gltf, write_obj, write_ply
from calibration.geometry import normalize
from calibration.lens import BrownConrady, LensModel
from calibration.provenance import FitError
from calibration.surface import mesh


def _lens(width: int = 200, height: int = 160) -> LensModel:
    return BrownConrady(
        width=width, height=height, fx=400, fy=401, cx=97, cy=82.5, k1=-0.2, k2=0.05, p1=1e-3, p2=-5e-4
    )


def _roof() -> tuple[Any, LensModel]:
    lens = _lens(40, 30)
    x = np.arange(40.0) + np.zeros((30, 1))
    depth = 500 + 2.0 * np.abs(x - 12)
    depth[:, 25:] += 200  # a jump
    depth[10:14, 5:9] = np.nan
    return depth, lens


def test_mesh_faces_the_camera_and_does_not_span_jumps() -> None:
    depth, lens = _roof()
    found = mesh(depth, lens, np.full((30, 40), 0.5))
    corners = found.vertices[found.faces].astype(float)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (np.sum(across * corners[:, 0], axis=1) < 0).all()
    assert np.ptp(corners[..., 2], axis=1).max() < 10
    # Vertices lie on their rays.
    pixels = lens.project(found.vertices)
    assert np.abs(pixels - pixels.round()).max() < 1e-3
    quads = 29 * 39 - 29 - 25
    assert len(found.faces) == 2 * quads + 4  # and a triangle in each of the four corners of the hole
    assert found.colours is not None
    assert (found.colours == 255).all()


@pytest.mark.parametrize("perspective", [False, True])
def test_a_mesh_with_normals_spans_no_jump_of_some_pixels(perspective: bool) -> None:
    lens = _lens(40, 30) if perspective else None
    depth = np.full((30, 40), 400.0) + np.abs(np.arange(40) - 9.5)  # a crease of 90 degrees in px
    depth[:, 25:] += 4
    slope = np.sign(np.arange(40) - 9.5)
    normals = normalize(np.stack([slope, 0 * slope, -np.ones(40)], axis=-1))
    normals = np.broadcast_to(normals, (30, 40, 3))
    if lens is not None:
        # Seen along its lines of sight the roof is steeper by hardly anything: 1 mm is a pixel at 400 mm.
        depth, normals = (
            np.where(np.arange(40) < 25, 400.0, 404.0) + np.zeros((30, 1)),
            normals * 0 - [0, 0, 1],
        )
    found = mesh(depth, lens, normals=normals)
    columns = (
        found.vertices[found.faces][..., 0]
        if lens is None
        else lens.project(found.vertices)[found.faces][..., 0]
    )
    across = (columns.min(axis=1) < 24.5) & (columns.max(axis=1) > 24.5)
    assert not across.any()
    assert len(found.faces) == 2 * 29 * 38
    assert len(mesh(depth, lens).faces) == 2 * 29 * 39


def test_ply_is_read_back_by_trimesh(tmp_path: Path) -> None:
    depth, lens = _roof()
    rng = np.random.default_rng(0)
    normals = normalize(rng.normal(size=(30, 40, 3)))
    one = mesh(depth, lens, rng.random((30, 40, 3)), normals=normals)
    write_ply(tmp_path / "a.ply", one)
    read = trimesh.load(tmp_path / "a.ply", process=False)
    assert np.array_equal(np.asarray(read.vertices, np.float32), one.vertices)
    assert np.array_equal(read.faces, one.faces)
    assert np.array_equal(read.visual.vertex_colors[:, :3], one.colours)
    assert np.allclose(read.vertex_normals, one.normals, atol=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["a.ply"]
    assert b"units mm" in (tmp_path / "a.ply").read_bytes()[:200]
    bare = mesh(depth, None)
    write_ply(tmp_path / "a.ply", bare)
    assert b"units px" in (tmp_path / "a.ply").read_bytes()[:200]
    assert len(trimesh.load(tmp_path / "a.ply", process=False).vertices) == len(bare.vertices)


@pytest.mark.parametrize("bare", [False, True])
def test_obj_and_gltf_are_read_back_by_trimesh(tmp_path: Path, bare: bool) -> None:
    depth, lens = _roof()
    rng = np.random.default_rng(0)
    normals = normalize(rng.normal(size=(30, 40, 3)))
    albedo = rng.random((30, 40, 3))
    one = mesh(depth, lens) if bare else mesh(depth, lens, albedo, normals=normals)
    write_obj(tmp_path / "a.obj", one)
    read = trimesh.load(tmp_path / "a.obj", process=False, maintain_order=True, force="mesh")
    assert np.allclose(read.vertices, one.vertices, rtol=1e-6)
    assert np.array_equal(read.faces, one.faces)
    write_gltf(tmp_path / "a.glb", one)
    turned = trimesh.load(tmp_path / "a.glb", process=False, force="mesh")
    # Metres, y up, z to the viewer.
    assert np.allclose(turned.vertices, one.vertices * [1e-3, -1e-3, -1e-3], rtol=1e-6)
    assert np.array_equal(turned.faces, one.faces)
    if not bare:
        assert np.array_equal(read.visual.vertex_colors[:, :3], one.colours)
        lines = (tmp_path / "a.obj").read_text().splitlines()
        stored = [line.split()[1:] for line in lines if line.startswith("vn ")]
        assert np.allclose(np.array(stored, float), one.normals, atol=1e-5)
    assert {path.name for path in tmp_path.iterdir()} == {"a.obj", "a.glb"}


def test_gltf_says_what_its_specification_asks(tmp_path: Path) -> None:
    depth, lens = _roof()
    normals = normalize(np.random.default_rng(0).normal(size=(30, 40, 3)))
    normals[2, 3] = np.nan
    one = mesh(depth, lens, np.linspace(0.1, 1, 1200).reshape(30, 40), normals=normals)
    write_gltf(tmp_path / "a.glb", one)
    data = (tmp_path / "a.glb").read_bytes()
    magic, version, length, size, kind = struct.unpack_from("<4sIII4s", data)
    assert (magic, version, length, kind, size % 4) == (b"glTF", 2, len(data), b"JSON", 0)
    text = json.loads(data[20 : 20 + size])
    chunk, name = struct.unpack_from("<I4s", data, 20 + size)
    assert (chunk, name, chunk % 4) == (len(data) - 28 - size, b"BIN\0", 0)
    assert text["asset"]["version"] == "2.0"
    assert "mm" in text["asset"]["extras"]["units"]
    assert text["buffers"] == [{"byteLength": chunk}]
    blob = data[28 + size :]
    arrays = {}
    primitive = text["meshes"][0]["primitives"][0]
    for key, number in {**primitive["attributes"], "indices": primitive["indices"]}.items():
        accessor = text["accessors"][number]
        view = text["bufferViews"][accessor["bufferView"]]
        kinds = {5126: "<f4", 5125: "<u4"}[accessor["componentType"]]
        part = np.frombuffer(blob, kinds, view["byteLength"] // 4, view["byteOffset"])
        arrays[key] = part.reshape(accessor["count"], -1)
    box = text["accessors"][primitive["attributes"]["POSITION"]]
    assert np.allclose(arrays["POSITION"].min(axis=0), box["min"], rtol=0, atol=0)
    assert np.allclose(arrays["POSITION"].max(axis=0), box["max"], rtol=0, atol=0)
    assert arrays["indices"].max() == len(arrays["POSITION"]) - 1
    assert one.normals is not None
    known = np.isfinite(one.normals).all(axis=1)
    assert np.allclose(arrays["NORMAL"][known], one.normals[known] * [1, -1, -1], atol=1e-6)
    assert np.allclose(np.linalg.norm(arrays["NORMAL"], axis=1), 1, atol=1e-6)
    assert np.array_equal(arrays["NORMAL"][~known], [[0, 0, 1]])
    # Linear: the albedo over its white, but for the rounding of 8 bits, 0.4 % of full sRGB, 0.9 % linear.
    assert one.colours is not None
    assert np.abs(arrays["COLOR_0"] - (one.colours / 255) ** 2.2).max() < 0.02
    assert arrays["COLOR_0"].max() == 1


@pytest.mark.parametrize("step", ["os.fsync", "os.replace"])
def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    depth, lens = _roof()
    path = tmp_path / "a.ply"
    write_ply(path, mesh(depth, lens))
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(step, full)
    with pytest.raises(OSError, match="no space"):
        write_ply(path, mesh(depth + 1, lens))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.ply"]


def test_no_triangle_is_said() -> None:
    with pytest.raises(FitError, match="no triangle"):
        mesh(np.full((5, 5), np.nan), None)
