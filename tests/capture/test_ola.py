"""DMX lights as OLA sees them, which we did not write: Art-Net node, receiver of sACN, host of widgets."""

from contextlib import ExitStack

import pytest
from light_counterparts import Serial, Widget, burning, until
from ola_counterpart import ARTNET_IN, ENTTEC_OUT, SACN_IN, ola

from capture.drivers.dmx import ArtNetLightConfig, EnttecLightConfig, SacnLightConfig


@pytest.fixture(scope="module")
def widget():
    """The widget that OLA is host of."""
    return Widget()


@pytest.fixture(scope="module")
def daemon(widget):
    with Serial(widget) as serial, ola(serial.port) as running:
        yield running


@pytest.mark.parametrize(
    ("universe", "config"),
    [
        (ARTNET_IN, ArtNetLightConfig(host="10.77.0.1", universe=ARTNET_IN, channels=1)),
        (ARTNET_IN, ArtNetLightConfig(host="10.77.0.255", universe=ARTNET_IN, channels=1)),
        (SACN_IN, SacnLightConfig(universe=SACN_IN, channels=1)),
        (SACN_IN, SacnLightConfig(host="10.77.0.1", universe=SACN_IN, channels=1)),
    ],
    ids=["artnet", "artnet broadcast", "sacn multicast", "sacn to a host"],
)
def test_ola_shows_what_is_set_and_darkness_after(daemon, universe, config):
    with ExitStack() as stack:
        one = stack.enter_context(config.open("one"))
        far = stack.enter_context(config.replace(channels=(511,), fine=True).open("far"))
        until(lambda: daemon.shows(universe, {}))
        one.set(1.0)
        until(lambda: daemon.shows(universe, {1: 255}))
        far.set(0.5)
        until(lambda: daemon.shows(universe, {1: 255, 511: 128}))
        one.set(0.0)
        until(lambda: daemon.shows(universe, {511: 128}))
        one.set(0.25)
    until(lambda: daemon.shows(universe, {}))


def test_ola_shows_darkness_after_the_program_was_killed(daemon):
    configs = [
        {"driver": "artnet", "host": daemon.address, "universe": ARTNET_IN, "channels": 5},
        {"driver": "sacn", "universe": SACN_IN, "channels": 6},
    ]
    with burning(configs) as program:
        until(lambda: daemon.shows(ARTNET_IN, {5: 255}) and daemon.shows(SACN_IN, {6: 255}))
        program.kill()
        until(lambda: daemon.shows(ARTNET_IN, {}) and daemon.shows(SACN_IN, {}))


def test_a_widget_gets_the_bytes_that_ola_sends(daemon, widget):
    until(lambda: daemon.patched(ENTTEC_OUT))
    daemon.put(ENTTEC_OUT, [7, *[0] * 510, 255])
    until(lambda: label_six(widget)[-1:] == [b"\0\x07" + bytes(510) + b"\xff"])
    ours = Widget()
    with Serial(ours) as serial:
        config = EnttecLightConfig(port=serial.port, channels=512, fixed={1: 7})
        with config.open("led") as light:
            light.set(1.0)
            until(lambda: label_six(ours)[-1:] == label_six(widget)[-1:])
    asked = [message for message in ours.messages if message[0] != 6]
    assert asked
    assert [message for message in asked if message not in widget.messages] == []


def label_six(widget):
    return [data for label, data in widget.messages if label == 6]
