"""What a session says against its own numbers, carried to the models that are made of them."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from calibration.colour import ColourModel
from calibration.focus import FocusModel
from calibration.lens import LensModel
from calibration.lights.model import LightSet
from calibration.photometric import NormalMap
from calibration.provenance import FitError, Quality
from calibration.radiometric import RadiometricModel
from calibration.timing import TimingModel
from capture.session import Session

M = TypeVar("M", RadiometricModel, LensModel, LightSet, NormalMap, ColourModel, FocusModel, TimingModel)


class Doubt(NamedTuple):
    """What speaks against a result: the warning, and whether something IS wrong, not only perhaps."""

    text: str
    wrong: bool = False


def encoding_of(session: Session, camera: str) -> tuple[str, str]:
    """Kind (gamma, suspected, unknown, linear) and reason, of the import or of the camera that took them.

    Of a camera that says nothing, frames are the sensor's own numbers: linear.
    """
    told = session.facts.get("encoding", {}).get(camera)
    return ("linear", "") if told is None else (str(told["kind"]), str(told["why"]))


def refuse_encoded(session: Session, camera: str, sensor: RadiometricModel | None, what: str) -> None:
    """Raise FitError where ``what`` wants linear data and the camera's files say that theirs are not.

    A ``sensor`` model with a response makes them linear.
    """
    kind, why = encoding_of(session, camera)
    if kind == "gamma" and (sensor is None or sensor.response is None):
        imported = "simulated" not in session.facts
        way_out = (
            "import raw data; or calibrate response and give it by --sensor; or import with --assume-linear "
            "if the tag is wrong"
            if imported
            else "have it give raw data; or calibrate response and give it by --sensor"
        )
        raise FitError(
            f"{session.path}: {what} wants linear data, but camera {camera!r} gave gamma-encoded ({why}): "
            f"{way_out}"
        )


def doubts_of(
    session: Session, camera: str, sensor: RadiometricModel | None = None, *, linear: str = ""
) -> tuple[Doubt, ...]:
    """Warnings of the import that hold for what is made of the session.

    Parameters
    ----------
    sensor : RadiometricModel, optional
        With a response, it answers the doubts about a tone curve.
    linear : str
        What of the result rests on DN being proportional to light, such as ``intensities``; empty: nothing.
    """
    kind, why = encoding_of(session, camera)
    answered = sensor is not None and sensor.response is not None
    others = tuple(f"camera {other}: " for other in session.facts.get("encoding", {}) if other != camera)
    doubts = [
        Doubt(f"import: {warning}")
        for warning in session.facts.get("warnings", [])
        if not (answered and "gamma-encoded" in warning) and not warning.startswith(others)
    ]
    if linear and not answered:
        if kind == "gamma":
            text = f"the {linear} are wrong: they take gamma-encoded data ({why}) as linear"
            doubts.append(Doubt(text, wrong=True))
        elif kind == "suspected":
            doubts.append(Doubt(f"the {linear} take the data as linear, which may be gamma-encoded ({why})"))
        elif kind == "unknown" and _is_8_bit(session, camera) and not _has_bracket(session, camera):
            text = f"the {linear} take 8-bit data as linear; no tag says so: check with a bracket"
            doubts.append(Doubt(text))
    return tuple(doubts)


def doubted(model: M, doubts: Sequence[Doubt]) -> M:
    """``model`` with ``doubts`` among the warnings of its quality; the same where there are none.

    The verdict becomes doubtful where something is said to be wrong.
    """
    quality: Quality | None = model.quality
    if quality is None:
        return model
    known: tuple[str, ...] = quality.warnings
    new: list[Doubt] = [doubt for doubt in doubts if doubt.text not in known]
    if not new:
        return model
    verdict = "doubtful" if any(doubt.wrong for doubt in new) else quality.verdict
    warnings = (*known, *(doubt.text for doubt in new))
    return model.replace(quality=quality.replace(warnings=warnings, verdict=verdict))


def _has_bracket(session: Session, camera: str) -> bool:
    """Whether some view was taken with several exposures, which tell themselves whether data are linear."""
    exposures: dict[tuple[str, str], set[float]] = {}
    for record in session.frames:
        if record.shot.camera == camera and "dark" not in record.shot.kinds:
            exposures.setdefault((record.shot.pose, record.shot.light), set()).add(record.exposure_s)
    return any(len(times) > 1 for times in exposures.values())


def _is_8_bit(session: Session, camera: str) -> bool:
    formats = {record.pixel_format for record in session.frames if record.shot.camera == camera}
    return any(name.endswith("8") for name in formats)
