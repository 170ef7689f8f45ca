"""Open devices by name; they close in reverse order, lights first dark, however the block is left."""

import getpass
import hashlib
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from capture.devices import Camera, DeviceError, Identified, Light, Operator
from capture.drivers.manual import TerminalOperator
from capture.drivers.simulated import (
    SimulatedCamera,
    SimulatedLight,
    SimulatedOperator,
    SimulatedSequencedLight,
    SimulatedSequencer,
    SimulatedTriggeredCamera,
)
from capture.plan import Shot
from capture.session.disk import locked
from rigs.config import ConfigError, RigConfig
from rigs.simulated import Truth, Twin

TOLD_S = 4.0
"""After how long an opening device is named to the operator; a controller that boots takes 2.5 s."""


@dataclass(frozen=True, eq=False)
class Rig:
    """The open devices of a rig: what ``capture.runner.run`` drives."""

    config: RigConfig
    cameras: Mapping[str, Camera]
    lights: Mapping[str, Light]
    operator: Operator


@contextmanager
def open_rig(
    config: RigConfig, simulate: Truth | None = None, *, taken: Iterable[Shot] = (), realtime: bool = False
) -> Iterator[Rig]:
    """Open every device of ``config``, or its simulated twin.

    Parameters
    ----------
    config : RigConfig
    simulate : Truth, optional
        What the twin knows. Every device, whatever its driver, is then played by the twin.
    taken : iterable of Shot
        What an earlier run of the same session answered: the twin's noise goes on from there.
    realtime : bool
        The twin takes as long as the rig would.

    Raises
    ------
    rigs.config.ConfigError
        The truth has no such camera or one of another size; or a simulated device and no truth.
    capture.devices.DeviceError
        A device cannot be opened; those already open are closed again.
    capture.session.Busy
        Another run has a device of this rig.
    """
    with ExitStack() as stack:
        if simulate is not None:
            limits = config.limits
            try:
                twin = Twin(simulate, limits.cameras, lights=limits.lights, realtime=realtime)
            except ValueError as error:
                raise ConfigError(str(error)) from None
            for shot in taken:
                twin.note_taken(shot)
            sequencer = SimulatedSequencer(twin)
            yield Rig(
                config=config,
                cameras={
                    name: stack.enter_context(
                        SimulatedTriggeredCamera(name, limit, twin, sequencer)
                        if limit.sequence
                        else SimulatedCamera(name, limit, twin)
                    )
                    for name, limit in limits.cameras.items()
                },
                lights={
                    name: stack.enter_context(
                        SimulatedSequencedLight(name, limit, twin, sequencer)
                        if limit.sequence
                        else SimulatedLight(name, limit, twin)
                    )
                    for name, limit in limits.lights.items()
                },
                operator=SimulatedOperator(twin),
            )
            return
        # One at a time: opening all and entering afterwards would leak the early ones when a late one fails.
        cameras: dict[str, Camera] = {}
        lights: dict[str, Light] = {}
        operator = TerminalOperator()
        _hold(config, stack)
        try:
            for name, camera in config.cameras.items():
                with told_of(operator, f"camera {name}", camera.driver):
                    opened: Camera = camera.open(name)
                    cameras[name] = stack.enter_context(opened)
                    _check_apart(name, cameras)
            for name, light in config.lights.items():
                with told_of(operator, f"light {name}", light.driver):
                    lamp: Light = light.open(name)
                    lights[name] = stack.enter_context(lamp)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        yield Rig(config=config, cameras=cameras, lights=lights, operator=operator)


@contextmanager
def told_of(operator: Operator, what: str, driver: str) -> Iterator[None]:
    """Tell the operator what is being opened where that takes long: a device that hangs is known by name."""
    message = f"{what}: still opening (driver {driver}): look at its power and cable, or stop with Ctrl-C"
    timer = threading.Timer(TOLD_S, operator.tell, [message])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _check_apart(name: str, cameras: Mapping[str, Camera]) -> None:
    """Raise DeviceError where a camera is another of the rig, as some SDKs open one twice."""
    mine = _serial(cameras[name])
    for other in cameras:
        if other != name and mine is not None and mine == _serial(cameras[other]):
            raise DeviceError(
                name, f"is {' '.join(mine)}, and so is {other}: give each camera its own `serial`"
            )


def _serial(camera: Camera) -> tuple[str, str] | None:
    """Model and serial number, of a camera that tells both."""
    identity = camera.identity if isinstance(camera, Identified) else {}
    model, serial = identity.get("model"), identity.get("serial")
    return (model, serial) if model and serial else None


def _hold(config: RigConfig, stack: ExitStack) -> None:
    """Keep the other runs of this user off the devices, whatever rig file names them."""
    if not config.addresses:
        return
    # a user without a name, as in many containers, has a number
    user = str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()
    folder = Path(tempfile.gettempdir()) / f"gnomon-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    # in one order, whatever the file's, so that of two runs one always gets all
    for address, names in sorted(config.addresses.items()):
        digest = hashlib.sha256(address.encode()).hexdigest()[:16]
        busy = f"{names[0]}: another run of gnomon has {address}: wait for it to end, or stop it"
        stack.enter_context(locked(folder / f"{digest}.lock", busy))
