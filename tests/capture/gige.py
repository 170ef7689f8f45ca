"""A GigE Vision camera in the place of harvesters: what the GenICam driver sees of it, over UDP.

There is no GenTL producer for other makers' cameras that may be used freely, so that harvesters itself cannot
be pointed at cameras on a network. This is a producer's work in its barest form: no search for cameras, no
resent packets, one stream.

After AIA's GigE Vision 2.0: commands (GVCP), stream (GVSP), bootstrap registers.
"""

import io
import socket
import struct
import time
import zipfile
from contextlib import contextmanager, suppress
from types import SimpleNamespace

from genicam import gentl
from genicam.genapi import AbstractPort, ChunkAdapterGEV, EAccessMode, NodeMap
from genicam_fakes import FakeBuffer

GVCP_PORT = 3956
READ_REGISTER, WRITE_REGISTER, READ_MEMORY, WRITE_MEMORY = 0x80, 0x82, 0x84, 0x86
XML_URL, HEARTBEAT_MS, CONTROL = 0x0200, 0x0938, 0x0A00
STREAM_PORT, STREAM_PACKET, STREAM_ADDRESS = 0x0D00, 0x0D04, 0x0D18
LEADER, TRAILER, PAYLOAD = 1, 2, 3
PACKET = 1400
BLOCK = 512


