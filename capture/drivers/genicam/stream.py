"""Buffers of a camera: taken in against a deadline, copied out while they are ours, and given back."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from genicam import gentl
from numpy.typing import NDArray

from capture.devices import DeviceError, FrameLost, SettingRefused
from capture.drivers.genicam.nodes import FAULTS, Nodes
from capture.packing import packing_of, row_stride, unpack

POLL_S = 0.001
"""Pause between two looks for a buffer."""

LATER_FORMATS = {
    0x010E0104: "Mono14p",
    0x010E0105: "BayerGR14p",
    0x010E0106: "BayerRG14p",
    0x010E0107: "BayerGB14p",
    0x010E0108: "BayerBG14p",
    0x01100109: "BayerGR14",
    0x0110010A: "BayerRG14",
    0x0110010B: "BayerGB14",
    0x0110010C: "BayerBG14",
}
"""Codes of the PFNC that the table of harvesters 1.4.3 does not have."""

_NO_PIXELS = ("FILE", "JPEG", "JPEG2000", "H264", "CHUNK_ONLY", "GENDC")
"""Payloads that are no picture of plain pixels, whatever their size says."""

MULTI_FRAME_BYTES = 256 << 20
"""Memory for the buffers of a sequence of a counted length; a longer one is not counted by the camera."""


@dataclass(frozen=True, eq=False)
class Picture:
    """What one buffer held; None where nobody says.

    ``number`` and ``timestamp_ns`` are the producer's, else the camera's. ``exposure`` and ``gain`` are what
    the camera says of this frame, as its nodes count.
    """

    dn: NDArray[np.generic]
    pixel_format: str
    number: int | None
    timestamp_ns: int | None
    exposure: float | None = None
    gain: float | None = None


class Stream:
    """The stream of one open camera.

    Parameters
    ----------
    device : str
        Name of the camera in the rig file.
    acquirer : harvesters.core.ImageAcquirer
        Of the camera.
    nodes : Nodes
        Of the camera.
    """

    def __init__(self, device: str, acquirer: Any, nodes: Nodes) -> None:
        from harvesters.core import Callback, ImageAcquirer

        self._device = device
        self._acquirer = acquirer
        self._nodes = nodes
        self._incomplete = incomplete = [0]

        class Count(Callback):  # type: ignore[misc]
            """Counts what harvesters discards without a word."""

            def emit(self, context: object = None) -> None:
                incomplete[0] += 1

        acquirer.add_callback(ImageAcquirer.Events.INCOMPLETE_BUFFER, Count())

    @property
    def running(self) -> bool:
        """Whether pictures may come."""
        return bool(self._acquirer.is_acquiring())

    def start(self, count: int | None = None) -> None:
        """Take in pictures: without end, or ``count`` where the camera can count."""
        if count is not None and self._nodes.writable("AcquisitionMode"):
            self._nodes.write("AcquisitionMode", self._mode(count))
        with self._nodes.faults(DeviceError, "acquisition does not start"):
            try:
                self._acquirer.start()
            except AttributeError as error:
                raise DeviceError(self._device, f"acquisition does not start: {error} is missing") from error

    def counts(self, count: int) -> bool:
        """Whether the camera ends by itself after ``count`` pictures."""
        return self._nodes.writable("AcquisitionMode") and self._mode(count) != "Continuous"

    def _mode(self, count: int) -> str:
        modes = self._nodes.choices("AcquisitionMode")
        if count == 1 and "SingleFrame" in modes:
            return "SingleFrame"
        size = self._nodes.optional("PayloadSize") or MULTI_FRAME_BYTES
        if "MultiFrame" in modes and count * size <= MULTI_FRAME_BYTES:
            with suppress(DeviceError):
                self._nodes.write("AcquisitionMode", "MultiFrame")
                self._nodes.write("AcquisitionFrameCount", count)
                return "MultiFrame"
        return "Continuous"

    def stop(self) -> None:
        """Take in no more; what has come and was not asked for is gone."""
        with suppress(*FAULTS, AttributeError):
            self._acquirer.stop()
        self._incomplete[0] = 0

    def drain(self) -> int | None:
        """Give back what has come unasked; return the number of the last of it."""
        number = None
        while (raw := self._poll()) is not None:
            with self._taken(raw):
                number = _told(raw, "frame_id")
        self._incomplete[0] = 0
        return number

    def take(self, until: float, told_s: float) -> Picture:
        """Return the next picture.

        Raises
        ------
        FrameLost
            None came until ``until`` on the monotonic clock (``told_s`` is what the message tells), or an
            incomplete one, or one that cannot be read.
        """
        while True:
            raw = self._poll()
            if raw is not None:
                with self._taken(raw):
                    return self._picture(raw)
            if self._incomplete[0]:
                self._incomplete[0] = 0
                raise FrameLost(self._device, "a frame came incomplete: look at the cable and the bandwidth")
            if time.monotonic() >= until:
                raise FrameLost(self._device, f"no frame within {told_s:g} s")
            time.sleep(POLL_S)

    def _poll(self) -> Any:
        """One look for a buffer; None where there is none now."""
        with self._nodes.faults(FrameLost, "a frame cannot be taken in"):
            # 0 would wait for ever; this is one look of a millisecond
            got = self._acquirer.try_fetch(timeout=POLL_S, is_raw=True)
        buffers = [raw for raw in (got if isinstance(got, list) else [got]) if raw is not None]
        for other in buffers[1:]:
            with self._taken(other):
                pass
        return buffers[0] if buffers else None

    @contextmanager
    def _taken(self, raw: Any) -> Iterator[None]:
        """Within, a buffer's bytes are ours; after, the producer's."""
        try:
            yield
        finally:
            with self._nodes.faults(FrameLost, "a buffer cannot be given back"):
                raw.parent.queue_buffer(raw)

    def _picture(self, raw: Any) -> Picture:
        part = _image_part(self._device, raw)
        code = _told(part, "pixel_format", "data_format")
        width = _told(part, "width") or int(self._nodes.number("Width"))
        height = _told(part, "delivered_image_height", "height") or int(self._nodes.number("Height"))
        padding = _told(part, "padding_x", "x_padding") or 0
        offset = _told(part, "data_offset", "image_offset") or 0
        data = np.frombuffer(raw.raw_buffer, np.uint8)[offset:]
        filled = _told(part, "data_size") or _told(raw, "size_filled")
        size = min(filled or data.size, data.size)
        full = _told(part, "height")
        if full is not None and height < full:
            raise FrameLost(self._device, f"a frame came with {height} of its {full} rows")
        name = self._format_name(code)
        try:
            packing = packing_of(name)
            dn = unpack(
                data[:size],
                name,
                width,
                height,
                stride=row_stride(packing, width, height, size, padding),
                big_endian=_told(raw, "pixel_endianness") == gentl.PIXELENDIANNESS_IDS.PIXELENDIANNESS_BIG,
            )
        except ValueError as error:
            raise FrameLost(self._device, str(error)) from error
        number, time_ns = _told(raw, "frame_id"), _told(raw, "timestamp_ns")
        exposure = gain = None
        if _has_chunks(raw):  # without, the nodes still have those of an earlier frame
            exposure, gain = self._nodes.optional("ChunkExposureTime"), self._nodes.optional("ChunkGain")
            number = _whole(self._nodes.optional("ChunkFrameID")) if number is None else number
            if time_ns is None and self._nodes.unit("ChunkTimestamp") == "ns":
                time_ns = _whole(self._nodes.optional("ChunkTimestamp"))
        return Picture(dn, packing.pixel_format, number, time_ns, exposure, gain)

    def _format_name(self, code: int | None) -> str:
        """Name of the format that the buffer says, which is not always the one that was set."""
        from harvesters.util.pfnc import dict_by_ints

        if code is not None and (known := dict_by_ints.get(code) or LATER_FORMATS.get(code)):
            return str(known)
        node = self._nodes.node("PixelFormat")
        with suppress(*FAULTS, AttributeError):
            if code is None or node.get_int_value() == code:
                return str(node.value)
        raise FrameLost(self._device, f"sent an unknown pixel format, {code:#x}")


def _told(module: Any, *names: str) -> int | None:
    """First of the numbers that the producer has of a buffer; everything but its bytes is optional."""
    for name in names:
        with suppress(gentl.GenericException, AttributeError):
            value = getattr(module, name)
            if value is not None:
                return int(value)
    return None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _has_chunks(raw: Any) -> bool:
    with suppress(gentl.GenericException, AttributeError):
        return bool(raw.is_containing_chunk_data())
    return bool(_told(raw, "num_chunks"))


def _image_part(device: str, raw: Any) -> Any:
    """Return the first picture of a buffer in several parts; else the buffer, if it is a picture."""
    kind = _name(raw, "payload_type")
    if kind == "MULTI_PART":
        with suppress(gentl.GenericException, AttributeError):
            for part in raw.parts:
                if part.data_type == gentl.PARTDATATYPE_IDS.PART_DATATYPE_2D_IMAGE:
                    return part
        raise SettingRefused(device, "sent several parts, none of them a plain picture")
    if kind in _NO_PIXELS:
        raise SettingRefused(device, f"sent {kind}, which is no picture of plain pixels: have it send images")
    return raw


def _name(raw: Any, what: str) -> str:
    with suppress(gentl.GenericException, AttributeError, ValueError):
        return str(gentl.PAYLOADTYPE_INFO_IDS(getattr(raw, what)).name).removeprefix("PAYLOAD_TYPE_")
    return ""
