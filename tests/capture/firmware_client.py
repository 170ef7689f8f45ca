"""A client of the dome's firmware on the emulated chip: it knows the protocol, and nothing of the driver."""

import binascii
import itertools
import json
import subprocess
from contextlib import suppress
from pathlib import Path


def crc(body: str) -> str:
    return f"{binascii.crc_hqx(body.encode('latin-1'), 0xFFFF):04X}"


def line(body: str) -> str:
    return f">{body}*{crc(body)}"


class Dome:
    """The emulator in steps: time passes only while a command waits for its answer, or by `run`."""

    def __init__(self, emulator: Path, elf: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [emulator, "--pace", "step", *options, elf],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.numbers = itertools.count()
        self.events: list[dict] = []
        self.room_mv = 250 if elf.name.startswith("mega") else 2500
        self.reset()

    def close(self) -> None:
        with suppress(BrokenPipeError):
            self.process.communicate("quit\n", timeout=10)

    def tell(self, command: str) -> None:
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def _wait(self, command: str) -> list[dict]:
        self.tell(command)
        new: list[dict] = []
        while True:
            text = self.process.stdout.readline()
            assert text, f"the emulator ended: {self.process.wait()}"
            event = json.loads(text)
            if "ran" in event:
                self.now_us = event["t_us"]
                break
            if "serial" in event:
                body, _, check = event["serial"].rpartition("*")
                assert check == crc(body[1:]), f"a line of the firmware is not whole: {event}"
                assert len(event["serial"]) < 64
                event["serial"] = body
            new.append(event)
        self.events += new
        return new

    def run(self, ms: float) -> list[dict]:
        return self._wait(f"run {ms * 1000}")

    def reset(self) -> None:
        """As after switching on, with inputs at rest."""
        for command in ("interlock closed", "sync 0", f"adc 0 {self.room_mv}", "reset P"):
            self.tell(command)
        self.run(30)
        self.events.clear()

    def raw(self, text: str | bytes, wait_ms: float = 30) -> list[str]:
        """Lines sent within `wait_ms` after these bytes."""
        data = text if isinstance(text, bytes) else text.encode("latin-1")
        self.tell("hex " + data.hex(" "))
        return [event["serial"] for event in self.run(wait_ms) if "serial" in event]

    def frame(self, body: str) -> str | None:
        """The answer to one line, None where none comes."""
        self.tell(f"send {line(body)}")
        for _ in range(4):
            for event in self._wait("listen 20000"):
                if event.get("serial", "!")[0] == "<":
                    return event["serial"][1:]
        return None

    def ask(self, command: str) -> str:
        """The answer to a command with a new sequence number, without that number."""
        number = f"{next(self.numbers) % 256:02X}"
        answer = self.frame(f"{number} {command}")
        assert answer is not None, command
        assert answer[:3] == f"{number} "
        return answer[3:]

    def stay(self, ms: float) -> list[dict]:
        """Let time pass, with a sign of life every second."""
        mark = len(self.events)
        end_us = self.now_us + ms * 1000
        while self.now_us < end_us:
            assert self.ask("HB") == "OK"
            self.run(min(1000.0, max(0.1, (end_us - self.now_us) / 1000)))
        return self.events[mark:]

    def lit(self) -> dict[int, int]:
        levels: dict[int, int] = {}
        for event in self.events:
            if "light" in event:
                levels[event["light"]] = event["level"]
        return {light: level for light, level in levels.items() if level}

    def sent(self, name: str) -> list[str]:
        return [e["serial"] for e in self.events if e.get("serial", "").startswith(f"!{name}")]

    def edges(self) -> list[float]:
        return [event["t_us"] for event in self.events if "trigger" in event]
