"""The main job on a simulated dome: commission, capture, reconstruct, and compare every step with the truth.

Every model is fitted from captured frames alone; the truth is opened for the comparison only.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration import files
from calibration.lens import LensModel
from calibration.lights.model import LightModel, LightSet
from calibration.radiometric import RadiometricModel
from capture.plan import CapturePlan
from capture.session import Session
from rigs import report, verify, workflows
from rigs.config import ConfigError, RigConfig, load_plan, load_rig
from rigs.report import Metric
from rigs.simulated import Truth, Twin
from rigs.workflows import Result, Track

_CONFIGS = Path(__file__).resolve().parent.parent / "configs"
_PLANS = ("sensor", "lens", "lights", "relief", "glossy")
_MARK = "demo.json"
_MONTE_CARLO_SEEDS = 24
_WINDOW_PX = 48

Say = Callable[[str], None]


def run(
    out: Path,
    *,
    rig: Path | None = None,
    truth: Path | None = None,
    plans: Path | None = None,
    seed: int | None = None,
    track: Track = workflows.silent,
    say: Say = print,
) -> list[Metric]:
    """Run the whole chain into ``out`` and return every number beside its truth and bound.

    Parameters
    ----------
    out : Path
        Folder for the results; an earlier demo there is replaced, anything else is left alone and refused.
    rig, truth, plans : Path, optional
        rig.yaml, truth file and the folder of the plans ``dome-sensor.yaml``, ``dome-lens.yaml``,
        ``dome-lights.yaml``, ``dome-relief.yaml`` and ``dome-glossy.yaml``; those of the dome without.
    seed : int, optional
        In place of the truth's.

    Raises
    ------
    ConfigError
        A file is missing or does not fit the others; nothing was captured.
    calibration.provenance.FitError
        A calibration has no honest result.
    """
    config = load_rig(rig or shipped("rigs/dome.yaml"))
    known = workflows.read_truth(truth or shipped("truths/dome.yaml"))
    if seed is not None:
        known = known.replace(seed=seed)
    if odd := sorted(set(known.bounds) - set(verify.BOUNDS)):
        raise ConfigError(f"bounds.{odd[0]}: nothing measures it; known are {', '.join(verify.BOUNDS)}")
    folder = plans or shipped("plans")
    chosen = {name: load_plan(folder / f"dome-{name}.yaml") for name in _PLANS}
    camera = next(iter(config.cameras))
    prepare(out, config, chosen, known)
    started = time.monotonic()
    job = _Job(out, config, known, chosen, camera, track, say)
    metrics = job.commission()
    metrics += job.objects()
    metrics.append(
        Metric(
            section="run",
            quantity="duration",
            value=time.monotonic() - started,
            unit="s",
            note="this machine",
        )
    )
    job.write(metrics)
    return metrics


def shipped(name: str) -> Path:
    """A file of ``configs``; ConfigError where the program does not run from a clone."""
    path = _CONFIGS / name
    if not path.exists():
        raise ConfigError(f"{path}: not there: run from a clone, or give --rig, --truth and --plans")
    return path


def prepare(out: Path, config: RigConfig, plans: dict[str, CapturePlan], truth: Truth) -> None:
    """Refuse what cannot run before anything is deleted, then make an empty folder."""
    for plan in plans.values():
        problems = workflows.check_plan(config, plan, out, truth).problems
        if problems:
            raise ConfigError("\n".join(f"plan {plan.name}: {problem}" for problem in problems))
    if out.exists() and any(out.iterdir()) and not (out / _MARK).exists():
        raise ConfigError(f"{out}: holds something that no demo wrote: give another --out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / _MARK).write_text(json.dumps({"plans": {name: plan.digest for name, plan in plans.items()}}))


class _Job:
    """One demo run: the models as they come, and the twin that knows the truth."""

    sensor: RadiometricModel
    lens: LensModel
    lights: workflows.LightsResult
    twin: Twin

    def __init__(
        self,
        out: Path,
        config: RigConfig,
        truth: Truth,
        plans: dict[str, CapturePlan],
        camera: str,
        track: Track,
        say: Say,
    ) -> None:
        self.out, self.config, self.truth, self.plans = out, config, truth, plans
        self.camera, self.track, self.say = camera, track, say
        self.sessions: dict[str, Session] = {}
        self.surfaces: list[report.Surface] = []

    def commission(self) -> list[Metric]:
        """Sensor, lens and lights, each from its own session."""
        (self.out / "models").mkdir()
        session = self._capture("sensor")
        with self._step("sensor: photon transfer"):
            self.sensor = workflows.calibrate_sensor(session)
            files.save_model(self.out / "models" / "sensor.json", self.sensor)
        metrics = verify.sensor(self.sensor, self.truth, self.camera)
        held_out = session.stack(self.camera).select(kind="object")
        metrics.append(verify.radiance(self.sensor, held_out, self.twin, self.camera))
        board = workflows.choose_board(None, self.config)
        session = self._capture("lens")
        with self._step("lens: boards and fit"):
            self.lens = workflows.calibrate_lens(
                session, board, model="brown-5", sensor=self.sensor, track=self.track
            )
            files.save_model(self.out / "models" / "lens.json", self.lens)
        metrics += verify.lens(self.lens, self.twin, self.camera)
        session = self._capture("lights")
        with self._step("lights: spheres and highlights"):
            self.lights = workflows.calibrate_lights(
                session,
                self.config.targets.spheres,
                sensor=self.sensor,
                lens=self.lens,
                board=board,
                board_reflectance=self.config.targets.board_reflectance,
                board_margin_mm=self.config.targets.board_margin_mm,
                track=self.track,
            )
            files.save_model(self.out / "models" / "lights.json", self.lights.lights)
        return metrics + verify.lights(self.lights.lights, self.twin, self.camera)

    def objects(self) -> list[Metric]:
        """The Lambertian relief and the glossy object."""
        bounds = self.truth.bounds
        relief, error, where = self._object("relief")
        metrics = verify.normals(error, where, "relief", bounds.get("normals_lambertian_deg"))
        metrics += self._depth(relief, where, bounds.get("depth_mm"))
        metrics += self._monte_carlo(relief, where)
        self._picture(relief, where)
        self._forget_renderings()
        workflows.write_reconstruction(
            self.out, relief, sensor=self.sensor, lens=self.lens, lights=self.lights.lights
        )
        del relief
        glossy, error, where = self._object("glossy")
        metrics += verify.normals(error, where, "glossy", bounds.get("normals_glossy_deg"))
        metrics += self._depth(glossy, where, None)
        with self._step("glossy: least squares beside it"):
            plain = workflows.solve_again(glossy, self.lights.lights, self.lens, "least-squares")
        true = self.twin.maps("glossy", self.camera)
        plain_error = verify.normal_errors(plain, true.normals, where)
        metrics.append(
            Metric(
                section="glossy",
                quantity="glossy: normals by least squares, mean error",
                value=float(np.nanmean(plain_error)),
                unit="deg",
            )
        )
        metrics.append(
            Metric(
                section="glossy",
                quantity="glossy: error of least squares over that of the robust solver",
                value=float(np.nanmean(plain_error) / np.nanmean(error)),
                bound=bounds.get("robust_gain"),
                at_least=True,
            )
        )
        self._picture(glossy, where)
        self._forget_renderings()
        workflows.write_reconstruction(self.out / "glossy", glossy, lens=self.lens)
        return metrics

    def write(self, metrics: list[Metric]) -> None:
        """Report and metrics, and one line for each bound."""
        with self._step("report"):
            page = report.Report(
                title="gnomon demo: simulated dome",
                summary=(
                    "Everything below was calibrated and reconstructed from captured frames alone; "
                    "the simulation's truth is shown beside it."
                ),
                metrics=tuple(metrics),
                surfaces=tuple(self.surfaces),
                sensor=self.sensor,
                lens=self.lens,
                lights=self.lights.lights,
                true_lights=LightSet(lights=self._true_lights()),
                spheres=report.SphereSight(
                    picture=self.lights.picture,
                    circles=np.array([(*s.centre_px, s.radius_px) for s in self.lights.spheres]),
                    highlights=_strongest(self.lights.highlights.pixels),
                ),
                provenance={f"session {name}": s.digest for name, s in self.sessions.items()}
                | {"truth seed": str(self.truth.seed)},
            )
            report.write_metrics(self.out / "metrics.json", page.metrics)
            report.write_report(self.out / "report.html", page)
        for metric in metrics:
            if metric.bound is not None:
                self.say(metric.line)
        self.say(f"{self.out / 'report.html'}")

    def _forget_renderings(self) -> None:
        """A new twin: what the old one keeps of a pose would stand in memory beside what comes next."""
        self.twin = Twin(self.truth, self.config.limits.cameras)

    def _true_lights(self) -> dict[str, LightModel]:
        return {
            name: light
            for name, light in self.twin.lights(self.camera).items()
            if name in self.lights.lights.lights
        }

    def _capture(self, name: str) -> Session:
        path = self.out / "sessions" / name
        self._forget_renderings()
        with self._step(f"{name}: capture"):
            session = workflows.capture_session(
                self.config, self.plans[name], path, simulate=self.truth, track=self.track
            )
        if session.skipped:
            skip = session.skipped[0]
            raise ConfigError(f"{path}: shot {skip.shot.index} was skipped: {skip.reason}")
        self.sessions[name] = session
        return session

    def _object(self, name: str) -> tuple[Result, NDArray[np.float64], NDArray[np.bool_]]:
        session = self._capture(name)
        with self._step(f"{name}: normals and depth"):
            result = workflows.reconstruct(
                session, self.lights.lights, sensor=self.sensor, lens=self.lens, track=self.track
            )
        true = self.twin.maps(name, self.camera)
        lit = self.twin.lit_count(name, self.camera, result.images.names) >= 4
        where = (true.thing == 0) & lit
        return result, verify.normal_errors(result.reconstruction.normals, true.normals, where), where

    def _depth(self, result: Result, where: NDArray[np.bool_], bound: float | None) -> list[Metric]:
        true = self.twin.maps(result.name, self.camera).depth_mm
        found = result.reconstruction.depth_mm
        error = verify.aligned_depth_error(found, true, where)
        return verify.depth(error, found, true, result.name, bound)

    def _monte_carlo(self, result: Result, where: NDArray[np.bool_]) -> list[Metric]:
        """Claimed sigmas against the scatter over seeds, on the window of the object that is lit best."""
        with self._step("sigma against scatter over seeds"):
            window = _best_window(where)
            exposures = sorted(
                set(self.sessions[result.name].stack(self.camera).select(kind="object").exposure_s)
            )
            sampled = verify.resample(
                self.sensor,
                self.twin,
                self.camera,
                result.name,
                result.images.names,
                exposures,
                _MONTE_CARLO_SEEDS,
                window,
            )
            ambient = self.twin.clean_radiance(result.name, {}, self.camera)
            chosen = [self.lights.lights.lights[name] for name in result.images.names]
            return [
                verify.merge_variance(sampled, self.truth),
                verify.normal_sigma(
                    sampled,
                    ambient,
                    chosen,
                    self.lens,
                    result.reconstruction.depth_mm,
                    window,
                    where,
                    result.name,
                    self.truth,
                ),
            ]

    def _picture(self, result: Result, where: NDArray[np.bool_]) -> None:
        """Keep what the report shows of an object: the window that holds it."""
        window = _box(where | result.mask)
        true, found = self.twin.maps(result.name, self.camera), result.reconstruction
        value, variance = result.images.value[0][window], result.images.variance[0][window]
        with np.errstate(invalid="ignore", divide="ignore"):
            snr = value / np.sqrt(variance)
        error = verify.aligned_depth_error(found.depth_mm, true.depth_mm, where)
        normals = np.where(where[window][..., None], true.normals[window], np.nan)
        self.surfaces.append(
            report.Surface(
                name=result.name,
                normals=found.normals.crop(*window),
                depth_mm=found.depth_mm[window].copy(),
                picture=value,
                true_normals=normals.astype(np.float32),
                depth_error_mm=error[window],
                snr=snr,
            )
        )

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.say(f"{time.monotonic() - started:6.1f} s  {what}")


def _strongest(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    flat = pixels[:, :, 0].reshape(-1, 2)
    return flat[np.isfinite(flat).all(axis=1)]


def _box(where: NDArray[np.bool_], margin: int = 20) -> tuple[slice, slice]:
    """Smallest window that holds all of ``where``, and a margin."""
    rows, columns = (np.flatnonzero(where.any(axis=axis)) for axis in (1, 0))
    return (
        slice(max(int(rows[0]) - margin, 0), int(rows[-1]) + margin + 1),
        slice(max(int(columns[0]) - margin, 0), int(columns[-1]) + margin + 1),
    )


def _best_window(where: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Square window that lies wholly in ``where``, nearest to its middle."""
    import cv2

    room = cv2.erode(
        where.astype(np.uint8), np.ones((_WINDOW_PX + 1, _WINDOW_PX + 1), np.uint8), borderValue=0
    )
    rows, columns = np.nonzero(room if room.any() else where)
    middle = np.array([np.median(rows), np.median(columns)])
    nearest = int(np.argmin((rows - middle[0]) ** 2 + (columns - middle[1]) ** 2))
    half = _WINDOW_PX // 2
    top = int(np.clip(rows[nearest] - half, 0, where.shape[0] - _WINDOW_PX))
    left = int(np.clip(columns[nearest] - half, 0, where.shape[1] - _WINDOW_PX))
    return slice(top, top + _WINDOW_PX), slice(left, left + _WINDOW_PX)
