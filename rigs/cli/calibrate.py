"""``gnomon calibrate``: models from sessions."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from rigs.cli.app import calibrate_app
from rigs.cli.options import (
    AlbedoOption,
    BoardOption,
    CameraOption,
    LensOption,
    MatteDiameterOption,
    MatteMaskOption,
    ModelOut,
    RigOption,
    SensorOption,
    SphereDiameterOption,
    board_of,
    matte_of,
    models_of,
    rig_config,
    say,
    track,
)


@calibrate_app.command(
    "sensor", epilog="Example: `gnomon calibrate sensor out/sensor --out models/sensor.json`"
)
def calibrate_sensor(
    session: Annotated[Path, typer.Argument(help="Session with `flat` and `dark` frames.")],
    photons_per_s: Annotated[
        float | None,
        typer.Option(
            "--photons-per-s", help="Photons that a pixel receives in a second of the flats' light."
        ),
    ] = None,
    irradiance: Annotated[
        float | None,
        typer.Option("--irradiance-uW-cm2", help="The same, as an irradiance meter reads it at the sensor."),
    ] = None,
    wavelength: Annotated[
        float | None, typer.Option("--wavelength-nm", help="Of the flats' light; for --irradiance.")
    ] = None,
    pitch: Annotated[
        float | None, typer.Option("--pixel-pitch-um", help="Side of a pixel; for --irradiance.")
    ] = None,
    out: ModelOut = Path("sensor.json"),
    camera: CameraOption = None,
) -> None:
    """Gain, noise, saturation, linearity, dark current, maps and defects, by photon transfer (EMVA 1288).

    With the light measured, the quantum efficiency and the sensitivity threshold too.
    """
    from capture.session import Session
    from rigs import workflows

    photons = workflows.photons_per_s(photons_per_s, irradiance, wavelength, pitch)
    model = workflows.calibrate_sensor(
        Session.open(session),
        camera=camera,
        photons_per_s=photons,
        wavelength_nm=wavelength,
        pixel_pitch_um=pitch,
    )
    workflows.save(out, model, say)
    for line in workflows.describe_sensor(model):
        say(line)


@calibrate_app.command(
    "response", epilog="Example: `gnomon calibrate response out/memorial --out response.json`"
)
def calibrate_response(
    session: Annotated[
        Path, typer.Argument(help="Session with an exposure stack of a static scene, 8 to 16 bits.")
    ],
    out: ModelOut = Path("response.json"),
    method: Annotated[
        Literal["likelihood", "debevec"],
        typer.Option(help="Fit with noise, exposures and sigma; or Debevec and Malik's, to compare."),
    ] = "likelihood",
    exact_times: Annotated[
        bool, typer.Option("--exact-times", help="Take the reported exposures for exact.")
    ] = False,
    camera: CameraOption = None,
) -> None:
    """Response of a camera, its noise and its true exposures, from an exposure stack of any still scene.

    A camera that turns out to be linear gets a linear model.
    """
    from capture.session import Session
    from rigs import workflows

    model = workflows.calibrate_response(
        Session.open(session), method=method, exact_times=exact_times, camera=camera
    )
    workflows.save(out, model, say)


@calibrate_app.command(
    "flat",
    epilog="Example: `gnomon calibrate flat out/flat --sensor sensor.json --out sensor-flat.json`",
)
def calibrate_flat(
    session: Annotated[
        Path, typer.Argument(help="Session with `flat` frames; or any scene in several poses, moved about.")
    ],
    sensor: SensorOption = None,
    rig: RigOption = None,
    lens: LensOption = None,
    turn: Annotated[
        list[str] | None,
        typer.Option(
            help="POSE=DEGREES (repeat): how far the flat target was turned, clockwise in the picture. "
            "Poses named such as panel-90deg tell it themselves."
        ),
    ] = None,
    steady: Annotated[
        bool, typer.Option("--steady", help="The light was the same in all views of a moved scene.")
    ] = False,
    out: ModelOut = Path("sensor-flat.json"),
    camera: CameraOption = None,
) -> None:
    """Flat map and vignetting of another lens or aperture, in a sensor model that is else kept."""
    from capture.session import Session
    from rigs import workflows
    from rigs.config import ConfigError

    model, view = models_of(rig, camera, sensor, lens, session)
    if model is None:
        raise ConfigError("no sensor model: give --sensor, or --rig with a pinned one")
    found = workflows.calibrate_flat(
        Session.open(session),
        model,
        lens=view,
        turns_deg=dict(workflows.parse_turn(text) for text in turn or ()),
        steady=steady,
        camera=camera,
        track=track,
    )
    workflows.save(out, found, say)


@calibrate_app.command(
    "lens",
    epilog="Example: `gnomon calibrate lens out/lens --board 'checkerboard 9x6 25' --out models/lens.json`",
)
def calibrate_lens(
    session: Annotated[Path, typer.Argument(help="Session with `board` frames.")],
    board: BoardOption = None,
    rig: RigOption = None,
    model: Annotated[
        Literal["auto", "brown-4", "brown-5", "brown-8", "fisheye", "splined"],
        typer.Option(help="Kind of lens model; auto: the plainest that foretells unseen corners best."),
    ] = "auto",
    warp: Annotated[bool, typer.Option("--warp", help="The board may be bent: fit its shape too.")] = False,
    aspect: Annotated[
        bool, typer.Option("--aspect", help="Squares may be higher than wide: fit that too.")
    ] = False,
    sensor: SensorOption = None,
    out: ModelOut = Path("lens.json"),
    camera: CameraOption = None,
) -> None:
    """Focal length, principal point and distortion, with their uncertainty, from views of a board.

    Says whether the result is good, or what is lacking; `gnomon guide` names the next view to take.
    """
    from capture.session import Session
    from rigs import workflows

    lens = workflows.calibrate_lens(
        Session.open(session),
        board_of(board, rig_config(rig)),
        model=model,
        warp=warp,
        aspect=aspect,
        sensor=models_of(rig, camera, sensor, None, session)[0],
        camera=camera,
        track=track,
    )
    workflows.save(out, lens, say)
    for line in workflows.describe_lens(lens):
        say(line)


@calibrate_app.command(
    "lights", epilog="Example: `gnomon calibrate lights out/lights --rig rig.yaml --lens models/lens.json`"
)
def calibrate_lights(
    session: Annotated[Path, typer.Argument(help="Session with `sphere` frames under each light.")],
    rig: RigOption = None,
    sensor: SensorOption = None,
    lens: LensOption = None,
    sphere_mm: SphereDiameterOption = None,
    spheres: Annotated[
        int | None, typer.Option(help="How many spheres are in view; found by itself if not given.")
    ] = None,
    mask: Annotated[
        list[Path] | None,
        typer.Option(help="Mask image of one sphere (repeat for several) instead of detection."),
    ] = None,
    finish: Annotated[
        Literal["mirror", "matte", "both"],
        typer.Option(help="What the spheres are; of both kinds --matte-... describe the matte ones."),
    ] = "mirror",
    matte_mm: MatteDiameterOption = None,
    matte_mask: MatteMaskOption = None,
    albedo: AlbedoOption = 0.9,
    focal_35mm: Annotated[
        float | None,
        typer.Option("--focal-35mm", help="Focal length on 36 mm film, mm, where there is no lens model."),
    ] = None,
    board: Annotated[
        str | None,
        typer.Option(help="Board beside the spheres, for the intensities; as in `calibrate lens`."),
    ] = None,
    model: Annotated[
        Literal["auto", "near", "distant"],
        typer.Option(help="Whether the lights are near; auto lets the data tell."),
    ] = "auto",
    out: ModelOut = Path("lights.json"),
    camera: CameraOption = None,
) -> None:
    """Direction or position, and intensity, of every light, from spheres found in the images.

    One ball, mirror or matte white, gives a far light's direction (a lens model or the focal length make it
    right beside the picture's middle too); two or more, with a lens model and the diameter, give a near
    light's position.
    """
    from capture.session import Session
    from rigs import workflows

    radiometric, view = models_of(rig, camera, sensor, lens, session)
    config = rig_config(rig)
    targets = workflows.targets(config)
    balls = workflows.sphere_target(config, sphere_mm, spheres)
    result = workflows.calibrate_lights(
        Session.open(session),
        balls,
        sensor=radiometric,
        lens=view,
        focal_35mm=focal_35mm,
        board=workflows.choose_board(board, config, needed=False),
        board_reflectance=targets.board_reflectance,
        board_margin_mm=targets.board_margin_mm,
        masks=() if finish == "matte" else mask or (),
        mirror=finish != "matte",
        matte=matte_of(finish, balls, mask or [], matte_mm, matte_mask or [], albedo),
        model=model,
        camera=camera,
        track=track,
    )
    workflows.save(out, result.lights, say)
    for line in (*result.remarks, *workflows.describe_lights(result.lights)):
        say(line)


@calibrate_app.command(
    "colour",
    epilog="Example: `gnomon calibrate colour out/chart --sensor sensor.json --out models/colour.json`",
)
def calibrate_colour(
    session: Annotated[Path, typer.Argument(help="Session with `chart` frames: a ColorChecker Classic.")],
    rig: RigOption = None,
    sensor: SensorOption = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="CSV of your own chart: patch,L,a,b or patch,X,Y,Z. Default: published values."),
    ] = None,
    edition: Annotated[
        Literal["2014", "2005"],
        typer.Option(help="Published values: charts made after, or before, November 2014."),
    ] = "2014",
    illuminant: Annotated[
        str | None,
        typer.Option(help="White of the values in --reference: D50 (default), D65, A, ... or x,y."),
    ] = None,
    method: Annotated[
        Literal["auto", "matrix", "root-polynomial"],
        typer.Option(help="auto: the matrix unless cross-validation says the root polynomial is better."),
    ] = "auto",
    keep_white: Annotated[
        bool, typer.Option("--keep-white", help="Neutral comes out exactly neutral.")
    ] = False,
    corners: Annotated[
        str | None, typer.Option(help="Outer corners of the chart in px, 'x,y x,y x,y x,y', where not found.")
    ] = None,
    white: Annotated[
        str | None,
        typer.Option(help="Pose of `flat` frames of a white board in the chart's place: evens the light."),
    ] = None,
    pose: Annotated[str | None, typer.Option(help="Which pose, where a session has several.")] = None,
    light: Annotated[str | None, typer.Option(help="Which light, where a session has several.")] = None,
    out: ModelOut = Path("colour.json"),
    camera: CameraOption = None,
) -> None:
    """White balance and colour matrix, from a ColorChecker under the light that the pictures have.

    Use it with `gnomon merge --colour`: the radiance comes out in linear Rec.709.
    """
    from capture.session import Session
    from rigs import workflows

    model = workflows.calibrate_colour(
        Session.open(session),
        reference=workflows.chart_reference(reference, edition, illuminant),
        method=method,
        keep_white=keep_white,
        sensor=models_of(rig, camera, sensor, None, session)[0],
        camera=camera,
        pose=pose,
        light=light,
        corners=workflows.parse_corners(corners),
        white=white,
    )
    workflows.save(out, model, say)
    say(
        f"CIEDE2000 of the chart: mean {model.mean_delta_e:.2f}, greatest {model.max_delta_e:.2f}, "
        f"patches left out in turn {model.cross_validated_delta_e:.2f} ({model.method})"
    )
