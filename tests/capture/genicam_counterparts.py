"""Two GenTL producers that we did not write, and cameras made of them.

viky is in the genicam package. TLSimu was in its version 1.5.0: it is fetched once into a cache folder.
Neither camera has an exposure; for TLSimu a description of its nodes is made that has one, and a gain.

    python genicam_counterparts.py PRODUCER FOLDER      writes the description that the first camera has
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path

from capture.drivers.genicam import GenicamCameraConfig

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gnomon-tests" / "tlsimu"

MORE_NODES = """
<Float Name="ExposureTime" NameSpace="Standard">
  <Value>5000</Value><Min>10</Min><Max>1000000</Max><Unit>us</Unit>
</Float>
<Enumeration Name="ExposureAuto" NameSpace="Standard">
  <EnumEntry Name="Off" NameSpace="Standard"><Value>0</Value></EnumEntry>
  <EnumEntry Name="Continuous" NameSpace="Standard"><Value>2</Value></EnumEntry>
  <Value>2</Value>
</Enumeration>
<Boolean Name="GammaEnable" NameSpace="Standard">
  <Value>1</Value><OnValue>1</OnValue><OffValue>0</OffValue>
</Boolean>
<Float Name="Gain" NameSpace="Standard">
  <Value>3</Value><Min>0</Min><Max>24</Max><Unit>dB</Unit>
</Float>
<Integer Name="BlackLevelRaw" NameSpace="Standard">
  <Value>0</Value><Min>0</Min><Max>255</Max><Inc>4</Inc>
</Integer>
<Float Name="DeviceTemperature" NameSpace="Standard"><Value>41.5</Value><Unit>C</Unit></Float>
</RegisterDescription>
"""


def viky() -> Path | None:
    """Producer of the genicam package; None where the package or the file is not there."""
    spec = importlib.util.find_spec("genicam")
    path = Path(spec.origin).parent / "viky.cti" if spec and spec.origin else None
    return path if path is not None and path.exists() else None


@cache
def tlsimu() -> Path | None:
    """Folder of TLSimu.cti and its description ``described.xml``; None where it cannot be had."""
    if not (CACHE / "described.xml").exists():
        CACHE.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE.parent) as name:
            try:
                _fetch(Path(name))
                (Path(name) / "ready").rename(CACHE)
            except (OSError, subprocess.SubprocessError, StopIteration):
                # another process may have been faster
                if not (CACHE / "described.xml").exists():
                    return None
    return CACHE


def _fetch(folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "download", "--no-deps"]
    subprocess.run([*pip, "genicam==1.5.0", "-d", folder], check=True, capture_output=True, timeout=120)
    ready = folder / "ready"
    ready.mkdir()
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        for entry in wheel.namelist():
            if entry.endswith(("/TLSimu.cti", "/libVirtualFG.so")):
                (ready / Path(entry).name).write_bytes(wheel.read(entry))
    subprocess.run(
        [sys.executable, __file__, ready / "TLSimu.cti", folder / "xml"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    text = next((folder / "xml").glob("*.xml")).read_text()
    (ready / "described.xml").write_text(text.replace("</RegisterDescription>", MORE_NODES))


def viky_config(**changes: object) -> GenicamCameraConfig:
    """A small camera of viky that runs freely at 200 frames a second."""
    return GenicamCameraConfig.model_validate(
        {
            "producers": viky(), "serial": "0", "trigger": "free", "fixed_exposure_s": 0.01, "width": 120,
            "height": 100, "pixel_format": "Mono8", "exposure_min_s": 0.01, "exposure_max_s": 0.01,
            "nodes": {"AcquisitionFrameRate": 200},
        }
        | changes
    )  # fmt: skip


def tlsimu_config(**changes: object) -> GenicamCameraConfig:
    """A small camera of TLSimu that is triggered by software."""
    folder = tlsimu()
    return GenicamCameraConfig.model_validate(
        {
            "producers": folder / "TLSimu.cti" if folder else (), "serial": "SN_InterfaceA_0",
            "description": folder / "described.xml" if folder else None, "width": 64, "height": 48,
            "pixel_format": "Mono8", "exposure_min_s": 1e-5, "exposure_max_s": 1.0, "gain_max_db": 24.0,
        }
        | changes
    )  # fmt: skip


if __name__ == "__main__":
    os.environ["HARVESTERS_XML_FILE_DIR"] = sys.argv[2]
    from harvesters.core import Harvester, ParameterKey, ParameterSet

    harvester = Harvester()
    harvester.add_file(sys.argv[1])
    harvester.update()
    kept = ParameterSet({ParameterKey.ENABLE_CLEANING_UP_INTERMEDIATE_FILES: False})
    with harvester.create(0, config=kept):
        pass
    harvester.reset()
