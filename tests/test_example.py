"""The example pipeline: its numbers compared with the frames' headers, and with the known truth of derived frames."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
if str(EXAMPLES) not in sys.path:
    sys.path.append(str(EXAMPLES))

# By name, because `examples` is on the path of a run of the example and not on that of a type checker.
example = importlib.import_module("solar_calibration")
errors, frames, sources, derived, background, flat_field, correction, limb, alignment, quality, tasks = (
    importlib.import_module(f"solar_calibration.{module}")
    for module in (
        "errors",
        "frames",
        "sources",
        "derived",
        "background",
        "flat_field",
        "correction",
        "limb",
        "alignment",
        "quality",
        "tasks",
    )
)

TASK_NAMES = (
    "ParseFrames",
    "EstimateBackground",
    "EstimateFlat",
    "CorrectFrames",
    "FitLimb",
    "MeasureQuality",
    "AlignFrames",
    "MakeContactSheet",
)
DERIVED_NAMES = tuple(derived.RECIPES)


@pytest.fixture(scope="module")
def raw() -> dict[str, Any]:
    """All frames as recorded, by name."""
    observed = {name: sources.read_observed(name) for name in sources.observed_names()}
    made = {
        name: derived.derive_frame(observed[recipe.source], name, recipe) for name, recipe in derived.RECIPES.items()
    }
    return observed | made


@pytest.fixture(scope="module")
def calibrated(raw: dict[str, Any]) -> dict[str, Any]:
    """All frames after correction, by name."""
    return {
        name: correction.correct_frame(
            frame,
            background.estimate_background(frame).surface,
            flat_field.fit_mesh(frame.data).gain(frame.data.shape),
        )
        for name, frame in raw.items()
    }


@pytest.fixture(scope="module")
def limbs(calibrated: dict[str, Any]) -> dict[str, Any]:
    """The fitted limb of each frame, by name."""
    return {name: limb.fit_limb(frame) for name, frame in calibrated.items()}


def make_task(name: str) -> Any:
    """Make a task of the pipeline for recipe run 7."""
    workflow = example.workflow
    return getattr(tasks, name)(
        recipe_run_id=7, workflow_name=workflow.workflow_name, workflow_version=workflow.workflow_version
    )


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scratch folder in which every task has run once."""
    folder = tmp_path_factory.mktemp("solar")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOLAR_CALIBRATION_DIR", str(folder))
        patch.delenv("SOLAR_CALIBRATION_FAIL", raising=False)
        for name in TASK_NAMES:
            make_task(name).run()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# Observed frames


def test_two_eit_frames_are_an_hour_apart_and_lost_one_telemetry_block_each(raw: dict[str, Any]) -> None:
    """Lost blocks of 32 readout pixels are 4 by 4 pixels here, and are NaN instead of zero."""
    first, second = raw["eit_195"], raw["eit_171"]

    elapsed_minutes = (second.observed - first.observed).total_seconds() / 60

    assert pytest.approx(60.1, abs=0.1) == elapsed_minutes
    lost = [int(np.isnan(frame.data).sum()) for frame in (first, second)]
    assert lost == [16, 16]


def test_eit_radius_accounts_for_the_binning_that_the_header_leaves_out(raw: dict[str, Any]) -> None:
    """SOLAR_R counts the 1024 pixels of the readout, of which eight make one of the frame."""
    assert pytest.approx(372.27 / 8) == raw["eit_195"].radius_px


@pytest.mark.parametrize("name", sources.observed_names())
def test_fitted_limb_radius_agrees_with_the_header(name: str, raw: dict[str, Any], limbs: dict[str, Any]) -> None:
    """Half a pixel of 46 to 51 is one percent."""
    assert pytest.approx(raw[name].radius_px, rel=0.012) == limbs[name].radius


