"""What a rig file says of a GenICam camera."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from capture.devices import Camera, CameraLimits, Encoding
from capture.drivers.opening import Region, at_one_exposure, encoding_by, open_camera

Value = bool | int | float | str | None
"""What a node can be set to; None executes a command."""

_KEYS = {
    "Width": "width",
    "Height": "height",
    "OffsetX": "offset_x",
    "OffsetY": "offset_y",
    "PixelFormat": "sent_format",
}

_MISSING = "driver genicam wants the package harvesters: pip install 'gnomon[genicam]'"


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str | Path | dict) else value


class GenicamCameraConfig(Region, CameraLimits):
    """A camera behind a GenTL producer.

    Attributes
    ----------
    producers : tuple of Path
        Files ``*.cti``, or folders of them, searched in this order; without, those in the folders of
        ``GENICAM_GENTL64_PATH``.
    serial, model, vendor, user_name, id : str or None
        Which camera; what is not given is not asked. Together they must fit one camera of a producer.
    description : Path or None
        An XML file that describes the camera's nodes, in place of the camera's own.
    sent_format : str or None
        Pixel format on the wire, such as ``Mono12p``. Without, ``pixel_format``, or where the camera has it
        packed only, that.
    trigger : str
        ``software``: one trigger a frame. ``free``: the camera runs by itself, and is stopped in between.
        Else the source of a hardware trigger, such as ``Line1``. All but ``software`` take bursts.
    discard : int
        Frames taken and thrown away after a change of exposure or gain, for cameras that follow late.
    exposure_node, exposure_unit_s : str or None, float or None
        Node of the exposure, and seconds of its unit, where the usual names (`setup.EXPOSURE`) do not fit.
    fixed_exposure_s : float or None
        The exposure of a camera that cannot set it.
    gain_node, gain_unit : str or None
        Node of the gain, where the usual names (`setup.GAIN`) do not fit; ``db``, ``factor`` or ``raw``.
    gain_db_per_raw : float or None
        dB of one raw step, from the data sheet; without, a raw gain takes 0 dB only, which is its least.
    black_level : float or None
        Written to the camera, in its own unit; without, it stays as it is.
    chunks : bool
        Have exposure, gain, time and number sent with each frame where the camera can.
    nodes : dict, or list of dict
        Further nodes by name, set in this order before all others, and found unchanged after them; a list
        where a selector comes several times. A command is executed, whatever its value.
    isolate : bool
        Run in a process of its own: a crash of the producer costs one frame.
    """

    driver: Literal["genicam"] = "genicam"
    producers: Annotated[tuple[Path, ...], BeforeValidator(_listed)] = ()
    serial: str | None = None
    model: str | None = None
    vendor: str | None = None
    user_name: str | None = None
    id: str | None = None
    description: Path | None = None
    sent_format: str | None = None
    trigger: str = Field(default="software", min_length=1)
    discard: int = Field(default=0, ge=0)
    exposure_node: str | None = None
    exposure_unit_s: float | None = Field(default=None, gt=0)
    fixed_exposure_s: float | None = Field(default=None, gt=0)
    gain_node: str | None = None
    gain_unit: Literal["db", "factor", "raw"] | None = None
    gain_db_per_raw: float | None = Field(default=None, gt=0)
    black_level: float | None = None
    chunks: bool = True
    nodes: Annotated[tuple[dict[str, Value], ...], BeforeValidator(_listed)] = ()
    isolate: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        for part in self.nodes:
            for name in part:
                if name in _KEYS:
                    raise ValueError(f"nodes: {name} has a key of its own, {_KEYS[name]}")
                if name == "AcquisitionMode":
                    raise ValueError("nodes: AcquisitionMode goes with trigger, and is set by itself")
        if self.trigger == "software" and self.sequence:
            raise ValueError("sequence wants a trigger other than software: free, or the name of a line")
        if self.trigger != "software" and self.discard:
            raise ValueError("discard wants trigger software: others count every exposure")
        if self.fixed_exposure_s is not None and self.exposure_node is not None:
            raise ValueError("fixed_exposure_s and exposure_node exclude each other")
        if self.sent_format is not None:
            self._check_sent(self.sent_format)
        return self

    def _check_sent(self, sent: str) -> None:
        from capture.packing import packing_of

        if (plain := packing_of(sent).pixel_format) != self.pixel_format:
            raise ValueError(f"sent_format {sent} gives {plain}, not the pixel_format {self.pixel_format}")

    @property
    def limits(self) -> CameraLimits:
        """What the camera can do; of exposures one, where it is fixed."""
        return at_one_exposure(super().limits, self.fixed_exposure_s)

    @property
    def encoding(self) -> Encoding | None:
        """Why its numbers may not be proportional to light."""
        return encoding_by(pair for part in self.nodes for pair in part.items())

    @property
    def address(self) -> str | None:
        """Which camera; None where the rig file does not say."""
        wanted = self.serial or self.user_name or self.id
        return None if wanted is None else f"genicam:{wanted}"

    def open(self, name: str) -> Camera:
        """Return the camera, to be entered at once; ValueError without harvesters."""
        free = self.trigger != "software"

        def make() -> Camera:
            import harvesters.core  # noqa: F401

            from capture.drivers.genicam.camera import GenicamCamera, GenicamTriggeredCamera

            return GenicamTriggeredCamera(name, self) if free else GenicamCamera(name, self)

        return open_camera(name, self, make, _MISSING, triggered=free)
