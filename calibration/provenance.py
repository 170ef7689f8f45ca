"""The base of every calibration model: frozen, comparable, with its evidence and its quality."""

from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator


class FitError(Exception):
    """A fit cannot give an honest model; the message says why and what to do."""


def _lock(value: Any) -> NDArray[Any]:
    if not isinstance(value, np.ndarray):
        raise ValueError("want an array")
    array: NDArray[Any] = value
    if array.flags.writeable:
        array = array.copy()
        array.flags.writeable = False
    return array


Array = Annotated[NDArray[Any], PlainValidator(_lock), PlainSerializer(lambda value: value, return_type=Any)]
"""An ndarray field of a model: copied if it was writable, locked, stored in the model's ``.npz`` sidecar."""


class Model(BaseModel):
    """Frozen model value. Unknown keys are errors, arrays are locked, ``replace`` validates.

    Equality compares arrays element by element (NaN equals NaN).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    def replace(self, **changes: Any) -> Self:
        """Validated copy with some fields changed."""
        return type(self).model_validate({**self._values(), **changes})

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        mine, theirs = self._values(), other._values()
        return all(_same(value, theirs[name]) for name, value in mine.items())

    def _values(self) -> dict[str, Any]:
        # Iterating a model also yields its cached properties, once they have been asked for.
        return {name: getattr(self, name) for name in type(self).model_fields}

    __hash__ = None  # type: ignore[assignment]


def _same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    return a is b or bool(a == b)


class Quality(Model):
    """How good a fit is, in one place.

    Attributes
    ----------
    residual_rms : float
        Root mean square of the residuals, in ``unit``.
    observations : int
        How many numbers the fit rests on, after rejection.
    rejected : int
        How many it threw out.
    verdict : 'good' or 'doubtful'
        Doubtful models work but their warnings must be read.
    warnings : tuple of str
        One sentence each, naming the frame, light, sphere or view.
    """

    residual_rms: float
    unit: str
    observations: int
    rejected: int = 0
    verdict: Literal["good", "doubtful"] = "good"
    warnings: tuple[str, ...] = ()


class Provenance(Model):
    """Where a model comes from: the session's digest, the code's version, the options of the fit."""

    session: str = ""
    code_version: str = ""
    options: dict[str, str | float | int | bool] = Field(default_factory=dict)
    note: str = ""
