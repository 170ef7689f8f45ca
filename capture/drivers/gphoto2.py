"""DSLR and mirrorless cameras over USB through libgphoto2; their RAW files read with LibRaw (rawpy).

Digital numbers are the RAW file's own: linear, with their black level in them, cut to the visible area,
neither demosaiced nor white-balanced. A JPEG is none of this, and is taken only where the rig file says
``jpeg: true``.

Shutter speeds are names: 1/60 is often 1/64 s, 30 s is often 32 s, and no camera tells. A calibrated sensor
(`gnomon calibrate sensor`) or a plan of exposures that double shows by how much.
"""

import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from capture.devices import (
    Camera,
    CameraLimits,
    DeviceError,
    DeviceLost,
    Encoding,
    FrameLost,
    SettingRefused,
)
from capture.drivers.blocking import Blocking
from capture.drivers.files import Raw, decode_jpeg, decode_raw
from capture.drivers.opening import check_ranges, open_camera
from capture.frame import Frame

_MISSING = "driver gphoto2 wants the packages gphoto2 and rawpy: pip install 'gnomon[gphoto2]'"
_SHUTTER = ("shutterspeed", "shutterspeed2", "exptime")
_APERTURE = ("aperture", "f-number")
_ISO = ("iso", "isospeed")
_FORMAT = ("imageformat", "imagequality", "imgquality")
_ONLY_RAW = re.compile(r"(raw|nef|arw|raf|orf|rw2|dng|pef)( \((raw|nef)\))?", re.IGNORECASE)
_SPEED = re.compile(r"(?:(?P<over>[\d.,]+)\s*/\s*)?(?P<value>[\d.,]+)\s*(?:s|sec|\")?", re.IGNORECASE)
_LOOK = "look at its cable, its switch and its battery"
_NAMING = 0.12
"""By how much the name of a shutter speed may differ from what the file says; a third of a stop is 0.23."""
_APPLY_S = 1.0
"""What a camera may take to show a setting it has taken."""


class GphotoCameraConfig(CameraLimits):
    """A camera of libgphoto2, its dial on M, its lens on manual focus.

    Attributes
    ----------
    model, serial : str or None
        Which camera, as `gnomon devices` and the camera itself name it; without, the only one there is.
    base_iso : int
        The ISO that is 0 dB.
    aperture : float or None
        The f-number to set; left as it is without.
    image_format : str or None
        The camera's name for RAW without a JPEG beside it; found by itself where the camera calls it so.
    jpeg : bool
        Take JPEGs (``pixel_format: RGB8``), which are not linear: to look at, not to measure with.
    keep : bool
        Leave each picture in the camera once it is here, as long as there is room.
    settings : dict
        Further settings by the name libgphoto2 gives them, set in this order and read back.
    isolate : bool
        Run in a process of its own: a hang of the camera costs one frame.
    """

    driver: Literal["gphoto2"] = "gphoto2"
    sequence: Literal[False] = False
    model: str | None = None
    serial: str | None = None
    base_iso: int = Field(default=100, gt=0)
    aperture: float | None = Field(default=None, gt=0)
    image_format: str | None = None
    jpeg: bool = False
    keep: bool = False
    settings: dict[str, bool | int | float | str] = {}
    isolate: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.jpeg != (self.pixel_format == "RGB8"):
            raise ValueError(
                "a JPEG is RGB8 and not linear: say jpeg: true and pixel_format: RGB8 to take it all the "
                "same, else give the Bayer format of the RAW file, such as BayerRG14"
            )
        if not self.jpeg and not self.pixel_format.startswith("Bayer"):
            raise ValueError("a RAW file has a Bayer format, such as BayerRG14")
        return self

    @property
    def encoding(self) -> Encoding | None:
        """Why its numbers may not be proportional to light."""
        return Encoding("gamma", "JPEG") if self.jpeg else None

    @property
    def address(self) -> str:
        """What only one run may hold at a time."""
        return f"camera {' '.join(filter(None, (self.model, self.serial))) or '(the only one of libgphoto2)'}"

    def open(self, name: str) -> Camera:
        """Return the camera, to be entered at once; ValueError without the packages."""

        def make() -> Camera:
            import gphoto2
            import rawpy  # noqa: F401 - missed now rather than after the first exposure

            return GphotoCamera(name, self, gphoto2)

        return open_camera(name, self, make, _MISSING)


