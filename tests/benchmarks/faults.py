"""Faults at random moments of a capture: what becomes of its session, its lights and its process.

    python tests/benchmarks/faults.py [--runs N] [--seed N] [--run N] [--only KIND,...] [--camera NAME,...]

Each run is the command `gnomon capture` on a rig whose lights are the dome's firmware on simavr and whose
camera is Basler's emulation, viky, or a GenICam producer of ours that takes faults while it runs, in a
process of its own. One of them steps the lights by its exposures, as a hardware-timed sequence. A fault of a
random kind comes at a random moment; then it is mended, and `--resume` must complete the session. Exit 1
where a run breaks a promise; its line says which. A run of a seed has the same fault, whichever others are
run.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "capture"))
sys.path.insert(0, str(Path(__file__).parent))

from faults_bench import LIGHTS, SETTLE_S, Bench, build, cameras
from faults_kinds import COMMAND_S, KINDS, Kind

from capture.drivers.dome.controller import WATCHDOG_S
from capture.drivers.isolated.process import CLOSE_S
from capture.session import Session
from capture.session.disk import is_locked

DARK_S = WATCHDOG_S + 0.1
"""Within this the lights are dark, by the clock of the controller."""


@dataclass
class Outcome:
    """What came of one run."""

    kind: str
    text: str
    code: int | None = None
    timed: int = 0
    valid: bool = False
    dark_s: float | None = None
    end_s: float = 0.0
    broken: list[str] = field(default_factory=list)


# ---------------------------------------------------------------- one run


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=False)


def can_mount() -> bool:
    """Whether this user may mount file systems here."""
    with tempfile.TemporaryDirectory() as name:
        try:
            with _small_disk(Path(name)):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


def run_one(
    number: int, seed: int, kinds: list[str], folder: Path, built: tuple[Path, Path], found: dict[str, Any]
) -> Outcome:
    """Draw a fault, strike, and look at what came of it; the kinds take turns in a random order."""
    order = random.Random(f"{seed} {number // len(kinds)}").sample(kinds, len(kinds))
    rng = random.Random(f"{seed} {number}")
    kind = order[number % len(kinds)]
    fault = KINDS[kind]
    camera = rng.choice(sorted(found.keys() & (fault.cameras or found.keys())))
    disk = _small_disk if fault.disk else None
    bench = Bench(folder, built, found[camera], wired=fault.wired, slow=fault.slow, small_disk=disk)
    try:
        return _struck(bench, kind, camera, rng)
    finally:
        bench.close()


def _struck(bench: Bench, kind: str, camera: str, rng: random.Random) -> Outcome:
    fault, dome = KINDS[kind], bench.dome
    if fault.before is not None:
        fault.before(bench, rng)
    early = rng.random() < 0.2 and not fault.disk and kind != "second run"
    lighting, delay_s = rng.randrange(1, 2 * LIGHTS), rng.uniform(0.0, 3 * SETTLE_S)
    early_s = rng.uniform(0.0, 3.0)
    outcome = Outcome(kind, f"{kind}, {camera}, " + (f"{early_s:.2f} s" if early else f"lighting {lighting}"))
    process = bench.process = bench.start("capture", bench.rig, bench.plan, bench.session)
    first = bench.started
    if early:
        dome.wait(lambda: process.poll() is not None, early_s)
    elif dome.wait(
        lambda: dome.lightings >= lighting or process.poll() is not None, COMMAND_S + bench.plan_s
    ):
        time.sleep(delay_s)
    struck_s, struck = dome.now_s(), time.monotonic()
    in_time = process.poll() is None
    try:
        if in_time:
            fault.strike(bench, rng)
    except AssertionError as error:
        outcome.broken.append(str(error))
    deadline_s = COMMAND_S + bench.plan_s + fault.extra_s
    try:
        code = process.wait(max(0.1, struck + deadline_s - time.monotonic()))
        # a second Ctrl-C may find Python with its own handler gone: a shell tells both alike
        outcome.code = 130 if code == -signal.SIGINT else code
    except subprocess.TimeoutExpired:
        outcome.broken.append(f"HANG: has not ended within {deadline_s:.0f} s")
        process.kill()
        process.wait()
    outcome.end_s = time.monotonic() - struck
    _look_at_lights(bench, fault if in_time else KINDS["refusals"], struck_s, outcome)
    _look_at_words(bench.complaints(first), fault, in_time, outcome)
    _look_at_session(bench, outcome)
    if in_time or fault.before is not None:
        with suppress(OSError):
            fault.mend(bench)
    bench.spoil_no_more()
    dome.now_s()
    _complete(bench, outcome)
    return outcome


def _look_at_lights(bench: Bench, fault: Kind, struck_s: float, outcome: Outcome) -> None:
    dome = bench.dome
    ended_s = dome.now_s()
    dome.wait(lambda: dome.dark_after(ended_s) is not None, DARK_S)
    while dome.dark_after(ended_s) is None and dome.now_s() < ended_s + DARK_S:
        time.sleep(0.01)
    times = [dome.dark_after(ended_s)] + ([dome.dark_after(struck_s)] if fault.dark_at_once else [])
    outcome.dark_s = None if None in times else max(times)  # type: ignore[type-var]
    if outcome.dark_s is None or outcome.dark_s > DARK_S:
        outcome.broken.append(f"LIT: dark only after {outcome.dark_s} s")


def _look_at_words(lines: list[str], fault: Kind, in_time: bool, outcome: Outcome) -> None:
    code = outcome.code
    if code is not None and code not in (fault.codes if in_time else fault.codes | {0}):
        outcome.broken.append(f"CODE {code}: {lines}")
    skips = [line for line in lines if line.startswith("shot ") and " skipped: " in line]
    wanted = 0 if code in (0, -9) or skips else 1
    traced = any("Traceback" in line for line in lines)
    if len(lines) - len(skips) != wanted or traced or (skips and code != 3):
        outcome.broken.append(f"WORDS: code {code} with {lines}")
    outcome.text += f": {code} {lines[0] if lines else ''}"


def _look_at_session(bench: Bench, outcome: Outcome) -> None:
    if not (bench.session / "plan.json").exists():
        # none came to be: what is there is no session yet
        return
    # what a killed process was writing at that moment is swept by the next
    known = ("not done", "extra") if outcome.code == -9 else ("not done",)
    problems = Session.open(bench.session).verify()
    if strange := [str(problem) for problem in problems if problem.kind not in known]:
        outcome.broken.append(f"SESSION: {strange}")


def _complete(bench: Bench, outcome: Outcome) -> None:
    """Resume with the fault mended, and look at all that is left."""
    code, lines = bench.run(
        "capture", bench.rig, bench.plan, bench.session, "--resume", within_s=2 * COMMAND_S + bench.plan_s
    )
    if code != 0 or lines:
        outcome.broken.append(f"RESUME: {code} {lines}")
    code, lines = bench.run("session", "verify", bench.session, within_s=COMMAND_S)
    if code != 0 or lines:
        outcome.broken.append(f"SESSION: verify at the end: {code} {lines}")
        return
    records = Session.open(bench.session).frames
    journal = (bench.session / "journal.jsonl").read_text().splitlines()
    if tuple(record.shot for record in records) != bench.shots or len(journal) != len(set(journal)):
        outcome.broken.append(f"SESSION: {len(records)} frames of {len(bench.shots)} shots")
    frames = Counter(record.file for record in records)
    if len(frames) != len(bench.shots) or max(frames.values()) > 1:
        outcome.broken.append("SESSION: a shot twice")
    outcome.timed, wrong = bench.lit()
    if wrong:
        outcome.broken.append(f"WRONG LIGHT: {wrong}")
    until = time.monotonic() + CLOSE_S + 5.0
    while (left := bench.processes()) and time.monotonic() < until:
        time.sleep(0.02)
    if left:
        outcome.broken.append(f"PROCESSES: {list(left.values())}")
    strays = [path for path in bench.temporary.rglob("*") if path.is_file() and path.suffix != ".lock"]
    strays += [path for path in bench.session.rglob("*") if path.suffix == ".part"]
    locks = [path for path in bench.folder.rglob("*.lock") if is_locked(path)]
    if strays or locks:
        outcome.broken.append(f"LEFT: {[path.name for path in strays + locks]}")
    outcome.valid = not any(text.startswith(("SESSION", "RESUME", "WRONG")) for text in outcome.broken)


# ---------------------------------------------------------------- all runs


def table(outcomes: list[Outcome]) -> str:
    """Print what came of the runs, by kind."""
    rows = [
        f"{'kind':20}{'runs':>6}{'valid':>7}{'lit':>5}{'hangs':>7}{'codes':>7}{'other':>7}"
        f"{'dark s':>8}{'end s':>8}  ended with"
    ]
    by_kind: defaultdict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_kind[outcome.kind].append(outcome)
    for kind, members in [*sorted(by_kind.items()), ("all", outcomes)]:
        counts = [
            sum(any(text.startswith(words) for text in each.broken) for each in members)
            for words in (("LIT",), ("HANG",), ("CODE",), ("WORDS", "PROCESSES", "LEFT", "the second"))
        ]
        dark_s = max((each.dark_s for each in members if each.dark_s is not None), default=float("nan"))
        codes = Counter(str(each.code) for each in members)
        rows.append(
            f"{kind:20}{len(members):6}{sum(each.valid for each in members):7}{counts[0]:5}{counts[1]:7}"
            f"{counts[2]:7}{counts[3]:7}{dark_s:8.2f}{max(each.end_s for each in members):8.1f}  "
            + ", ".join(f"{code} x{count}" for code, count in sorted(codes.items()))
        )
    return "\n".join(rows)


def main() -> int:
    """Run, print a line for each run and the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--run", type=int, help="only the run of this number")
    parser.add_argument("--camera", help="only these, by commas: pylon, viky, testing, sequence")
    parser.add_argument("--only", help=f"kinds, by commas: {', '.join(KINDS)}")
    options = parser.parse_args()
    # a shell's job in the background ignores the one, nohup the other, and so would the command
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    kinds = options.only.split(",") if options.only else list(KINDS)
    if not can_mount():
        print(f"not run, as mounting is not allowed: {', '.join(name for name in kinds if KINDS[name].disk)}")
        kinds = [name for name in kinds if not KINDS[name].disk]
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        found = cameras(Path(name))
        if options.camera:
            found = {key: found[key] for key in options.camera.split(",")}
        if unasked := [kind for kind in kinds if not found.keys() & (KINDS[kind].cameras or found.keys())]:
            print(f"not run, as the cameras for it are not installed: {', '.join(unasked)}")
            kinds = [kind for kind in kinds if kind not in unasked]
        if not kinds:
            return 1
        built = build(Path(name))
        numbers = range(options.runs) if options.run is None else [options.run]
        for number in numbers:
            outcome = run_one(number, options.seed, kinds, Path(name) / f"{number:03}", built, found)
            outcomes.append(outcome)
            print(f"{number:3} {'ok ' if not outcome.broken else 'BAD'} {outcome.text}", flush=True)
            for text in outcome.broken:
                print(f"        {text}", flush=True)
    print(table(outcomes))
    print(f"{sum(outcome.timed for outcome in outcomes)} frames held against the lamps that burnt in them")
    return 1 if any(outcome.broken for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