@pytest.mark.parametrize(("name", "tolerance_px"), [("aia_171", 0.1), ("hmi_6173", 0.35)])
def test_fitted_limb_centre_agrees_with_the_world_coordinates(
    name: str, tolerance_px: float, raw: dict[str, Any], limbs: dict[str, Any]
) -> None:
    """SDO's headers know where the Sun is; HMI's was resampled from 4096 pixels to 100."""
    assert raw[name].center_px == pytest.approx((limbs[name].x, limbs[name].y), abs=tolerance_px)


def test_visible_limb_is_sharper_than_the_coronas(limbs: dict[str, Any]) -> None:
    """The photosphere ends within a tenth of a pixel, the corona's rim is ragged."""
    assert limbs["hmi_6173"].rms < 0.1
    assert 0.1 < limbs["aia_171"].rms < 0.5
    assert 0.2 < limbs["eit_195"].rms < 0.7


def test_background_is_the_readout_offset_of_eit_and_next_to_nothing_in_calibrated_aia(raw: dict[str, Any]) -> None:
    """EIT's readout has an offset of about 850 counts in the dark; it was removed from AIA's level 1."""
    eit, aia, hmi = (background.estimate_background(raw[name]) for name in ("eit_195", "aia_171", "hmi_6173"))

    assert 840 < eit.surface.min() < eit.surface.max() < 875
    assert abs(aia.surface.mean()) < 5
    assert not hmi.surface.any()
    assert hmi.sky_px == 0


def test_filter_mesh_is_found_in_eit_and_not_where_there_is_none(raw: dict[str, Any]) -> None:
    """EIT's front filter hangs on a mesh; AIA's level 1 is flat-fielded, HMI looks through glass."""
    depth = {name: flat_field.fit_mesh(raw[name].data).depth for name in sources.observed_names()}

    assert 0.025 < depth["eit_195"] < 0.04
    assert 0.035 < depth["eit_171"] < 0.055
    assert depth["aia_171"] == depth["hmi_6173"] == 0


def test_filter_mesh_does_not_depend_on_the_background(raw: dict[str, Any]) -> None:
    """That is why background and flat may be estimated side by side."""
    data = raw["eit_171"].data

    with_offset, without = flat_field.fit_mesh(data), flat_field.fit_mesh(data - 850)

    np.testing.assert_allclose(with_offset.gain(data.shape), without.gain(data.shape), atol=1e-9)


def test_sun_rotated_westward_between_the_two_eit_frames(calibrated: dict[str, Any], limbs: dict[str, Any]) -> None:
    """SOHO hung upside down, so west is to the left; the two channels see different heights, hence the tolerance."""
    frame, reference = calibrated["eit_171"], calibrated["eit_195"]
    expected = alignment.expected_displacement(frame, reference)

    found, _ = alignment.align(frame, limbs["eit_171"], reference, limbs["eit_195"])

    assert pytest.approx(-0.34, abs=0.02) == expected.dx_px
    assert -0.5 < found.displacement.dx_px < -0.1
    assert abs(found.displacement.dy_px) < 0.15
    assert abs(found.displacement.roll_deg) < 0.1
    assert found.residual < found.residual_before


# Frames with a known truth


@pytest.mark.parametrize("name", DERIVED_NAMES)
def test_known_displacement_is_recovered(name: str, calibrated: dict[str, Any], limbs: dict[str, Any]) -> None:
    """To a twentieth of a pixel and of a degree, with mesh, offset, noise and a lost block."""
    frame = calibrated[name]

    found, images = alignment.align(frame, limbs[name], calibrated[frame.scene], limbs[frame.scene])

    assert frame.known.dx_px == pytest.approx(found.displacement.dx_px, abs=0.05)
    assert frame.known.dy_px == pytest.approx(found.displacement.dy_px, abs=0.05)
    assert frame.known.roll_deg == pytest.approx(found.displacement.roll_deg, abs=0.05)
    assert found.residual < 0.35 * found.residual_before
    assert found.correlation > 0.97
    assert images.aligned.shape == images.difference.shape == (128, 128)


