"""Sessions on disk: what was asked, what came, and how the next run or the next reader finds it unharmed.

A session is a folder::

    plan.json rig.json facts.json   what was asked, of which rig, and what else is known
    journal.jsonl                   one line a frame or a skip, appended and fsynced once its file is safe,
                                    and one where a run begins, ends, shows a pose or waits
    frames/000012.tif               the frame of shot 12, uncompressed or by Zstandard
    session.lock                    locked by the process that writes; free again when that process dies
    done.json                       written last

A process may be killed at any moment: what the journal names is whole, what it does not name is taken again.
"""

from capture.session.records import (
    Busy,
    DiskFailed,
    FrameRecord,
    Note,
    Problem,
    RunRecord,
    SessionError,
    SkipRecord,
    Timing,
    now,
)
from capture.session.session import Session
from capture.session.stack import Stack
from capture.session.writer import Writer

__all__ = [
    "Busy",
    "DiskFailed",
    "FrameRecord",
    "Note",
    "Problem",
    "RunRecord",
    "Session",
    "SessionError",
    "SkipRecord",
    "Stack",
    "Timing",
    "Writer",
    "now",
]
