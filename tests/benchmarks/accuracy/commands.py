"""What the sets of photographs share: folders that become sessions, and ``gnomon`` commands run on them."""

import csv
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from rigs.interchange import COLUMNS

IMPORT = "import folder {work}/{name}-photos {work}/{name}"


class CommandError(Exception):
    """A gnomon command failed; the message is its last line."""


def gnomon(command: str, **values: object) -> str:
    """Run one command of the templates above; the quotes in it group words as a shell's do."""
    words: list[str] = []
    for index, part in enumerate(command.split("'")):
        # Filled in after splitting, so that a path may hold blanks.
        words += [part] if index % 2 else [word.format(**values) for word in part.split()]
    done = subprocess.run([sys.executable, "-m", "rigs.cli", *words], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise CommandError(f"gnomon {' '.join(words[:2])}: {last}")
    return done.stdout


def write_manifest(folder: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    """Write ``manifest.csv`` into a new folder; the files are named by their absolute paths."""
    folder.mkdir(parents=True)
    path = folder / "manifest.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def bring_in(work: Path, name: str, rows: Iterable[Mapping[str, object]], options: str = "") -> None:
    """Import the pictures of ``rows`` as the session ``work/name``."""
    write_manifest(work / f"{name}-photos", rows)
    gnomon(f"{IMPORT} {options}", work=work, name=name)
