"""Response models from sessions."""

from typing import Any, Literal

from calibration.provenance import FitError
from calibration.radiometric import RadiometricModel, fit_debevec, fit_response
from capture.session import Session
from rigs.workflows.encoding import doubted, doubts_of
from rigs.workflows.frames import provenance_of, stack_of

# Relative sigma of exposures that are taken for exact.
_EXACT = 1e-4


def calibrate_response(
    session: Session,
    *,
    method: Literal["likelihood", "debevec"] = "likelihood",
    exact_times: bool = False,
    camera: str | None = None,
) -> RadiometricModel:
    """Response curve from the session's one exposure stack; its frames are read one after the other.

    ``exact_times``: the reported exposures have no error. Otherwise they are fitted with the curve.
    """
    stack = stack_of(session, camera)
    stack = (
        stack.select(kind="object") if "object" in {k for r in stack.records for k in r.shot.kinds} else stack
    )
    views = dict.fromkeys(zip(stack.poses, stack.lights, strict=True))
    if len(views) > 1:
        raise FitError(
            f"{session.path}: has frames of {len(views)} poses and lights: the response wants one exposure "
            "stack of one still view"
        )
    told: dict[str, Any] = {
        "pixel_format": stack.pixel_format,
        "gain_db": float(stack.gain_db[0]),
        "provenance": provenance_of(session, exact_times=exact_times),
    }
    if method == "debevec":
        model = fit_debevec(stack, stack.exposure_s, **told)
    else:
        sigma = _EXACT if exact_times else None
        model = fit_response(stack, stack.exposure_s, exposure_sigma=sigma, **told)
    return doubted(model, doubts_of(session, stack.records[0].shot.camera, model))
