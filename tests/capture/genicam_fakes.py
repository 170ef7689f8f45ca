"""A camera of plain Python behind the real GenApi: nodes from a description written here, buffers made up.

What no producer at hand sends: packed formats, padding, parts, incomplete and late frames, a camera that
vanishes.
"""

from collections import deque
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from genicam import gentl
from genicam.genapi import NodeMap

from capture.drivers.genicam import GenicamCameraConfig
from capture.drivers.genicam.nodes import Nodes

HEAD = """<?xml version="1.0" encoding="utf-8"?>
<RegisterDescription ModelName="Fake" VendorName="gnomon" ToolTip="" StandardNameSpace="None"
 SchemaMajorVersion="1" SchemaMinorVersion="1" SchemaSubMinorVersion="0" MajorVersion="1" MinorVersion="0"
 SubMinorVersion="0" ProductGuid="193CBC2C-5755-4ada-AA67-F118D004A74D"
 VersionGuid="321DAFF5-A243-42ae-8B5D-B5BD18C31488" xmlns="http://www.genicam.org/GenApi/Version_1_1"
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
 xsi:schemaLocation="http://www.genicam.org/GenApi/Version_1_1 GenApiSchema.xsd">
<Category Name="Root"></Category>
"""


def number(value, low=None, high=None, step=None, unit=None):
    """A float or integer feature."""
    kind = "Float" if isinstance(value, float) else "Integer"
    parts = {"Value": value, "Min": low, "Max": high, "Inc": step, "Unit": unit}
    return kind, "".join(f"<{tag}>{part}</{tag}>" for tag, part in parts.items() if part is not None)


def choice(*names, at=0, per=None):
    """An enumeration; ``per`` names a selector, each of whose settings has a value of its own."""
    entries = "".join(
        f'<EnumEntry Name="{name}"><Value>{place}</Value></EnumEntry>' for place, name in enumerate(names)
    )
    value = f"<Value>{at}</Value>" if per is None else f"<pValue>{{own}}_{per}</pValue>"
    return "Enumeration", entries + value


def switch(on):
    return "Boolean", f"<Value>{int(on)}</Value><OnValue>1</OnValue><OffValue>0</OffValue>"


def command():
    return "Command", "<Value>0</Value><CommandValue>1</CommandValue>"


def fixed(feature):
    """The same feature, but read only."""
    kind, body = feature
    return kind, "<ImposedAccessMode>RO</ImposedAccessMode>" + body


def selected(selector, settings, value):
    """Storage of a feature that has a value for each setting of a selector."""
    cells = "".join(
        f'<pValueIndexed Index="{place}">{{own}}{place}</pValueIndexed>' for place in range(settings)
    )
    return (
        "Integer",
        f"<pIndex>{selector}</pIndex>{cells}<pValueDefault>{{own}}0</pValueDefault>",
        settings,
        value,
    )


def described(**features):
    """A node map with these features."""
    text = HEAD
    for name, (kind, body, *cells) in features.items():
        if cells:
            settings, value = cells
            text += "".join(
                f'<Integer Name="{name}{place}"><Value>{value}</Value></Integer>' for place in range(settings)
            )
        text += f'<{kind} Name="{name}">{body.replace("{own}", name)}</{kind}>\n'
    node_map = NodeMap()
    node_map.load_xml_from_string(text + "</RegisterDescription>")
    return node_map


SFNC = {
    "Width": number(8, 4, 4096, 4),
    "Height": number(6, 2, 3000, 2),
    "OffsetX": number(0, 0, 64, 4),
    "OffsetY": number(0, 0, 64, 2),
    "PixelFormat": choice("Mono8", "Mono12", "Mono12p", "BayerRG10Packed", "YUV422_8"),
    "PayloadSize": number(1000),
    "AcquisitionMode": choice("Continuous", "SingleFrame", "MultiFrame"),
    "AcquisitionFrameCount": number(1, 1, 255),
    "AcquisitionStart": command(),
    "AcquisitionStop": command(),
    "TriggerSelector": choice("AcquisitionStart", "FrameStart"),
    "TriggerMode": choice("Off", "On", per="Store"),
    "TriggerMode_Store": selected("TriggerSelector", 2, 1),
    "TriggerSource": choice("Software", "Line1", "Line2", at=1),
    "TriggerSoftware": command(),
    "ExposureTime": number(5000.0, 10.0, 2e6, unit="us"),
    "ExposureAuto": choice("Off", "Once", "Continuous", at=2),
    "Gain": number(3.0, 0.0, 24.0, unit="dB"),
    "GammaEnable": switch(True),
    "TestPattern": choice("Off", "Ramp", at=1),
    "BlackLevel": number(10.0, 0.0, 255.0),
    "DeviceTemperature": number(40.5),
}
"""What a decent camera has, left as badly as another program can leave it."""


