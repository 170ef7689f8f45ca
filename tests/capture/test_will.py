"""Programs that are killed while their lights burn."""

import os
import signal
from contextlib import ExitStack

from light_counterparts import Serial, Strip, Strobes, Widget, burning, receiver, until

from capture.drivers import slots
from capture.drivers.dmx import lines
from capture.drivers.will import Will


def test_lights_of_a_killed_program_go_dark():
    widget, strip, strobes = Widget(), Strip(), Strobes()
    with ExitStack() as stack:
        ports = [stack.enter_context(Serial(far)).port for far in (widget, strip, strobes)]
        (artnet, come_artnet), (sacn, come_sacn) = (stack.enter_context(receiver()) for _ in range(2))
        there = {"host": "127.0.0.1", "channels": 1}
        configs = [
            {"driver": "enttec", "port": ports[0], "channels": 1},
            {"driver": "adalight", "port": ports[1], "strip": 2, "leds": 0, "boot_s": 0},
            {"driver": "gardasoft", "port": ports[2], "channel": 3},
            {"driver": "artnet", "udp_port": artnet, **there},
            {"driver": "sacn", "udp_port": sacn, **there},
        ]
        program = stack.enter_context(burning(configs))
        until(lambda: widget.universe[:1] == strip.shown[:1] == b"\xff" and strobes.burning == {3: 100})
        lit = [come_artnet()[-1], come_sacn()[-1]]
        assert (lit[0][18], lit[1][126]) == (255, 255)
        program.send_signal(signal.SIGKILL)
        until(lambda: not any(widget.universe) and not any(strip.shown) and not strobes.burning)
        until(lambda: any(not any(packet[18:]) for packet in come_artnet()))
        until(lambda: any(packet[112] & 0x40 for packet in come_sacn()))


def test_whatever_frame_of_sacn_came_last_the_will_is_heard(monkeypatch):
    wills = []
    monkeypatch.setattr(slots, "Will", lambda handle, packets: wills.append(packets))
    with lines.Sacn("127.0.0.1", 1, 5568) as line:
        line.will()
    for last in range(256):
        taken = heard(last, wills[0])
        assert taken[-1][112] & 0x40
        assert len([packet for packet in taken if not packet[112] & 0x40]) >= 2


def heard(last, packets):
    """What a receiver takes of these packets: E1.31-2018, 6.7.2."""
    taken = []
    for packet in packets:
        if -20 < (packet[111] - last + 128) % 256 - 128 <= 0:
            continue
        last = packet[111]
        taken.append(packet)
    return taken


def test_a_will_that_is_revoked_is_not_executed():
    reading, writing = os.pipe()
    Will(writing, [b"dark"]).revoke()
    os.close(writing)
    assert os.read(reading, 10) == b""
    os.close(reading)


def test_an_executor_that_was_killed_does_no_harm():
    reading, writing = os.pipe()
    will = Will(writing, [b"dark"])
    will._executor.kill()
    will._executor.wait()
    will.revoke()
    os.close(writing)
    assert os.read(reading, 10) == b""
    os.close(reading)


def test_there_need_not_be_one(monkeypatch):
    Will(None, [b"dark"]).revoke()
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    Will(0, [b"dark"]).revoke()
