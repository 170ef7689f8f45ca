"""Small truths for the tests of the twin."""

from typing import Any

from rigs.simulated.truth import Truth, parse_truth


def camera(width: int = 240, height: int = 150, fx: float = 375.0, **parts: Any) -> dict[str, Any]:
    """A camera without distortion, vignetting or blur unless asked; ``lens``, ``sensor``, ``optics`` add."""
    lens = {"width": width, "height": height, "fx": fx, "fy": fx, "cx": width / 2, "cy": height / 2}
    optics = {"cos4": False, "vignetting": 0.0, "psf_sigma_px": 0.0}
    return {
        **parts,
        "lens": lens | parts.get("lens", {}),
        "optics": optics | parts.get("optics", {}),
        "sensor": parts.get("sensor", {}),
    }


def near(x: float, y: float, z: float, intensity: float = 2e11, **more: Any) -> dict[str, Any]:
    """A near light."""
    return {"kind": "near", "position_mm": [x, y, z], "intensity": intensity, **more}


def truth(
    things: list[dict[str, Any]], *, lights: dict[str, Any] | None = None, eye: Any = None, **more: Any
) -> Truth:
    """One camera ``cam``, one pose ``scene``."""
    poses = {"scene": things, "cap": [{"kind": "cap"}], "panel": [{"kind": "panel"}]}
    data = {"cameras": {"cam": eye or camera()}, "lights": lights or {"led": near(0, 0, 0)}, "poses": poses}
    return parse_truth({**data, **more})
