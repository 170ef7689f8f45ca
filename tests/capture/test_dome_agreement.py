"""Whatever comes, firmware and emulator answer alike: commands, noise, exposures, silence, the door."""

import random
import re

import pytest
from firmware_client import Client, Model, line

PLAIN = (
    "OFF",
    "OFF 7",
    "STAT",
    "ID",
    "HB",
    "CLR",
    "CLR",
    "CLR",
    "STOP",
    "ARM 1",
    "ARM 2",
    "ARM 3",
    "FOO",
    "set 0 1",
)
ODD = (
    "SET 1 1 1",
    "SET 01 007",
    "SET  1 1",
    "STAT ",
    "WDT 99",
    "WDT 100",
    "WDT 60000",
    "WDT 60001",
    "WDT 2000",
)
STEPS = ("SEQ 0 2 1 7", "SEQ 1 1 2 9 3 1", "SEQ 2 1 0 8", "SEQ 1 1", "SEQ 0 1 1 0 1 1", "SEQ 0 1 1 1 1 1")


def command(rng: random.Random) -> str:
    """A command, with arguments at, below and above their limits."""

    def near(most: int) -> int:
        return rng.choice((0, 1, most - 1, most, most + 1, rng.randrange(most + 1)))

    light = f"{near(3)} {near(255)}"
    lights = "".join(f" {near(3)} {near(255)}" for _ in range(rng.randrange(5)))
    times = f"{rng.choice((0, 1, 100, 3000))} {rng.choice((0, 1, 50, 2000, 600_000_001))}"
    kinds = (f"SET {light}", f"SET {rng.randrange(4)} {rng.randrange(256)}", f"FIRE {light} {times}")
    return rng.choice(
        (*kinds, f"SEQ {near(3)} {near(255)}{lights}", *(rng.choice(pool) for pool in (PLAIN, ODD, STEPS)))
    )


def spoilt(text: str, rng: random.Random) -> bytes:
    """A line on a bad wire."""
    data = bytearray(text.encode("latin-1"))
    for _ in range(rng.randrange(1, 4)):
        where = rng.randrange(len(data))
        noise = rng.choice(
            (b"", b"\0", b"\r", b"\n", b">", b"*", b"\xff", bytes([rng.randrange(256)]), b"A" * 60)
        )
        data[where : where + rng.randrange(2)] = noise
    return bytes(data[:100])


def story(dome: Client, seed: int, turns: int) -> list[tuple[object, list[str], dict[int, int], int]]:
    """What was told at each turn, what came back, what burns then, and how often the trigger has changed."""
    rng = random.Random(seed)
    number, last = rng.randrange(256), "00 HB"
    told = []
    for _ in range(turns):
        number = (number + 1) % 256
        text = line(f"{number:02X} {command(rng)}") + rng.choice(("\n", "\r\n"))
        kind = rng.randrange(16)
        if kind == 0:
            text = spoilt(text, rng)
            heard = dome.raw(text, 60)
        elif kind == 1:
            # a right checksum of what is no command
            body = f"{number:02X}" + "".join(
                rng.choice(" \0\r\xff*0ASETOF1") for _ in range(rng.randrange(60))
            )
            text = line(body) + "\n"
            heard = dome.raw(text, 30)
        elif kind == 2:
            text = last
            heard = dome.raw(text, 30)
        elif kind < 6:
            text = rng.choice(
                ("pulse 200 3 1000", "pulse 200 1 1000", "interlock open", *["interlock closed"] * 3)
            )
            dome.tell(text)
            heard = [event["serial"] for event in dome.run(20) if "serial" in event]
        elif kind == 6:
            text = rng.choice((53, 1800, 2100))
            heard = [event["serial"] for event in dome.run(text) if "serial" in event]
        else:
            last = text
            heard = dome.raw(text, 30)
        # the temperature is a measured one
        heard = [re.sub(r"( OK [A-Z] \d) \d+ ", r"\1 T ", answer) for answer in heard]
        told.append((text, heard, dome.lit(), len(dome.edges())))
    return told


@pytest.mark.parametrize("seed", range(3))
def test_the_firmware_and_its_emulator_answer_alike(domes, seed):
    for of_firmware, of_emulator in zip(
        story(domes("uno"), seed, 400), story(Model(), seed, 400), strict=True
    ):
        assert of_firmware == of_emulator
