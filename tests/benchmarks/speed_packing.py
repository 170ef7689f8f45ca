"""Packed camera buffers to 16-bit samples."""

import importlib.util

import numpy as np
from numpy.typing import NDArray
from speed import Candidate, Table, compare

from capture.packing import unpack

HEIGHT, WIDTH = 3000, 4096


def _numpy(data: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Mono12p as one would write it down."""
    triples = data.reshape(-1, 3).astype(np.uint16)
    out = np.empty((len(triples), 2), np.uint16)
    out[:, 0] = triples[:, 0] | (triples[:, 1] & 15) << 8
    out[:, 1] = triples[:, 1] >> 4 | triples[:, 2] << 4
    return out.reshape(HEIGHT, WIDTH)


def tables() -> list[Table]:
    """12 MP of each packing; peers where they know it."""
    rng = np.random.default_rng(3)
    out = []
    for name, share in (
        ("Mono12p", 12),
        ("Mono12Packed", 12),
        ("Mono10p", 10),
        ("Mono10Packed", 12),
        ("Mono14p", 14),
    ):
        data = rng.integers(0, 256, WIDTH * HEIGHT * share // 8, dtype=np.uint8)
        candidates = [
            Candidate("gnomon", lambda data=data, name=name: unpack(data, name, WIDTH, HEIGHT), turns=15)
        ]
        if name == "Mono12p":
            expected = unpack(data, name, WIDTH, HEIGHT)

            def judge(found: NDArray[np.uint16], expected: NDArray[np.uint16] = expected) -> str:
                return f"{np.count_nonzero(found.reshape(expected.shape) != expected)} samples differ"

            candidates.append(Candidate("numpy", lambda data=data: _numpy(data), judge, turns=3))
            if importlib.util.find_spec("imagecodecs"):
                import imagecodecs

                # without the bit order it decodes another format, and says nothing
                candidates.append(
                    Candidate(
                        "imagecodecs",
                        lambda data=data: imagecodecs.packints_decode(data, np.uint16, 12, bitorder="<"),
                        judge,
                        turns=5,
                    )
                )
        out.append(compare(f"unpack 12.3 MP {name}", candidates, read_bytes=data.nbytes))
    return out


if __name__ == "__main__":
    from speed import markdown

    print(markdown(tables()))
