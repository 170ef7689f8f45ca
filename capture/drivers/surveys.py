"""What the SDKs of cameras find here, each asked in a process of its own: native code may crash, or hang.

``python -m capture.drivers.surveys MODULE`` asks one, and ends with a line of JSON.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

SURVEY_S = 10.0
"""How long all of them together may take."""


def ask(modules: Sequence[str]) -> dict[str, str]:
    """Return what ``survey()`` says in each of these modules of `capture.drivers`, in one line."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    started = {
        name: subprocess.Popen(
            [sys.executable, "-P", "-m", "capture.drivers.surveys", name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        for name in modules
    }
    until = time.monotonic() + SURVEY_S
    return {name: _answer(process, until) for name, process in started.items()}


def _answer(process: "subprocess.Popen[bytes]", until: float) -> str:
    with process:
        try:
            # one that has answered while another was waited for is still to be heard
            said, _ = process.communicate(timeout=max(0.2, until - time.monotonic()))
            return str(json.loads(said.splitlines()[-1]))
        except subprocess.TimeoutExpired:
            return f"its SDK does not answer within {SURVEY_S:g} s"
        except (ValueError, IndexError):
            return f"its SDK crashed while it looked for cameras{_how(process.returncode)}"
        finally:
            process.kill()


def _how(status: int) -> str:
    return f" ({signal.Signals(-status).name})" if status < 0 and -status in set(signal.Signals) else ""


if __name__ == "__main__":
    try:
        line = importlib.import_module(f"capture.drivers.{sys.argv[1]}").survey()
    except Exception as error:  # whatever an SDK raises on being imported
        line = f"its SDK cannot be used: {' '.join(str(error).split()) or type(error).__name__}"
    # what the SDK itself prints may lack the end of its line
    print("\n" + json.dumps(line), flush=True)
    # nor is what it does on the way out of any use
    os._exit(0)