def test_frame_aligned_to_itself_does_not_move(calibrated: dict[str, Any], limbs: dict[str, Any]) -> None:
    """The reference of a scene has no displacement and leaves no residual."""
    frame, circle = calibrated["hmi_6173"], limbs["hmi_6173"]

    found, _ = alignment.align(frame, circle, frame, circle)

    assert frames.Displacement(0, 0, 0) == found.displacement
    assert pytest.approx(0, abs=1e-9) == found.residual


@pytest.mark.parametrize("name", ["aia_171_derived_1", "aia_171_derived_2"])
def test_known_gain_is_recovered(name: str, raw: dict[str, Any]) -> None:
    """A gain pattern of four percent is recovered to half a percent of the light."""
    data = raw[name].data
    known = derived.mesh_gain(data.shape, derived.RECIPES[name].mesh)

    error = flat_field.fit_mesh(data).gain(data.shape) - known

    assert np.std(error) < 0.2 * np.std(known)
    assert abs(np.mean(error)) < 0.005


@pytest.mark.parametrize("name", DERIVED_NAMES)
def test_derived_frame_says_so_in_its_file(name: str, raw: dict[str, Any], tmp_path: Path) -> None:
    """The claim travels with the pixels, and the truth with it."""
    frames.write_frame(tmp_path / "frame.fits", raw[name])

    again = frames.read_frame(tmp_path / "frame.fits")

    assert any(line.startswith(f"DERIVED from {raw[name].scene}, not observed") for line in again.history)
    assert derived.RECIPES[name].displacement == again.known
    np.testing.assert_array_equal(raw[name].data, again.data)


@pytest.mark.parametrize("name", sources.observed_names())
def test_observed_frame_claims_no_known_truth(name: str, raw: dict[str, Any], tmp_path: Path) -> None:
    """An observed frame is marked as observed, and the mark survives the file."""
    frames.write_frame(tmp_path / "frame.fits", raw[name])

    again = frames.read_frame(tmp_path / "frame.fits")

    assert again.known is None
    assert any(line.startswith("Observed frame") for line in again.history)
    assert not any("DERIVED" in line for line in again.history)
    assert raw[name].history == again.history
    assert raw[name].observed == again.observed
    np.testing.assert_array_equal(raw[name].data, again.data)


def test_derived_frames_are_the_same_every_time(raw: dict[str, Any]) -> None:
    """The seeds are fixed."""
    name, recipe = next(iter(derived.RECIPES.items()))

    again = derived.derive_frame(raw[recipe.source], name, recipe)

    np.testing.assert_array_equal(raw[name].data, again.data)


# Improvements by the calibration


@pytest.mark.parametrize("name", ["eit_171", "eit_195", "aia_171_derived_1", "aia_171_derived_2"])
def test_quality_improves_by_calibration(name: str, raw: dict[str, Any], calibrated: dict[str, Any]) -> None:
    """Contrast appears when the offset is removed, the mesh shadow becomes weaker, and no pixel stays lost."""
    before, after = quality.measure_quality(raw[name]), quality.measure_quality(calibrated[name])

    assert after.contrast > 3 * before.contrast
    assert after.sharpness > 3 * before.sharpness
    assert after.mesh < 0.6 * before.mesh
    assert (before.lost_px, after.lost_px) == (16, 0)


@pytest.mark.parametrize("name", ["aia_171", "hmi_6173"])
def test_quality_of_what_was_calibrated_already_stays(
    name: str, raw: dict[str, Any], calibrated: dict[str, Any]
) -> None:
    """Without errors to correct, the result changes little."""
    before, after = quality.measure_quality(raw[name]), quality.measure_quality(calibrated[name])

    assert before.contrast == pytest.approx(after.contrast, rel=0.02)
    assert before.signal_to_noise == pytest.approx(after.signal_to_noise, rel=0.02)