class FakeBuffer:
    """A buffer that tells only what it is given; the rest is not available."""

    def __init__(self, data, **told):
        self.raw_buffer = bytes(data)
        self.told = {"payload_type": gentl.PAYLOADTYPE_INFO_IDS.PAYLOAD_TYPE_IMAGE} | told
        self.queued = 0
        self.parent = SimpleNamespace(queue_buffer=self._queue)

    def _queue(self, buffer):
        assert buffer is self
        self.queued += 1
        self.raw_buffer = bytes(len(self.raw_buffer))

    def __getattr__(self, name):
        if name in self.__dict__.get("told", {}):
            return self.told[name]
        raise gentl.NotAvailableException("not available")


class FakeAcquirer:
    """What harvesters gives, without a producer. ``arriving`` holds buffers, or exceptions to raise."""

    def __init__(self, **features):
        self.node_map = described(**features)
        self.remote_device = SimpleNamespace(node_map=self.node_map)
        self.status = gentl.DEVICE_ACCESS_STATUS_LIST.DEVICE_ACCESS_STATUS_OPEN_READWRITE
        self.device = SimpleNamespace(module=self)
        self.arriving = deque()
        self.taken = []
        self.calls = []
        self.acquiring = False
        self.number = 0
        self.on_trigger = lambda: self.send()
        self.incomplete = None

    @property
    def access_status(self):
        return self.status

    def add_callback(self, event, callback):
        self.incomplete = callback

    def is_acquiring(self):
        return self.acquiring

    def start(self):
        self.acquiring = True
        self.calls.append(("start", self.node_map.get_node("AcquisitionMode").value))
        if self.node_map.get_node("TriggerMode").value == "Off":
            self.send(300)

    def stop(self):
        self.acquiring = False
        self.calls.append("stop")
        self.arriving.clear()

    def send(self, count=1, **told):
        """Let frames arrive; the first pixel is the number."""
        for _ in range(count):
            self.number += 1
            data = np.full(8 * 6, 7, np.uint8)
            data[0] = self.number % 256
            self.arriving.append(
                FakeBuffer(data, width=8, height=6, pixel_format=0x01080001, frame_id=self.number, **told)
            )

    def try_fetch(self, *, timeout, is_raw):
        assert timeout > 0
        assert is_raw
        if not self.arriving:
            return None
        got = self.arriving.popleft()
        if isinstance(got, Exception):
            raise got
        if got == "incomplete":
            self.incomplete.emit()
            return None
        self.taken.extend(got if isinstance(got, list) else [got])
        return got

    @contextmanager
    def opened(self, device, config):
        """In place of `producers.open_device`."""
        yield self


SMALL = {
    "exposure_min_s": 1e-5,
    "exposure_max_s": 1,
    "gain_max_db": 24,
    "width": 8,
    "height": 6,
    "pixel_format": "Mono8",
}


def fake_config(**changes):
    return GenicamCameraConfig.model_validate(SMALL | changes)


@pytest.fixture
def fake(monkeypatch):
    """Makes a fake acquirer and an unopened camera on it."""
    execute = Nodes.execute

    def make(features=SFNC, **changes):
        acquirer = FakeAcquirer(**features)
        monkeypatch.setattr("capture.drivers.genicam.camera.open_device", acquirer.opened)

        def hook(nodes, name):
            execute(nodes, name)
            if name == "TriggerSoftware":
                acquirer.calls.append("trigger")
                acquirer.on_trigger()

        monkeypatch.setattr(Nodes, "execute", hook)
        return acquirer, fake_config(**changes).open("main")

    return make


def nodes_of(acquirer):
    return Nodes("main", acquirer.node_map, lambda: False)


