"""OLA's daemon, a party to DMX lights that we did not write, in a network of its own."""

import ctypes
import json
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from light_counterparts import until

_NEW_NETWORK = 0x40000000


@contextmanager
def own_network(address: str = "10.77.0.1") -> Iterator[None]:
    """Put this thread into a network of its own, where ``address`` is its only one beside the loopback's."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("wants root and iproute2, to make a network that nobody else is in")
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
    if libc.unshare(_NEW_NETWORK) != 0:
        os.close(before)
        pytest.skip(f"cannot make a network here: {os.strerror(ctypes.get_errno())}")
    try:
        for command in (
            "link set lo up",
            "link add v0 type veth peer name v1",
            "link set v1 up",
            "link set v0 up",
            f"address add {address}/24 dev v0",
            "route add 224.0.0.0/4 dev v0",
        ):
            done = subprocess.run(["ip", *command.split()], capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"cannot make a network here: ip {command}: {done.stderr.strip()}")
        yield
    finally:
        assert libc.setns(before, _NEW_NETWORK) == 0
        os.close(before)


class Ola:
    """A running olad: an Art-Net node, an E1.31 receiver, and a host for DMX USB Pro widgets."""

    address = "10.77.0.1"

    def get(self, path: str) -> Any:
        """What it answers to a request."""
        with urllib.request.urlopen(f"http://127.0.0.1:9090/{path}", timeout=5) as answer:
            return json.load(answer)

    def universe(self, number: int) -> list[int]:
        """Levels that it has received."""
        return list(self.get(f"get_dmx?u={number}")["dmx"])

    def shows(self, number: int, levels: dict[int, int]) -> bool:
        """Whether these channels, from 1, and no others burn in a universe of 512."""
        wanted = [levels.get(channel, 0) for channel in range(1, 513)]
        return self.universe(number) == wanted

    def patched(self, number: int) -> bool:
        """Whether a universe has a port."""
        universes = self.get("json/universe_plugin_list")["universes"]
        return number in [universe["id"] for universe in universes]

    def put(self, number: int, levels: list[int]) -> None:
        """Let it send levels."""
        data = urllib.parse.urlencode({"u": number, "d": ",".join(map(str, levels))}).encode()
        urllib.request.urlopen("http://127.0.0.1:9090/set_dmx", data, timeout=5).close()


ARTNET_IN, SACN_IN, ENTTEC_OUT = 3, 7, 9
"""Universes: of Art-Net's input port, of sACN's, of the widget's output port."""


@contextmanager
def ola(widget_port: str) -> Iterator[Ola]:
    """Run olad in a network of its own, with a widget that it is to find."""
    if shutil.which("olad") is None:
        pytest.skip("wants olad: apt-get install --no-install-recommends ola")
    nobody = pwd.getpwnam("nobody")
    stack = ExitStack()
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ola-")))
    ports = folder / "dev"
    ports.mkdir()
    (ports / "ttyUSB0").symlink_to(widget_port)
    os.chown(widget_port, nobody.pw_uid, nobody.pw_gid)
    config = folder / "ola"
    config.mkdir()
    others = "dummy espnet ftdidmx gpio karate kinet milinst opendmx openpixelcontrol osc pathport renard "
    others += "sandnet shownet spi stageprofi uartdmx usbdmx"
    settings = dict.fromkeys(others.split(), "enabled = false\n") | {
        "artnet": "enabled = true\nuse_loopback = false\nsubnet = 0\nnet = 0\n",
        "e131": "enabled = true\ninput_ports = 1\noutput_ports = 0\n",
        "usbserial": f"enabled = true\ndevice_dir = {ports}\ndevice_prefix = ttyUSB\n",
        "port": f"2-1-I-0 = {ARTNET_IN}\n11-1-I-0 = {SACN_IN}\n5-12345678-O-0 = {ENTTEC_OUT}\n",
    }
    for name, text in settings.items():
        (config / f"ola-{name}.conf").write_text(text)
    for path in (folder, config, *config.iterdir()):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    with stack:
        stack.enter_context(own_network(Ola.address))
        log = stack.enter_context((folder / "log").open("w"))
        process = stack.enter_context(
            subprocess.Popen(
                ["olad", "-c", str(config), "-l", "3", "--no-register-with-dns-sd"],
                user=nobody.pw_uid,
                group=nobody.pw_gid,
                extra_groups=[],
                env={"HOME": str(config), "PATH": os.environ["PATH"]},
                stdout=log,
                stderr=log,
            )
        )
        stack.callback(process.terminate)
        daemon = Ola()

        def answers() -> bool:
            assert process.poll() is None, (folder / "log").read_text()
            try:
                return bool(daemon.get("json/server_stats"))
            except OSError:
                return False

        until(answers)
        until(lambda: daemon.patched(ARTNET_IN) and daemon.patched(SACN_IN))
        yield daemon