class Commands(AbstractPort):
    """Registers of a camera, to be read and written; what goes wrong is an IoException."""

    def __init__(self, address):
        super().__init__()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(0.5)
        self.socket.connect((address, GVCP_PORT))
        self.number = 0

    def _ask(self, command, data):
        self.number = self.number % 0xFFFF + 1
        for _ in range(2):
            try:
                self.socket.send(struct.pack(">BBHHH", 0x42, 1, command, len(data), self.number) + data)
                while True:
                    status, _, length, number = struct.unpack_from(">HHHH", got := self.socket.recv(2048))
                    if number == self.number:
                        break
            except OSError:
                continue
            if status:
                raise gentl.IoException(f"status {status:#x}")
            return got[8 : 8 + length]
        raise gentl.IoException("no answer")

    def register(self, address, value=None):
        if value is None:
            return struct.unpack(">I", self._ask(READ_REGISTER, struct.pack(">I", address)))[0]
        self._ask(WRITE_REGISTER, struct.pack(">II", address, value))
        return value

    def memory(self, address, length):
        """What lies there, read in aligned blocks as the protocol wants it."""
        first, out = address - address % 4, b""
        end = -(-(address + length) // 4) * 4
        for at in range(first, end, BLOCK):
            out += self._ask(READ_MEMORY, struct.pack(">IHH", at, 0, min(BLOCK, end - at)))[4:]
        return out[address - first :][:length]

    # what GenApi calls

    def read(self, address, length):
        return self.memory(address, length)

    def write(self, address, value):
        if len(value) == 4:
            self.register(address, struct.unpack(">I", value)[0])
        else:
            self._ask(WRITE_MEMORY, struct.pack(">I", address) + bytes(value))

    def get_access_mode(self):
        return EAccessMode.RW


class GigeAcquirer:
    """What harvesters would give for the camera at ``address``, whose control is taken until `close`."""

    def __init__(self, address="127.0.0.1"):
        self.commands = Commands(address)
        try:
            self.commands.register(CONTROL, 2)
        except gentl.GenericException:
            self.commands.socket.close()
            raise
        self.commands.register(HEARTBEAT_MS, 60_000)
        url = self.commands.memory(XML_URL, 512).split(b"\0")[0].decode()
        name, place, size = url.partition(":")[2].lstrip("/").split("?")[0].split(";")
        text = self.commands.memory(int(place, 16), int(size, 16))
        if name.lower().endswith(".zip"):
            with zipfile.ZipFile(io.BytesIO(text)) as archive:
                text = archive.read(archive.namelist()[0])
        self.xml = text.decode().rstrip("\0")
        self.node_map = NodeMap()
        self.node_map.load_xml_from_string(self.xml)
        self.node_map.connect(self.commands, "Device")
        self.chunks = ChunkAdapterGEV(self.node_map)
        self.remote_device = SimpleNamespace(node_map=self.node_map)
        self.device = SimpleNamespace(module=_Silent())
        self.acquiring = False
        self.dropped = None
        stream = self.stream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 25)
        stream.bind((self.commands.socket.getsockname()[0], 0))
        stream.setblocking(False)
        self.blocks = {}

    def add_callback(self, event, callback):
        self.dropped = callback

    def is_acquiring(self):
        return self.acquiring

    def start(self):
        host, port = self.stream.getsockname()
        self.commands.register(STREAM_ADDRESS, struct.unpack(">I", socket.inet_aton(host))[0])
        self.commands.register(STREAM_PACKET, PACKET)
        self.commands.register(STREAM_PORT, port)
        self._lock(1)
        self.node_map.get_node("AcquisitionStart").execute()
        self.acquiring = True

    def stop(self):
        if not self.acquiring:
            return
        self.acquiring = False
        self.node_map.get_node("AcquisitionStop").execute()
        self._lock(0)
        self.commands.register(STREAM_PORT, 0)
        time.sleep(0.01)
        with suppress(BlockingIOError):
            while True:
                self.stream.recv(65536)
        self.blocks.clear()

    def _lock(self, value):
        node = self.node_map.get_node("TLParamsLocked") if self.node_map.has_node("TLParamsLocked") else None
        if node is not None:
            node.value = value

    def try_fetch(self, *, timeout, is_raw):
        """The next whole frame; the loss of a frame is told as harvesters tells it."""
        assert timeout > 0
        assert is_raw
        with suppress(BlockingIOError):
            while True:
                packet = self.stream.recv(65536)
                number, kind, place, data = _parsed(packet)
                block = self.blocks.setdefault(number, SimpleNamespace(head=None, parts={}))
                if kind == LEADER:
                    block.head = data
                elif kind == PAYLOAD:
                    block.parts[place] = data
                else:
                    del self.blocks[number]
                    return self._buffer(number, place, block, data)
        return None

    def _buffer(self, number, count, block, trailer):
        if block.head is None or len(block.parts) != count - 1:
            self.dropped.emit()
            return None
        data = b"".join(block.parts[place] for place in sorted(block.parts))
        kind, high, low, pixel_format, width, height, _, _, pad_x, _ = struct.unpack_from(
            ">2xHIIIIIIIHH", block.head
        )
        chunked = bool(kind & 0x4000)
        told = {
            "frame_id": number, "timestamp_ns": (high << 32) + low, "pixel_format": pixel_format,
            "width": width, "height": height, "padding_x": pad_x, "size_filled": len(data),
            "delivered_image_height": struct.unpack_from(">4xI", trailer)[0],
        }  # fmt: skip
        if chunked:
            self.attached = data  # of which the adapter keeps the address only
            self.chunks.attach_buffer(data, len(data))
        return FakeBuffer(data, is_containing_chunk_data=lambda: chunked, **told)

    @contextmanager
    def opened(self, device, config):
        """In place of `producers.open_device`."""
        try:
            yield self
        finally:
            self.close()

    def close(self):
        self.stop()
        with suppress(gentl.GenericException):
            self.commands.register(CONTROL, 0)
        self.node_map.disconnect()
        self.commands.socket.close()
        self.stream.close()


class _Silent:
    """A device module that tells no access status, as many producers' do not."""

    @property
    def access_status(self):
        raise gentl.NotImplementedException("not implemented")


def _parsed(packet):
    _, number, kind, high, low = struct.unpack_from(">HHBBH", packet)
    if kind & 0x80:  # longer numbers
        number, place = struct.unpack_from(">QI", packet, 8)
        return number, kind & 0x0F, place, packet[20:]
    return number, kind & 0x0F, (high << 16) + low, packet[8:]
