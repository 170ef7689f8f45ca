"""Meshes to files: PLY, OBJ, glTF."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.files.models import write_bytes
from calibration.surface import Mesh

_FRAME = "camera frame: x right, y down, z forward"
# glTF: metres, x right, y up, z towards the viewer. A half turn about x, which keeps triangles' sides.
_TO_GLTF = np.array([1.0, -1.0, -1.0])
_FLOAT, _UINT = 5126, 5125
_ARRAY_BUFFER, _ELEMENT_BUFFER = 34962, 34963


def write_ply(path: Path, mesh: Mesh) -> None:
    """Write a binary little-endian PLY, in the mesh's unit, camera frame (x right, y down, z forward).

    The file appears whole or not at all: it is written under a temporary name, synced and renamed.
    """
    columns = [("x", "<f4"), ("y", "<f4"), ("z", "<f4")]
    if mesh.normals is not None:
        columns += [("nx", "<f4"), ("ny", "<f4"), ("nz", "<f4")]
    if mesh.colours is not None:
        columns += [("red", "u1"), ("green", "u1"), ("blue", "u1")]
    vertices = np.zeros(len(mesh.vertices), np.dtype(columns))
    parts = [mesh.vertices, mesh.normals, mesh.colours]
    values = [column for part in parts if part is not None for column in part.T]
    for (name, _), column in zip(columns, values, strict=True):
        vertices[name] = np.nan_to_num(column) if name.startswith("n") else column
    faces = np.zeros(len(mesh.faces), np.dtype([("count", "u1"), ("index", "<i4", 3)]))
    faces["count"], faces["index"] = 3, mesh.faces
    types = {"<f4": "float", "u1": "uchar"}
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment units {mesh.unit}; {_FRAME}",
        f"element vertex {len(vertices)}",
        *(f"property {types[kind]} {name}" for name, kind in columns),
        f"element face {len(faces)}",
        "property list uchar int vertex_indices",
        "end_header\n",
    ]
    write_bytes(path, "\n".join(header).encode("ascii") + vertices.tobytes() + faces.tobytes())


def write_obj(path: Path, mesh: Mesh) -> None:
    """Write a Wavefront OBJ, in the mesh's unit, camera frame (x right, y down, z forward).

    Colours follow the coordinates of their vertex (0 to 1, sRGB), as most readers take them. The file appears
    whole or not at all.
    """
    table = mesh.vertices.astype(np.float64)
    form = "v %.7g %.7g %.7g"
    if mesh.colours is not None:
        table = np.hstack([table, mesh.colours / 255])
        form += " %.4g %.4g %.4g"
    lines = [f"# units {mesh.unit}; {_FRAME}", _lines(form, table)]
    one = mesh.faces.astype(np.int64) + 1
    if mesh.normals is None:
        lines.append(_lines("f %d %d %d", one))
    else:
        lines.append(_lines("vn %.6g %.6g %.6g", np.nan_to_num(mesh.normals.astype(np.float64))))
        lines.append(_lines("f %d//%d %d//%d %d//%d", np.repeat(one, 2, axis=1)))
    write_bytes(path, ("\n".join(lines) + "\n").encode("ascii"))


def write_gltf(path: Path, mesh: Mesh) -> None:
    """Write a binary glTF 2.0 (``.glb``): metres, y up, z towards the viewer, as its specification has it.

    Mesh coordinates are mm: what is stored is a thousandth of them, turned by half a turn about x. Colours
    are linear, as glTF wants colours of vertices. The file appears whole or not at all.
    """
    attributes: dict[str, NDArray[Any]] = {"POSITION": mesh.vertices * (_TO_GLTF / 1000)}
    if mesh.normals is not None:
        normals = np.nan_to_num(mesh.normals.astype(np.float64)) * _TO_GLTF
        length = np.linalg.norm(normals, axis=1, keepdims=True)
        # Normals have unit length there; one that is not known faces the viewer.
        attributes["NORMAL"] = np.where(length > 0, normals / np.maximum(length, 1e-12), [0.0, 0.0, 1.0])
    if mesh.colours is not None:
        attributes["COLOR_0"] = _linear(mesh.colours)
    arrays = [np.ascontiguousarray(part, "<f4") for part in attributes.values()]
    arrays.append(np.ascontiguousarray(mesh.faces, "<u4").reshape(-1, 1))
    views, accessors, offset = [], [], 0
    for number, array in enumerate(arrays):
        last = number + 1 == len(arrays)
        view = {"buffer": 0, "byteOffset": offset, "byteLength": array.nbytes}
        views.append(view | {"target": _ELEMENT_BUFFER if last else _ARRAY_BUFFER})
        accessor: dict[str, Any] = {
            "bufferView": number,
            "componentType": _UINT if last else _FLOAT,
            "count": len(array),
            "type": "SCALAR" if last else "VEC3",
        }
        if number == 0:
            accessor |= {"min": array.min(axis=0).tolist(), "max": array.max(axis=0).tolist()}
        accessors.append(accessor)
        offset += array.nbytes
    primitive = {
        "attributes": {name: number for number, name in enumerate(attributes)},
        "indices": len(arrays) - 1,
        "material": 0,
        "mode": 4,
    }
    # The inside of an open surface is seen too; nothing is known of its gloss.
    material = {"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}, "doubleSided": True}
    text = json.dumps(
        {
            "asset": {
                "version": "2.0",
                "generator": "gnomon",
                "extras": {
                    "units": "metres: mm of the camera frame / 1000",
                    "frame": "x right, y up, z towards the camera; origin at its centre of projection",
                },
            },
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": [primitive]}],
            "materials": [material],
            "accessors": accessors,
            "bufferViews": views,
            "buffers": [{"byteLength": offset}],
        }
    ).encode("ascii")
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + offset)
    chunks = [struct.pack("<I4s", len(text), b"JSON"), text, struct.pack("<I4s", offset, b"BIN\0")]
    write_bytes(path, b"".join([head, *chunks, *(array.tobytes() for array in arrays)]))


def _linear(srgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Linear light of sRGB's 256 levels."""
    level = np.arange(256) / 255
    curve = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    return np.asarray(curve[srgb])


def _lines(form: str, table: NDArray[Any]) -> str:
    return "\n".join(form % tuple(row) for row in table.tolist())