# ---------------------------------------------------------------- the nodes of gentl_producer.c

REGISTERS = (
    "width", "height", "format", "exposure_us", "trigger", "start", "stop", "trigger_mode", "fault",
    "payload", "padding", "chunks", "gain", "rate", "chunk_error_us", "grain_us", "counting", "count",
)  # fmt: skip
FORMATS = {
    "Mono8": 0x01080001, "Mono10": 0x01100003, "Mono10p": 0x010A0046, "Mono10Packed": 0x010C0004,
    "Mono12": 0x01100005, "Mono12p": 0x010C0047, "Mono12Packed": 0x010C0006, "Mono14": 0x01100025,
    "Mono14p": 0x010E0104, "Mono16": 0x01100007, "RGB8": 0x02180014,
}  # fmt: skip
FAULTS = (
    "fine", "incomplete", "dropped", "late", "short", "vanished", "doubled", "hanging", "crashing", "mistold",
)  # fmt: skip


def describe_producer(*, counts=False):
    """Description of the camera of gentl_producer.c; ``counts``: it can end by itself after some frames."""

    def at(place, port="Device", more="<Cachable>NoCache</Cachable>"):
        return (
            f"<Address>{place:#x}</Address><Length>4</Length><AccessMode>RW</AccessMode><pPort>{port}</pPort>"
            f"{more}<Sign>Unsigned</Sign><Endianess>LittleEndian</Endianess>"
        )

    def integer(register, low, high):
        return "Integer", f"<pValue>{register}_</pValue><Min>{low}</Min><Max>{high}</Max>"

    def chosen(register, **values):
        entries = "".join(f'<EnumEntry Name="{k}"><Value>{v}</Value></EnumEntry>' for k, v in values.items())
        return "Enumeration", f"{entries}<pValue>{register}_</pValue>"

    def commanded(register):
        return "Command", f"<pValue>{register}_</pValue><CommandValue>1</CommandValue>"

    features = {f"{name}_": ("IntReg", at(0x1000 + 4 * n)) for n, name in enumerate(REGISTERS)} | {
        # as most cameras have it: after writing, what was written is taken for what is
        "exposure_us_": ("IntReg", at(0x100C, more="<Cachable>WriteThrough</Cachable>")),
        "Width": integer("width", 4, 4096),
        "Height": integer("height", 2, 4096),
        "PixelFormat": chosen("format", **FORMATS),
        "PayloadSize": integer("payload", 0, 1 << 30),
        "ExposureTime": (
            "Float",
            "<pValue>exposure_us_</pValue><Min>10</Min><Max>1000000</Max><Unit>us</Unit>",
        ),
        "AcquisitionMode": chosen("counting", Continuous=0, MultiFrame=1) if counts else choice("Continuous"),
        "AcquisitionFrameCount": integer("count", 1, 255),
        "AcquisitionStart": commanded("start"),
        "AcquisitionStop": commanded("stop"),
        "TriggerMode": chosen("trigger_mode", Off=0, On=1),
        "TriggerSource": choice("Software"),
        "TriggerSoftware": commanded("trigger"),
        "ChunkModeActive": ("Boolean", "<pValue>chunks_</pValue><OnValue>1</OnValue><OffValue>0</OffValue>"),
        "ChunkSelector": choice("ExposureTime"),
        "ChunkEnable": switch(True),
        "ChunkExposureTime": ("Float", "<pValue>chunk_</pValue><Unit>us</Unit>"),
        "chunk_": ("IntReg", at(0, "ChunkPort", "")),
        "Fault": chosen("fault", **{name: place for place, name in enumerate(FAULTS)}),
        "Faulty": integer("fault", 0, 9),
        "RowPadding": integer("padding", 0, 0xFFFF),
        "FrameRate": integer("rate", 0, 1000),
        "ChunkExposureError": integer("chunk_error_us", 0, 100000),
        "ExposureGrain": integer("grain_us", 0, 100000),
        "Device": ("Port", ""),
        "ChunkPort": ("Port", "<ChunkID>0001</ChunkID>"),
    }
    body = "".join(f'<{kind} Name="{name}">{text}</{kind}>\n' for name, (kind, text) in features.items())
    return HEAD + body + "</RegisterDescription>"
