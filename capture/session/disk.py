"""Bytes that stay: atomic files, the lock of a folder, and the TIFF a frame is kept in."""

import contextlib
import errno
import io
import json
import mmap
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from capture.frame import Frame
from capture.session.records import Busy, SessionError, refusal_of

_LARGE = 1 << 20
_HEADER = 4096
_STRIP_ROWS = 256
_NATIVE = "<" if sys.byteorder == "little" else ">"

Bytes = bytes | memoryview

PART = ".part"
"""Ending of the name a file has until it is whole."""


def sync_folder(folder: Path) -> None:
    """Bring the names in ``folder`` to the disk, where the system has a way to ask for it."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(handle)


def write_part(path: Path, *pieces: Bytes) -> Path:
    """Write ``pieces`` in a row under the temporary name of ``path``, on the disk; return that name.

    Raises
    ------
    OSError
        The system could not write; nothing is left behind.
    """
    part = path.with_name(path.name + PART)
    try:
        with open(part, "wb", buffering=0) as file:
            for piece in pieces:
                left = memoryview(piece)
                while left:
                    left = left[file.write(left) or 0 :]
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    return part


def put_in_place(part: Path, path: Path) -> None:
    """Give what `write_part` wrote its name; OSError where the system could not: nothing is left behind."""
    try:
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    sync_folder(path.parent)


def write_file(path: Path, data: Bytes) -> None:
    """Write so that ``path`` is either whole on disk or not there at all.

    Raises
    ------
    OSError
        The system could not write; nothing is left behind.
    """
    put_in_place(write_part(path, data), path)


def write_json(path: Path, value: object) -> None:
    """Write indented JSON as `write_file` does."""
    write_file(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file; SessionError names it where it is missing or damaged."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        there = path.parent.is_dir()
        why = f" is not a session: it has no {path.name}" if there else ": no such folder"
        raise SessionError(f"{path.parent}{why}") from None
    except NotADirectoryError:
        raise SessionError(f"{path.parent}: is a file, want the folder of a session") from None
    except (OSError, ValueError) as error:
        raise SessionError(f"{path} cannot be read: {error}") from None


@contextlib.contextmanager
def locked(path: Path, busy: str | None = None) -> Iterator[None]:
    """Hold an exclusive lock on the file ``path``; the system frees it when this process ends, however.

    Parameters
    ----------
    path : Path
        Made where it is not there.
    busy : str, optional
        What is said where another holder has it; without, that its folder is being written.

    Raises
    ------
    Busy
        Another holder has it.
    SessionError
        The file cannot be written, or the file system has no locks.
    """
    try:
        file = open(path, "ab")  # noqa: SIM115  (closed below; an error here is told apart)
    except OSError as error:
        raise refusal_of(error)(f"{path} cannot be written: {error.strerror or error}") from None
    with file:
        try:
            if sys.platform == "win32":
                import msvcrt

                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
                raise Busy(
                    busy or f"{path.parent} is being written by another process: wait for it to end"
                ) from None
            raise SessionError(f"{path} cannot be locked: {error}") from None
        yield


def is_locked(path: Path) -> bool:
    """Tell whether a holder has the lock on the file ``path``; False where that cannot be told."""
    try:
        with open(path, "r+b" if sys.platform == "win32" else "rb") as file:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK) and error.filename is None
    return False


class _Head(io.BytesIO):
    """Takes a TIFF whose samples are only skipped: they come after it, as the last bytes of the file."""

    size = 0

    def write(self, data: Any) -> int:
        at = self.tell()
        self.size = max(self.size, at + len(data))
        if at < _HEADER:
            return super().write(data)
        self.seek(at + len(data))
        return len(data)


def encode(frame: Frame, compress: bool = False) -> tuple[Bytes, ...]:
    """Return the pieces of a little-endian TIFF, the same bytes for the same frame.

    Uncompressed they are the head and the samples, where they lie: nothing is copied. Compressed (Zstandard
    in strips, of differences along the rows where the samples are whole numbers) it is one piece.
    """
    description = {
        "content": "raw digital numbers" if frame.dn.dtype.kind == "u" else "values as recorded",
        "axes": "y x" if frame.dn.ndim == 2 else "y x rgb",
        "pixel_format": frame.pixel_format,
        "exposure_s": frame.exposure_s,
        "gain_db": frame.gain_db,
    }
    samples = np.ascontiguousarray(frame.dn, frame.dn.dtype.newbyteorder("<"))
    about = {
        "shape": samples.shape,
        "dtype": samples.dtype,
        "byteorder": "<",
        "photometric": "minisblack" if samples.ndim == 2 else "rgb",
        "description": json.dumps(description),
        "metadata": None,
        "software": "gnomon",
    }
    if compress:
        whole = io.BytesIO()
        differences = samples.dtype.kind == "u"
        tifffile.imwrite(
            whole,
            _strips(samples, differences),
            compression="zstd",
            predictor=differences,
            rowsperstrip=_STRIP_ROWS,
            **about,
        )
        return (whole.getbuffer(),)
    head = _Head()
    tifffile.imwrite(head, **about)
    offset = head.size - samples.nbytes
    return head.getvalue()[:offset].ljust(offset, b"\0"), samples.view(np.uint8).data.cast("B")


def _strips(samples: NDArray[np.generic], differences: bool) -> Iterator[bytes]:
    import zstandard

    packer = zstandard.ZstdCompressor(level=1)
    for row in range(0, len(samples), _STRIP_ROWS):
        rows: NDArray[Any] = samples[row : row + _STRIP_ROWS]
        strip = rows
        if differences:
            strip = np.empty_like(rows)
            strip[:, 0] = rows[:, 0]
            np.subtract(rows[:, 1:], rows[:, :-1], out=strip[:, 1:])
        yield packer.compress(strip.view(np.uint8).data)


def _unpacked(page: tifffile.TiffPage, data: bytes) -> NDArray[np.generic]:
    """Samples of a page of Zstandard strips, as `encode` writes them."""
    import zstandard

    assert page.dtype is not None
    image = np.empty(page.shape, page.dtype)
    opener = zstandard.ZstdDecompressor()
    for number, (offset, size) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
        strip = image[number * page.rowsperstrip : (number + 1) * page.rowsperstrip]
        raw = opener.decompress(data[offset : offset + size], max_output_size=strip.nbytes)
        strip[...] = np.frombuffer(raw, page.dtype.newbyteorder(page.parent.byteorder)).reshape(strip.shape)
        if page.predictor == tifffile.PREDICTOR.HORIZONTAL:
            np.cumsum(strip, axis=1, dtype=strip.dtype, out=strip)
    return image


def read_file(path: Path) -> bytes | mmap.mmap:
    """Bytes of a file; those of a large one in pages of their own, which go back to the system when let go.

    Frames come and go, and between them the allocator's heap would grow to several times what is in use.

    Raises
    ------
    OSError
        The system could not read it.
    """
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size < _LARGE:
            return file.read()
        data = mmap.mmap(-1, size) if sys.platform == "win32" else mmap.mmap(-1, size, mmap.MAP_PRIVATE)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # a kernel without them
                data.madvise(mmap.MADV_HUGEPAGE)
        view = memoryview(data)
        done = 0
        while done < size:
            count = file.readinto(view[done:])
            if not count:
                return bytes(view[:done])
            done += count
        return data


def decode(data: bytes | mmap.mmap) -> NDArray[np.generic]:
    """Return the locked array of a TIFF's bytes; ValueError where they are not one.

    That of an uncompressed one, as `encode` writes it, is a view of the bytes.
    """
    found = _view(data)
    if found is not None:
        return found
    data = bytes(data)
    try:
        # tifffile's objects hold one another until they are collected, and the bytes with them if not closed.
        with io.BytesIO(data) as file, tifffile.TiffFile(file) as tiff:
            page = tiff.pages[0]
            image: NDArray[np.generic]
            if isinstance(page, tifffile.TiffPage) and page.compression == tifffile.COMPRESSION.ZSTD:
                image = _unpacked(page, data)
            else:
                image = np.asarray(tiff.asarray())
    except Exception as error:  # tifffile lets struct, zlib and index errors through on damaged files
        raise ValueError(f"not a readable TIFF ({error})") from None
    image = image.astype(image.dtype.newbyteorder("="), copy=False)
    image.flags.writeable = False
    return image


def _view(data: bytes | mmap.mmap) -> NDArray[np.generic] | None:
    """Samples within the bytes of a TIFF of one page, whose last bytes they are; None for any other."""
    try:
        with io.BytesIO(data[:_HEADER]) as file, tifffile.TiffFile(file) as tiff:
            page = tiff.pages[0]
            assert isinstance(page, tifffile.TiffPage)
            plain = page.is_contiguous and page.dtype is not None and tiff.byteorder == _NATIVE
            offset, size, shape, dtype = page.dataoffsets[0], sum(page.databytecounts), page.shape, page.dtype
    except Exception:  # the whole file says what is wrong with it
        return None
    if not plain or dtype is None or offset % dtype.itemsize or offset + size != len(data):
        return None
    if size != dtype.itemsize * int(np.prod(shape)):
        return None
    image = np.frombuffer(data, dtype, offset=offset).reshape(shape)
    image.flags.writeable = False
    return image