def survey() -> str:
    """What cameras there are, or why none."""
    try:
        import gphoto2
    except ImportError:
        return _MISSING
    try:
        found = _detect(gphoto2)
    except gphoto2.GPhoto2Error as error:
        return str(error)
    return ", ".join(f"{model} at {port}" for model, port in found) or "no camera that libgphoto2 knows"


def _detect(sdk: Any) -> list[tuple[str, str]]:
    found = sdk.Camera.autodetect()
    return [(found.get_name(index), found.get_value(index)) for index in range(found.count())]


class File(NamedTuple):
    """A file from the camera, and its settings as the camera tells them after."""

    data: bytes
    exposure_s: float | None
    iso: float | None


class GphotoCamera:
    """One camera of libgphoto2."""

    def __init__(self, name: str, config: GphotoCameraConfig, sdk: Any) -> None:
        self.name = name
        self.limits = config.limits
        self._config = config
        self._sdk = sdk
        self._camera: Any = None
        self._taking: Blocking[File] = Blocking(name)

    def expose(self, exposure_s: float, gain_db: float, deadline_s: float) -> Frame:
        """Set the shutter speed and the ISO, take a picture and fetch it.

        Raises
        ------
        FrameLost
            No file in time, or the camera reports an error.
        SettingRefused
            The camera has no such shutter speed or ISO, did not take it, or sent a JPEG and no RAW file.
        DeviceLost
            The camera was unplugged or switched off, or has no room for another picture.
        """
        if self._camera is None:
            raise DeviceError(self.name, "is not open")
        started_ns = time.time_ns()

        def work() -> File:
            with self._faults(FrameLost):
                return self._take(exposure_s, gain_db)

        taken = self._taking.take(work, deadline_s)
        told = self._decode(taken.data)
        gain = 0.0 if taken.iso is None else 20 * math.log10(taken.iso / self._config.base_iso)
        return Frame(
            dn=told.dn,
            pixel_format=told.pixel_format,
            exposure_s=_applied(taken.exposure_s, told.exposure_s) or exposure_s,
            gain_db=gain,
            frame_id=self._taking.frames,
            timestamp_ns=started_ns,
            black_level_dn=told.black_level_dn,
        )

    @property
    def identity(self) -> dict[str, str]:
        """Model, serial number and firmware, as far as the camera tells; DeviceError unless open."""
        if self._camera is None:
            raise DeviceError(self.name, "is not open")
        with self._faults(DeviceError):
            told = {"model": str(self._camera.get_abilities().model)}
        for key, name in (("serial", "serialnumber"), ("firmware", "deviceversion")):
            told[key] = self._value(self._camera, name) or ""
        return {key: text for key, text in told.items() if text}

    def __enter__(self) -> Self:
        with self._faults(DeviceLost):
            camera = self._find()
        self._camera = camera
        self._taking.begin()
        try:
            with self._faults(SettingRefused):
                self._set_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        camera, self._camera = self._camera, None
        if camera is not None and self._taking.over():  # what hangs would hang here too
            with suppress(self._sdk.GPhoto2Error):
                camera.exit()

    def _find(self) -> Any:
        config, found = self._config, _detect(self._sdk)
        wanted = [(model, port) for model, port in found if config.model in (None, model)]
        seen = []
        for model, port in wanted:
            if config.serial is None and len(wanted) > 1:
                break
            camera = self._connect(model, port)
            serial = self._value(camera, "serialnumber")
            if config.serial in (None, serial):
                return camera
            seen.append(f"{model} {serial}")
            camera.exit()
        there = ", ".join(seen or [f"{model} at {port}" for model, port in found]) or "none"
        if config.serial is None and len(wanted) > 1:
            raise DeviceError(self.name, f"say which camera by model or serial; there are {there}")
        serial = config.serial and f"serial {config.serial}"
        asked = " ".join(filter(None, ("no camera", config.model, serial)))
        raise DeviceLost(self.name, f"{asked}; found: {there}; {_LOOK}")

    def _connect(self, model: str, port: str) -> Any:
        sdk = self._sdk
        camera, ports, models = sdk.Camera(), sdk.PortInfoList(), sdk.CameraAbilitiesList()
        ports.load()
        models.load()
        camera.set_port_info(ports[ports.lookup_path(port)])
        camera.set_abilities(models[models.lookup_model(model)])
        camera.init()
        return camera

    def _set_up(self) -> None:
        config = self._config
        if self._widget(("capturetarget",)) is not None:  # a picture that goes to the card would fill it
            memory = "Internal RAM"
            self._choose(("capturetarget",), lambda choice: choice == memory, memory, must=False)
        wanted = config.image_format
        if wanted is not None:
            self._choose(_FORMAT, lambda choice: choice == wanted, wanted)
        elif not config.jpeg and self._widget(_FORMAT) is not None:
            self._choose(_FORMAT, lambda choice: _ONLY_RAW.fullmatch(choice) is not None, "RAW", must=False)
        if config.aperture is not None:
            stop = config.aperture
            self._choose(_APERTURE, lambda choice: _close(_number(choice), stop), f"f/{stop:g}")
        for name, value in config.settings.items():
            self._set(name, value)
        check_ranges(self.name, self.limits, exposures_s=self._exposures_s(), gains_db=self._gains_db())

    def _exposures_s(self) -> tuple[float, float] | None:
        widget = self._widget(_SHUTTER)
        there = () if widget is None else map(seconds, self._choices(widget))
        named = [value for value in there if value]
        return (min(named), max(named)) if named else None

    def _gains_db(self) -> tuple[float, float] | None:
        widget = self._widget(_ISO)
        if widget is None:
            return 0.0, 0.0
        named = [value for value in map(_number, self._choices(widget)) if value]
        gains = [20 * math.log10(iso / self._config.base_iso) for iso in named]
        return (min(gains), max(gains)) if gains else None

    def _take(self, exposure_s: float, gain_db: float) -> File:
        camera, sdk = self._camera, self._sdk
        self._choose(_SHUTTER, lambda choice: _close(seconds(choice), exposure_s), f"{exposure_s:g} s")
        iso = self._config.base_iso * 10 ** (gain_db / 20)
        if self._widget(_ISO) is not None:
            # the names of thirds of a stop are rounded: 125 for 126
            self._choose(_ISO, lambda choice: _close(_number(choice), iso), f"ISO {iso:.0f}")
        elif gain_db:
            raise SettingRefused(self.name, "has no ISO to set, so that it takes 0 dB only")
        path = camera.capture(sdk.GP_CAPTURE_IMAGE)
        file = camera.file_get(path.folder, path.name, sdk.GP_FILE_TYPE_NORMAL)
        data = bytes(memoryview(file.get_data_and_size()))
        if not self._config.keep:
            with suppress(sdk.GPhoto2Error):  # some forget by themselves what they keep in memory
                camera.file_delete(path.folder, path.name)
        shutter, speed = self._widget(_SHUTTER), self._widget(_ISO)
        return File(
            data,
            None if shutter is None else seconds(str(shutter.get_value())),
            None if speed is None else _number(str(speed.get_value())),
        )

    def _decode(self, data: bytes) -> Raw:
        if data[:3] == b"\xff\xd8\xff":
            if not self._config.jpeg:
                raise SettingRefused(self.name, "sent a JPEG, which is not linear: set image_format to RAW")
            return decode_jpeg(data)
        try:
            return decode_raw(data)
        except ValueError as error:
            raise FrameLost(self.name, str(error)) from None

    def _widget(self, names: tuple[str, ...]) -> Any:
        """Return the first setting of these names that the camera has, or None."""
        for name in names:
            with suppress(self._sdk.GPhoto2Error):
                return self._camera.get_single_config(name)
        return None

    def _value(self, camera: Any, name: str) -> str | None:
        with suppress(self._sdk.GPhoto2Error):
            return str(camera.get_single_config(name).get_value())
        return None

    def _choose(
        self, names: tuple[str, ...], wanted: Callable[[str], bool], told: str, must: bool = True
    ) -> None:
        """Set the first setting of these names to a choice wanted; without ``must`` only where it has one."""
        widget = self._widget(names)
        if widget is None:
            raise SettingRefused(self.name, f"has no {names[0]} to set: turn its dial to M")
        if wanted(str(widget.get_value())):
            return
        choices = self._choices(widget)
        choice = next(filter(wanted, choices), None)
        if choice is not None:
            self._set(str(widget.get_name()), choice)
        elif must:
            there = ", ".join(choices) or "what its dial says"
            raise SettingRefused(self.name, f"has no {names[0]} of {told}, only {there}")

    def _choices(self, widget: Any) -> list[str]:
        if widget.get_type() not in (self._sdk.GP_WIDGET_RADIO, self._sdk.GP_WIDGET_MENU):
            return []
        return [str(widget.get_choice(index)) for index in range(widget.count_choices())]

    def _set(self, name: str, value: str | float | bool) -> None:
        """Set one setting and read it back."""
        widget = self._widget((name,))
        if widget is None:
            raise SettingRefused(self.name, f"has no setting {name!r}")
        kind = widget.get_type()
        if kind in (self._sdk.GP_WIDGET_RADIO, self._sdk.GP_WIDGET_MENU, self._sdk.GP_WIDGET_TEXT):
            # YAML reads On and Off as true and false
            value = ("Off", "On")[value] if isinstance(value, bool) else str(value)
        elif kind == self._sdk.GP_WIDGET_RANGE:
            value = float(value)
        else:
            value = int(value)
        if widget.get_value() == value:
            return
        choices = self._choices(widget)
        if choices and value not in choices:  # libgphoto2 takes another in silence, or crashes
            raise SettingRefused(self.name, f"has no {name} of {value}, only {', '.join(choices)}")
        try:
            widget.set_value(value)
            self._camera.set_single_config(name, widget)
        except self._sdk.GPhoto2Error as error:
            if _is_gone(self._sdk, error):
                raise
            raise SettingRefused(self.name, f"does not take {name} = {value}: {error}") from error
        end = time.monotonic() + _APPLY_S
        while (applied := self._camera.get_single_config(name).get_value()) != value:
            if time.monotonic() > end:
                raise SettingRefused(self.name, f"{name} is {applied} after it was set to {value}")
            # some cameras tell of a change only with their events
            self._camera.wait_for_event(50)
            time.sleep(0.02)

    @contextmanager
    def _faults(self, kind: type[DeviceError]) -> Iterator[None]:
        try:
            yield
        except self._sdk.GPhoto2Error as error:
            text = str(error).partition("] ")[2] or str(error)
            if error.code == self._sdk.GP_ERROR_IO_USB_CLAIM:
                text += ": another program holds it; on a desktop, unmount the camera there"
            elif error.code in (self._sdk.GP_ERROR_NO_MEMORY, self._sdk.GP_ERROR_NO_SPACE):
                raise DeviceLost(self.name, "its memory or its card is full: empty the card") from error
            elif _is_gone(self._sdk, error):
                raise DeviceLost(self.name, f"{text}: {_LOOK}") from error
            raise kind(self.name, text) from error


