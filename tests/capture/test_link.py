"""Serial links on pseudo terminals and sockets; one open resource shared by many."""

import errno
import grp
import os
import pty
import socket
import struct
import threading
import time
import tty
from contextlib import contextmanager
from pathlib import Path

import pytest
from light_counterparts import until
from ola_counterpart import own_network
from pydantic import ValidationError

from capture.devices import DeviceError, DeviceLost
from capture.drivers.gardasoft import GardasoftLightConfig
from capture.drivers.link import SerialLink, UdpLink, _no_opening, serial_ports
from capture.drivers.shared import Shared


class Line:
    """A serial port whose other end is a file descriptor."""

    def __init__(self):
        self.far, self._near = pty.openpty()
        tty.setraw(self._near)
        self.port = os.ttyname(self._near)
        self.unplugged = False

    def unplug(self):
        if not self.unplugged:
            self.unplugged = True
            os.close(self._near)
            os.close(self.far)


@pytest.fixture
def line():
    line = Line()
    yield line
    line.unplug()


def test_bytes_go_both_ways(line):
    with SerialLink("lamp", line.port, 115200) as link:
        link.write(b"to")
        assert os.read(line.far, 9) == b"to"
        os.write(line.far, b"fro")
        assert link.read(1.0) == b"fro"
        assert link.read() == b""


def test_reading_waits_for_the_end_and_keeps_the_rest(line):
    with SerialLink("lamp", line.port, 9600) as link:
        os.write(line.far, b"one\rtw")
        assert link.read_until(b"\r", 1.0) == b"one\r"
        assert link.read_until(b"\r", 0.03) is None
        os.write(line.far, b"o\r\n")
        assert link.read_until(b"\r\n", 1.0) == b"two\r\n"
        os.write(line.far, b"old news")
        assert link.read_until(b"!", 0.1) is None
        link.discard()
        assert link.read_until(b"s", 0.03) is None


def test_waiting_ends(line):
    with SerialLink("lamp", line.port, 115200) as link:
        start = time.monotonic()
        assert link.read(0.05) == b""
        assert 0.05 <= time.monotonic() - start < 1.0


@pytest.mark.parametrize("act", ["read", "wait", "write", "discard"])
def test_an_unplugged_port_is_lost_whatever_is_done(line, act):
    with SerialLink("lamp", line.port, 115200) as link:
        line.unplug()
        with pytest.raises(DeviceLost, match=rf"^lamp: {line.port}: the cable was pulled"):
            {
                "read": link.read,
                "wait": lambda: link.read(1.0),
                "write": lambda: link.write(b"x"),
                "discard": link.discard,
            }[act]()


def test_a_port_pulled_while_waiting(line):
    with SerialLink("lamp", line.port, 115200) as link:
        threading.Timer(0.05, line.unplug).start()
        with pytest.raises(DeviceLost, match="the cable was pulled"):
            link.read(10.0)


def test_a_port_closed_by_another_thread_while_waiting_is_lost(line):
    """pyserial tells so by a TypeError."""
    link = SerialLink("lamp", line.port, 115200)
    with link:
        port = link._serial
        threading.Timer(0.05, port.close).start()
        with pytest.raises(DeviceLost, match="the cable was pulled"):
            link.read(10.0)


def test_a_port_that_cannot_be_opened_says_why(line, tmp_path):
    with pytest.raises(DeviceLost, match=r"^lamp: .*absent: no such port: is the cable plugged in"):
        SerialLink("lamp", str(tmp_path / "absent"), 115200).__enter__()
    (tmp_path / "file").touch()
    with pytest.raises(DeviceLost, match="file: cannot be opened: "):
        SerialLink("lamp", str(tmp_path / "file"), 115200).__enter__()
    with SerialLink("one", line.port, 115200), pytest.raises(DeviceLost, match=r"^two: .* is in use"):
        SerialLink("two", line.port, 115200).__enter__()
    with SerialLink("three", line.port, 115200):
        pass
    with pytest.raises(ValueError, match=r"lamp: port carrier://pigeon: .*not known"):
        SerialLink("lamp", "carrier://pigeon", 115200).__enter__()
    with pytest.raises(DeviceError, match="lamp: is not open"):
        SerialLink("lamp", line.port, 115200).read()


def test_a_port_beyond_the_network():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = f"socket://127.0.0.1:{server.getsockname()[1]}"
        with SerialLink("lamp", port, 115200) as link:
            there, _ = server.accept()
            link.write(b"to")
            assert there.recv(9) == b"to"
            there.sendall(b"fro\r")
            assert link.read_until(b"\r", 1.0) == b"fro\r"
            there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            there.close()
            with pytest.raises(DeviceLost, match="lamp: socket://"):
                link.read(1.0)
            left = link._serial._socket
        assert left.fileno() == -1
    with pytest.raises(DeviceLost, match=r"no connection \(.*refused\): is the device switched on"):
        SerialLink("lamp", port, 115200).__enter__()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may give a port to a group")