def test_lost_pixels_are_filled_from_their_neighbours() -> None:
    """On a slope the middle of a gap gets the value between its edges."""
    slope = np.add.outer(np.arange(20.0), 2 * np.arange(30.0))
    gap = slope.copy()
    gap[8:12, 10:14] = np.nan

    filled = correction.fill_lost(gap)

    assert np.abs(filled - slope).max() < 3
    np.testing.assert_array_equal(slope[np.isfinite(gap)], filled[np.isfinite(gap)])


def test_frame_that_is_mostly_lost_is_refused() -> None:
    """Neighbours cannot replace half of a frame."""
    data = np.ones((20, 20))
    data[:10] = np.nan

    with pytest.raises(errors.CorrectionError, match="200 of 400 pixels are lost"):
        correction.fill_lost(data)


def test_circle_fit_withstands_outliers() -> None:
    """A fifth of the points is up to three pixels outside, as prominences are."""
    angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    radius = np.full(180, 46.5)
    radius[40:76] += np.linspace(1, 3, 36)

    circle = limb.fit_circle(63.2 + radius * np.cos(angles), 64.7 + radius * np.sin(angles))

    assert pytest.approx((63.2, 64.7, 46.5), abs=0.02) == (circle.x, circle.y, circle.radius)


def test_frame_without_a_disk_has_no_limb(calibrated: dict[str, Any]) -> None:
    """Noise alone shows no circle."""
    noise = np.random.default_rng(1).normal(100.0, 5.0, (128, 128))

    with pytest.raises(errors.LimbNotFoundError, match="limb points scatter by"):
        limb.fit_limb(replace(calibrated["hmi_6173"], data=noise, center_px=(63.5, 63.5), radius_px=50.0))


def test_two_different_suns_are_not_aligned(calibrated: dict[str, Any], limbs: dict[str, Any]) -> None:
    """EIT's Sun of 2004 and AIA's of 2011 have only the disk in common."""
    with pytest.raises(errors.AlignmentError, match=r"eit_195: correlates only .* with aia_171"):
        alignment.align(calibrated["eit_195"], limbs["eit_195"], calibrated["aia_171"], limbs["aia_171"])


@pytest.mark.parametrize(("dx", "dy"), [(0.0, 0.0), (0.37, -0.61), (-3.25, 2.5), (7.9, 0.05)])
def test_phase_shift_is_found_between_pixels(dx: float, dy: float) -> None:
    """A band-limited scene moved by Fourier's theorem is found within a fiftieth of a pixel."""
    spectrum = np.fft.fft2(np.random.default_rng(3).normal(size=(64, 64)))
    fx, fy = np.fft.fftfreq(64), np.fft.fftfreq(64)[:, None]
    spectrum *= np.exp(-((fx**2 + fy**2) / 0.02))
    fixed = np.fft.ifft2(spectrum).real
    moved = np.fft.ifft2(spectrum * np.exp(-2j * np.pi * (fx * dx + fy * dy))).real

    assert (dx, dy) == pytest.approx(alignment.phase_shift(moved, fixed), abs=0.02)


# The tasks


def test_branches_join_again() -> None:
    """Two tasks run in parallel, twice, and a task after each pair waits for both."""
    graph = {node.task.__name__: {task.__name__ for task in node.upstreams} for node in example.workflow.nodes}

    assert graph == {
        "ParseFrames": set(),
        "EstimateBackground": {"ParseFrames"},
        "EstimateFlat": {"ParseFrames"},
        "CorrectFrames": {"EstimateBackground", "EstimateFlat"},
        "FitLimb": {"CorrectFrames"},
        "MeasureQuality": {"CorrectFrames"},
        "AlignFrames": {"FitLimb"},
        "MakeContactSheet": {"AlignFrames", "MeasureQuality"},
    }