def _is_gone(sdk: Any, error: Any) -> bool:
    return error.code in (
        sdk.GP_ERROR_IO,
        sdk.GP_ERROR_IO_USB_FIND,
        sdk.GP_ERROR_IO_INIT,
        sdk.GP_ERROR_MODEL_NOT_FOUND,
        sdk.GP_ERROR_UNKNOWN_PORT,
    )


def seconds(text: str) -> float | None:
    """Return the seconds of a shutter speed as cameras write it: ``1/50``, ``0.0200s``, ``1.3"``.

    None where it is none, such as bulb.
    """
    match = _SPEED.fullmatch(text.strip())
    if match is None:
        return None
    try:
        value = float(match["value"].replace(",", "."))
        over = match["over"]
        return value if over is None else float(over.replace(",", ".")) / value
    except (ValueError, ZeroDivisionError):
        return None


def _number(text: str) -> float | None:
    match = re.fullmatch(r"(?:f/?|iso)?\s*(\d+(?:\.\d+)?)", text.strip(), re.IGNORECASE)
    return None if match is None else float(match[1])


def _close(value: float | None, wanted: float) -> bool:
    return value is not None and abs(value - wanted) <= 0.01 * wanted


def _applied(told_s: float | None, recorded_s: float | None) -> float | None:
    """Return the exposure to report: the camera's word, unless the file names another speed altogether."""
    if told_s is None or recorded_s is None:
        return told_s or recorded_s
    return told_s if abs(math.log(recorded_s / told_s)) <= _NAMING else recorded_s
