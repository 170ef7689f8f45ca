"""GenTL producers: where they are, what cameras they see, and one camera opened."""

import importlib.util
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from capture.devices import DeviceError, DeviceLost
from capture.drivers.genicam.config import GenicamCameraConfig
from capture.drivers.shared import Shared

PATH = "GENICAM_GENTL64_PATH"
"""Environment variable with the folders that makers install their producers in."""

ENUMERATION_MS = 500
"""How long a producer may look for cameras on each of its interfaces."""

_CRITERIA = {
    "serial": "serial_number",
    "model": "model",
    "vendor": "vendor",
    "user_name": "user_defined_name",
    "id": "id_",
}


def producer_files(device: str, given: tuple[Path, ...]) -> list[Path]:
    """Producers in the order they are searched.

    Raises
    ------
    DeviceError
        There are none, or one that is given does not exist.
    """
    out: list[Path] = []
    for path in (path.expanduser() for path in given):
        if not path.exists():
            raise DeviceError(device, f"{path}: no such producer")
        out.extend(sorted(path.glob("*.cti")) if path.is_dir() else [path])
    if not given:
        folders = [Path(entry) for entry in os.environ.get(PATH, "").split(os.pathsep) if entry]
        out.extend(file for folder in folders for file in sorted(folder.glob("*.cti")))
    if not out:
        where = ", ".join(map(str, given)) or f"${PATH}"
        raise DeviceError(
            device,
            f"no GenTL producer (a .cti file of the camera's maker) in {where}: install one, or name it",
        )
    return list(dict.fromkeys(path.resolve() for path in out))


@contextmanager
def _open_producer(path: str) -> Iterator[Any]:
    """Enumerate once: to do it again would invalidate the cameras that are open."""
    from harvesters.core import Harvester, ParameterKey, ParameterSet

    # what it tells there with tracebacks is told here in one line
    quiet = logging.getLogger("gnomon.harvesters")
    if not quiet.handlers:
        quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    quiet.setLevel(logging.CRITICAL)
    harvester = Harvester(
        config=ParameterSet(
            {ParameterKey.LOGGER: quiet, ParameterKey.TIMEOUT_PERIOD_ON_MODULE_ENUMERATION: ENUMERATION_MS}
        )
    )
    harvester.add_file(path, check_existence=True, check_validity=True)
    try:
        harvester.update()
        yield harvester
    finally:
        harvester.reset()


# one of each in a process: a second would find the producer in use
_producer: Shared[str, Any] = Shared(_open_producer)


def about(info: Any) -> dict[str, str]:
    """What a producer says of a camera, by the keys of the rig file; what it does not say is empty."""
    from genicam import gentl

    out = {}
    for key, name in _CRITERIA.items():
        try:
            out[key] = str(getattr(info, name) or "")
        except (gentl.GenericException, AttributeError):
            out[key] = ""
    return out


def label(found: dict[str, str]) -> str:
    """One camera in a few words."""
    known = (found["vendor"], found["model"], f"serial {found['serial']}" if found["serial"] else found["id"])
    return " ".join(part for part in known if part)


@contextmanager
def open_device(device: str, config: GenicamCameraConfig) -> Iterator[Any]:
    """Open the camera that the configuration asks for, as a harvesters ImageAcquirer.

    Raises
    ------
    DeviceError
        No producer, one that cannot be loaded, or several cameras that fit.
    DeviceLost
        No camera fits, or it is in use elsewhere.
    """
    from capture.drivers.genicam.nodes import told

    wanted = {key: value for key in _CRITERIA if (value := getattr(config, key)) is not None}
    seen: list[str] = []
    for path in producer_files(device, config.producers):
        with ExitStack() as stack:
            try:
                harvester = stack.enter_context(_producer(str(path)))
            except Exception as error:  # whatever harvesters stumbles over in a producer
                raise DeviceError(device, f"producer {path} cannot be used: {told(error)}") from error
            there = [(info, about(info)) for info in harvester.device_info_list]
            fitting = [info for info, found in there if all(found[key] == wanted[key] for key in wanted)]
            seen.extend(label(found) for _, found in there)
            if not fitting:
                continue
            if len(fitting) > 1:
                choice = ", ".join(label(about(info)) for info in fitting)
                raise DeviceError(
                    device, f"say which camera by its serial, user_name or id; there are {choice}"
                )
            if config.description is not None:
                _check_description(device, config.description.expanduser())
            try:
                acquirer = _create(harvester, fitting[0], config)
            except Exception as error:
                which = label(about(fitting[0]))
                raise DeviceLost(
                    device, f"{which} cannot be opened, is it in use elsewhere? {told(error)}"
                ) from error
            # leaving its context, unlike `destroy`, lets go of the object itself
            stack.push(acquirer)
            stack.callback(_let_go, acquirer)
            yield acquirer
            return
    asked = ", ".join(f"{key} {value}" for key, value in wanted.items()) or "any"
    raise DeviceLost(
        device, f"no camera found ({asked}); seen: {', '.join(seen) or 'none'}; look at its cable and power"
    )


def _check_description(device: str, path: Path) -> None:
    from genicam.genapi import NodeMap

    from capture.drivers.genicam.nodes import FAULTS, told

    if not path.is_file():
        raise DeviceError(device, f"description {path}: no such file")
    try:
        NodeMap().load_xml_from_file(str(path))
    except FAULTS as error:
        raise DeviceError(device, f"description {path} describes no camera: {told(error)}") from error


def _create(harvester: Any, info: Any, config: GenicamCameraConfig) -> Any:
    from harvesters.core import ParameterKey, ParameterSet

    parameters: dict[Any, Any] = {
        # one is filled for one trigger; a camera that runs by itself fills the next while one is read
        ParameterKey.NUM_BUFFERS_FOR_FETCH_CALL: 3 if config.trigger == "software" else 8,
        ParameterKey.TIMEOUT_PERIOD_ON_UPDATE_EVENT_DATA_CALL: 1,
    }
    if config.description is not None:
        parameters[ParameterKey.REMOTE_DEVICE_SOURCE_XML_FILE_PATH] = str(config.description.expanduser())
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if main else None
    try:
        return harvester.create(info, config=ParameterSet(parameters))
    finally:
        # it takes Ctrl-C for itself, and swallows it
        if main and handler is not None:
            signal.signal(signal.SIGINT, handler)


def _let_go(acquirer: Any) -> None:
    """Undo what would keep the nodes in memory until the program ends: half a megabyte for each opening."""
    finalizer = getattr(getattr(acquirer, "_chunk_adapter", None), "_finalizer", None)
    if finalizer is not None:
        finalizer()


def survey() -> str:
    """What cameras the producers see, or why none; for one that cannot be loaded, why."""
    if importlib.util.find_spec("harvesters") is None or importlib.util.find_spec("genicam") is None:
        return "wants the package harvesters: pip install 'gnomon[genicam]'"
    try:
        files = producer_files("", ())
    except DeviceError:
        return f"no GenTL producer (a .cti file of the camera's maker): install one, or set {PATH}"
    found: list[str] = []
    for file in files:
        try:
            with _producer(str(file)) as harvester:
                found.extend(label(about(info)) for info in harvester.device_info_list)
        except Exception as error:  # whatever harvesters stumbles over in a producer
            found.append(f"{file.name} cannot be used ({error})")
    return ", ".join(found) or f"no camera behind {', '.join(file.name for file in files)}"
