"""Models in files: ``name.json`` and, where it holds arrays, ``name.npz`` beside it.

The JSON holds the SHA-256 of the sidecar, so the SHA-256 of the JSON, which ``save_model`` returns, covers
both. Files are written under another name, synced and renamed: a reader sees the old file or the new one.
Nothing is read through pickle.
"""

import hashlib
import inspect
import io
import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from calibration.provenance import Model

M = TypeVar("M", bound=Model)

_FORMAT = 1
_ARRAY, _FLOAT = "$array", "$float"


def save_model(path: Path, model: Model) -> str:
    """Write a model to ``path`` (.json) with its arrays beside it (.npz).

    Parameters
    ----------
    path : Path
        Ends in ``.json``; its folder exists.
    model : Model
        Any frozen model; arrays of objects are refused.

    Returns
    -------
    str
        SHA-256 (hex) of the JSON, which holds that of the sidecar. The same model gives the same bytes.

    Raises
    ------
    ValueError
        Another ending, or an array of objects.
    """
    path = Path(path)
    if path.suffix != ".json":
        raise ValueError(f"{path}: a model's file name ends in .json")
    arrays: dict[str, NDArray[Any]] = {}
    content = _take_arrays(model.model_dump(), "", arrays)
    sidecar = path.with_suffix(".npz")
    document: dict[str, Any] = {
        "format": _FORMAT,
        "kind": _kind(type(model)),
        "arrays": None,
        "model": content,
    }
    if arrays:
        packed = _pack(arrays)
        document["arrays"] = {"file": sidecar.name, "sha256": hashlib.sha256(packed).hexdigest()}
        write_bytes(sidecar, packed)
    text = (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    write_bytes(path, text)
    if not arrays:
        sidecar.unlink(missing_ok=True)
    return hashlib.sha256(text).hexdigest()


def load_model(path: Path, expect: type[M], digest: str | None = None) -> M:
    """Read a model that ``save_model`` wrote.

    Parameters
    ----------
    path : Path
        The ``.json`` file.
    expect : type
        Class of the model; of an abstract one, such as ``LensModel``, any of its kinds.
    digest : str, optional
        What ``save_model`` returned; anything else is refused.

    Returns
    -------
    expect

    Raises
    ------
    FileNotFoundError
        The JSON or its sidecar is missing.
    ValueError
        Damaged, of another kind, from a later version, not the one of ``digest``, or with an unknown or
        bad entry, which is named with its path. One line.
    """
    path = Path(path)
    text = read_bytes(path, "no such model")
    if digest is not None and hashlib.sha256(text).hexdigest() != digest.lower():
        raise ValueError(
            f"{path}: not the pinned model (its digest is {hashlib.sha256(text).hexdigest()[:12]}…)"
        )
    try:
        document = json.loads(text)
        version, kind, sidecar, content = (document[key] for key in ("format", "kind", "arrays", "model"))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged, or no gnomon model ({one_line(error)})") from None
    if unknown := sorted(set(document) - {"format", "kind", "arrays", "model"}):
        raise ValueError(f"{path}: {unknown[0]}: unknown entry")
    if version != _FORMAT:
        raise ValueError(f"{path}: format {version}, this version of gnomon reads format {_FORMAT}")
    classes = {_kind(model): model for model in _concrete(expect)}
    if kind not in classes:
        raise ValueError(f"{path}: holds a {kind!r} model, want {' or '.join(map(repr, classes))}")
    arrays = _load_arrays(path, sidecar) if sidecar is not None else {}
    try:
        return classes[kind].model_validate(_put_arrays(content, arrays))
    except KeyError as error:
        raise ValueError(f"{path}: its sidecar has no array {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{path}: {where}: {one_line(first['msg'])}") from None


def _concrete(model: type[M]) -> list[type[M]]:
    """The class itself, or those that make an abstract one whole."""
    below = model.__subclasses__()
    return [leaf for child in below for leaf in _concrete(child)] if inspect.isabstract(model) else [model]


def _kind(model: type[Model]) -> str:
    field = model.model_fields.get("kind")
    return str(field.default) if field is not None else model.__name__


def _take_arrays(value: Any, at: str, arrays: dict[str, NDArray[Any]]) -> Any:
    """JSON form of a value; arrays go into ``arrays`` under their path."""
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise ValueError(f"{at}: an array of objects cannot be saved")
        arrays[at] = value
        return {_ARRAY: at}
    if isinstance(value, dict):
        return {
            key: _take_arrays(entry, f"{at}/{key}" if at else str(key), arrays)
            for key, entry in value.items()
        }
    if isinstance(value, list | tuple):
        return [_take_arrays(entry, f"{at}/{i}" if at else str(i), arrays) for i, entry in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: repr(value)}
    return value


def _put_arrays(value: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    if isinstance(value, dict):
        if set(value) == {_ARRAY}:
            return arrays[value[_ARRAY]]
        if set(value) == {_FLOAT}:
            return float(value[_FLOAT])
        return {key: _put_arrays(entry, arrays) for key, entry in value.items()}
    if isinstance(value, list):
        return [_put_arrays(entry, arrays) for entry in value]
    return value


def _pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    # numpy.savez, but compressed lightly and without the clock: the same arrays give the same bytes.
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            data = io.BytesIO()
            np.lib.format.write_array(
                data, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False
            )
            archive.writestr(entry, data.getbuffer(), compresslevel=1)
    return out.getvalue()


def _load_arrays(path: Path, sidecar: Any) -> dict[str, NDArray[Any]]:
    try:
        name, digest = sidecar["file"], sidecar["sha256"]
    except (KeyError, TypeError):
        raise ValueError(f"{path}: arrays: want file and sha256") from None
    if Path(name).name != name:
        raise ValueError(f"{path}: arrays.file: {name!r} is not a plain file name")
    packed = read_bytes(path.with_name(name), f"missing; it holds the arrays of {path.name}")
    if hashlib.sha256(packed).hexdigest() != digest:
        raise ValueError(f"{path.with_name(name)}: damaged, or not the one that {path.name} was saved with")
    try:
        with np.load(io.BytesIO(packed), allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path.with_name(name)}: no sidecar of arrays ({one_line(error)})") from None
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


def read_bytes(path: Path, otherwise: str) -> bytes:
    """Bytes of a file; FileNotFoundError with its path and ``otherwise`` where there is none."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: {otherwise}") from None


def one_line(error: object) -> str:
    """Text of an error without line breaks."""
    return " ".join(str(error).split())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees it whole or not at all, whatever happens in between."""
    with replacing(Path(path)) as temporary, open(temporary, "wb") as file:
        file.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Name to write under; renamed to ``path`` once its bytes are on the disk.

    An OSError, of a full disk say, names ``path``.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary)):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