def test_who_may_not_open_a_port_is_told_of_its_group(line):
    for group, told in (
        ("daemon", "its group, daemon: sudo usermod -a -G daemon"),
        ("root", "only root may"),
    ):
        os.chown(line.port, -1, grp.getgrnam(group).gr_gid)
        assert told in _no_opening(line.port, PermissionError(errno.EACCES, "Permission denied"))


def test_a_port_that_another_program_has_for_itself(line):
    """What `TIOCEXCL` does, which root passes by."""
    assert _no_opening(line.port, OSError(errno.EBUSY, "Device or resource busy")).startswith("is in use")


@pytest.mark.parametrize(
    ("port", "told"),
    [
        ("socket://10.0.0.30", "host and TCP port"),
        ("socket://:30313", "host and TCP port"),
        ("rfc2217://bench:99999", "host and TCP port"),
        ("10.0.0.30:30313", "for TCP write socket://10.0.0.30:30313"),
        ("", "at least 1 character"),
    ],
)
def test_a_port_that_cannot_be_is_told_before_anything_is_opened(port, told):
    with pytest.raises(ValidationError, match=told):
        GardasoftLightConfig(port=port, channel=1)


@pytest.mark.parametrize(
    "port", ["/dev/ttyUSB0", "COM3", "socket://[::1]:30313", "rfc2217://bench:4000", "loop://"]
)
def test_ports_that_can_be(port):
    assert GardasoftLightConfig(port=port, channel=1).port == port


# ---------------------------------------------------------------- datagrams


def test_datagrams_go_to_version_4_of_a_name_that_has_both(monkeypatch):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.bind(("127.0.0.1", 0))
        there.settimeout(10)
        found = socket.getaddrinfo("::1", there.getsockname()[1], type=socket.SOCK_DGRAM)
        found += socket.getaddrinfo("127.0.0.1", there.getsockname()[1], type=socket.SOCK_DGRAM)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        with UdpLink("lamp", "both", there.getsockname()[1]) as link:
            link.write(b"to")
            assert there.recv(9) == b"to"


def test_a_host_that_is_not_there_is_told_of():
    """Linux asks for it three times, and keeps the failure to itself unless it is told not to."""
    with own_network(), UdpLink("lamp", "10.77.0.5", 6454) as link:
        Path("/proc/sys/net/ipv4/neigh/v0/retrans_time_ms").write_text("50")

        def told():
            try:
                link.write(b"to")
                link.confirm()
            except DeviceLost as error:
                return "lamp: 10.77.0.5 port 6454: no way there (No route to host)" in str(error)
            return False

        until(told)


def test_the_survey_of_ports_is_one_line():
    assert serial_ports()
    assert "\n" not in serial_ports()


# ---------------------------------------------------------------- sharing


def shared(log, fail=()):
    @contextmanager
    def make(key):
        log.append(f"open {key}")
        if key in fail:
            raise DeviceLost(key, "absent")
        try:
            yield key.upper()
        except DeviceError as error:
            log.append(f"learns of {error.device}")
            raise
        finally:
            log.append(f"close {key}")

    return Shared(make)


def test_the_first_opens_and_the_last_closes():
    log = []
    use = shared(log)
    with use("a") as first:
        with use("a") as second, use("b"):
            assert first is second
        assert log == ["open a", "open b", "close b"]
    assert log[-1] == "close a"
    with use("a"):
        assert log[-1] == "open a"


def test_the_resource_learns_of_the_error_its_last_user_ends_with():
    log = []
    use = shared(log)
    with pytest.raises(DeviceError, match="camera: gone"), use("a"), use("a"):
        raise DeviceError("camera", "gone")
    assert log == ["open a", "learns of camera", "close a"]


def test_what_fails_to_open_is_tried_again():
    log, fail = [], {"a"}
    use = shared(log, fail)
    with pytest.raises(DeviceLost), use("a"):
        pass
    fail.clear()
    with use("a") as resource:
        assert resource == "A"
    assert log == ["open a", "open a", "close a"]


def test_many_threads_share_one():
    log, seen = [], []
    use = shared(log)
    barrier = threading.Barrier(8)

    def work():
        barrier.wait()
        with use("a") as resource:
            seen.append(resource)
            barrier.wait()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == ["A"] * 8
    assert log == ["open a", "close a"]