def test_run_leaves_a_picture_and_its_numbers(finished_run: Path) -> None:
    """quality.json contains a number for each property in the picture of each frame."""
    picture = (finished_run / "7" / "contact_sheet.png").read_bytes()
    report = json.loads((finished_run / "7" / "quality.json").read_text(encoding="utf-8"))

    assert picture.startswith(b"\x89PNG\r\n")
    assert report["recipe_run_id"] == 7
    assert sorted((*sources.observed_names(), *DERIVED_NAMES)) == sorted(report["frames"])
    derived_frame = report["frames"]["aia_171_derived_1"]
    assert derived_frame["derived"]
    assert pytest.approx(3.0, abs=0.05) == derived_frame["alignment"]["displacement"]["roll_deg"]
    assert pytest.approx(850, abs=5) == derived_frame["background"]["mean"]
    assert pytest.approx(0.04, abs=0.004) == derived_frame["flat"]["depth"]
    assert derived_frame["limb"]["points"] > 100


def test_task_repeated_leaves_the_same_files(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second attempt finds the files of the first one and overwrites them with the same bytes."""
    monkeypatch.setenv("SOLAR_CALIBRATION_DIR", str(finished_run))
    first = contents(finished_run)
    stray = finished_run / "7" / "raw" / "of_another_release.fits"
    stray.write_bytes(b"not a frame")

    for name in TASK_NAMES:
        make_task(name).run()

    assert first == contents(finished_run)


@pytest.mark.parametrize("name", TASK_NAMES)
def test_named_task_fails_half_way(
    name: str, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The switch raises the task's own error at the middle frame, with a note that it was requested."""
    shutil.copytree(finished_run / "7", tmp_path / "7")
    monkeypatch.setenv("SOLAR_CALIBRATION_DIR", str(tmp_path))
    monkeypatch.setenv("SOLAR_CALIBRATION_FAIL", name)

    with pytest.raises(errors.CalibrationError, match=r"^eit_171: ") as failure:
        make_task(name).run()

    assert type(make_task(name).failure) is failure.type
    assert failure.value.__notes__ == ["asked for by SOLAR_CALIBRATION_FAIL"]


def test_named_task_fails_only_once(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its second attempt succeeds, while another named task goes on failing; the next run is the same."""
    shutil.copytree(finished_run / "7", tmp_path / "7")
    monkeypatch.setenv("SOLAR_CALIBRATION_DIR", str(tmp_path))
    monkeypatch.setenv("SOLAR_CALIBRATION_FAIL", "EstimateFlat:once,FitLimb")

    for _ in range(2):
        with pytest.raises(errors.FlatFieldError):
            make_task("EstimateFlat").run()
        make_task("EstimateFlat").run()
        with pytest.raises(errors.LimbNotFoundError):
            make_task("FitLimb").run()

    assert contents(tmp_path) == contents(finished_run)


def test_misspelt_task_to_fail_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the existing tasks."""
    monkeypatch.setenv("SOLAR_CALIBRATION_DIR", str(tmp_path))
    monkeypatch.setenv("SOLAR_CALIBRATION_FAIL", "FitLimbs")

    with pytest.raises(ValueError, match="'FitLimbs' names no task of this pipeline: one of AlignFrames, "):
        make_task("ParseFrames").run()


def test_task_without_its_input_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that runs out of order does not report success without input."""
    monkeypatch.setenv("SOLAR_CALIBRATION_DIR", str(tmp_path))

    with pytest.raises(errors.FrameError, match=r"no frames in .*calibrated: the task that writes them has not run"):
        make_task("FitLimb").run()


def test_reading_the_workflow_imports_no_science() -> None:
    """A scheduler reads it every few seconds."""
    code = "import sys, solar_calibration; print(sorted({'astropy', 'scipy', 'PIL', 'sunpy'} & set(sys.modules)))"

    answer = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(EXAMPLES)},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )

    assert answer.stdout.strip() == "[]"
