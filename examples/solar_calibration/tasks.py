"""
The tasks of the calibration, each a thin layer of reading, calling and writing.

Not here: the science, which is in plain functions of the modules beside; and the order of tasks, see the package.
"""

# ruff: noqa: PLC0415 - a task's process imports only the science it runs, a scheduler's none of it
from dataclasses import asdict

from solar_calibration.errors import (
    AlignmentError,
    BackgroundError,
    CorrectionError,
    FlatFieldError,
    FrameError,
    LimbNotFoundError,
    QualityError,
)
from solar_calibration.stage import CalibrationTask


class ParseFrames(CalibrationTask):
    """Decode the observed frames, and derive from them those with a known truth."""

    failure = FrameError("the header has no card 'DATE-OBS', so the frame cannot be placed in time")

    def run(self) -> None:
        """Write ``raw/*.fits``."""
        from solar_calibration.derived import RECIPES, derive_frame
        from solar_calibration.frames import write_frame
        from solar_calibration.sources import observed_names, read_observed

        raw = self.emptied("raw")
        with self.telemetry_span("parse frames"):
            for name in self.each(sorted([*observed_names(), *RECIPES])):
                recipe = RECIPES.get(name)
                if recipe is None:
                    frame = read_observed(name)
                else:
                    frame = derive_frame(read_observed(recipe.source), name, recipe)
                write_frame(raw / f"{name}.fits", frame)


class EstimateBackground(CalibrationTask):
    """Estimate each frame's readout offset and stray light from its sky."""

    failure = BackgroundError("only 37 sky pixels agree, at least 100 are needed")

    def run(self) -> None:
        """Write ``background/*.fits`` and ``background.json``."""
        from solar_calibration.background import estimate_background
        from solar_calibration.frames import write_image

        folder, found = self.emptied("background"), {}
        with self.telemetry_span("estimate background"):
            for frame in self.frames("raw"):
                background = estimate_background(frame)
                write_image(folder / f"{frame.name}.fits", background.surface)
                found[frame.name] = {
                    "mean": float(background.surface.mean()),
                    "noise": background.noise,
                    "sky_px": background.sky_px,
                    "unit": frame.unit,
                }
        self.write_json("background.json", found)


class EstimateFlat(CalibrationTask):
    """Estimate each detector's gain behind its filter mesh."""

    failure = FlatFieldError("only 912 of 16384 pixels arrived, at least 1000 are needed")
    # The rest may have arrived by then.
    retries = 1
    retry_delay_seconds = 1

    def run(self) -> None:
        """Write ``gain/*.fits`` and ``flat.json``."""
        from solar_calibration.flat_field import fit_mesh
        from solar_calibration.frames import write_image

        folder, found = self.emptied("gain"), {}
        with self.telemetry_span("fit filter mesh"):
            for frame in self.frames("raw"):
                mesh = fit_mesh(frame.data)
                write_image(folder / f"{frame.name}.fits", mesh.gain(frame.data.shape))
                found[frame.name] = {"depth": mesh.depth, **asdict(mesh)}
        self.write_json("flat.json", found)


class CorrectFrames(CalibrationTask):
    """Subtract background, divide by gain and exposure, fill lost pixels."""

    failure = CorrectionError("4301 of 16384 pixels are lost, more than neighbours can make up for")

    def run(self) -> None:
        """Write ``calibrated/*.fits``."""
        from solar_calibration.correction import correct_frame
        from solar_calibration.frames import read_image, write_frame

        folder = self.emptied("calibrated")
        with self.telemetry_span("correct frames"):
            for frame in self.frames("raw"):
                background = read_image(self.folder / "background" / f"{frame.name}.fits")
                gain = read_image(self.folder / "gain" / f"{frame.name}.fits")
                write_frame(folder / f"{frame.name}.fits", correct_frame(frame, background, gain))


class FitLimb(CalibrationTask):
    """Find the solar disk in each calibrated frame."""

    failure = LimbNotFoundError("41 of 180 limb points agree on a circle, at least 90 are needed")

    def run(self) -> None:
        """Write ``limb.json``."""
        from solar_calibration.limb import fit_limb

        with self.telemetry_span("fit limb"):
            limbs = {frame.name: asdict(fit_limb(frame)) for frame in self.frames("calibrated")}
        self.write_json("limb.json", limbs)


class MeasureQuality(CalibrationTask):
    """Measure each frame before and after calibration."""

    failure = QualityError("the disk holds no light, so that contrast has no meaning")

    def run(self) -> None:
        """Write ``metrics.json``."""
        from solar_calibration.frames import read_frame
        from solar_calibration.quality import measure_quality

        metrics = {}
        with self.telemetry_span("measure quality"):
            for frame in self.frames("calibrated"):
                raw = read_frame(self.folder / "raw" / f"{frame.name}.fits")
                metrics[frame.name] = {
                    "raw": asdict(measure_quality(raw)),
                    "calibrated": asdict(measure_quality(frame)),
                }
        self.write_json("metrics.json", metrics)


class AlignFrames(CalibrationTask):
    """Align each frame to the reference of its scene, and compare with what is known or predicted."""

    failure = AlignmentError("correlates only 0.11 with its reference, at least 0.3 is needed")

    def run(self) -> None:
        """Write ``aligned/*.fits``, ``difference/*.fits`` (before and after) and ``alignment.json``."""
        import numpy as np

        from solar_calibration.alignment import align, expected_displacement
        from solar_calibration.frames import read_frame, write_image
        from solar_calibration.limb import Circle

        limbs = {name: Circle(**limb) for name, limb in self.read_json("limb.json").items()}
        aligned, difference, found = self.emptied("aligned"), self.emptied("difference"), {}
        with self.telemetry_span("align frames"):
            for frame in self.frames("calibrated"):
                reference = read_frame(self.folder / "calibrated" / f"{frame.scene}.fits")
                alignment, images = align(frame, limbs[frame.name], reference, limbs[reference.name])
                write_image(aligned / f"{frame.name}.fits", images.aligned)
                stack = np.stack([images.difference_before, images.difference])
                write_image(difference / f"{frame.name}.fits", stack)
                found[frame.name] = {
                    "reference": reference.name,
                    "expected": asdict(expected_displacement(frame, reference)),
                    **asdict(alignment),
                }
        self.write_json("alignment.json", found)


class MakeContactSheet(CalibrationTask):
    """Bring all results together: a picture to look at and the numbers under it."""

    failure = FrameError("limb.json does not know this frame: earlier tasks worked on others")

    def run(self) -> None:
        """Write ``quality.json`` and ``contact_sheet.png``."""
        from solar_calibration.frames import read_frame, read_image
        from solar_calibration.sheet import Panel, draw_sheet

        results = {key: self.read_json(f"{key}.json") for key in ("background", "flat", "limb", "metrics", "alignment")}
        report, panels = {}, []
        for calibrated in self.frames("calibrated"):
            name = calibrated.name
            for key, result in results.items():
                if name not in result:
                    raise FrameError(f"{name}: {key}.json does not know this frame: earlier tasks worked on others")
            report[name] = {
                "label": calibrated.label,
                "observed": calibrated.observed.isoformat(),
                "derived": calibrated.known is not None,
                "header_radius_px": calibrated.radius_px,
                **{key: result[name] for key, result in results.items()},
            }
            raw = read_frame(self.folder / "raw" / f"{name}.fits")
            before, after = read_image(self.folder / "difference" / f"{name}.fits")
            panels.append(Panel(raw, calibrated, before, after, report[name]))
        self.write_json("quality.json", {"recipe_run_id": self.recipe_run_id, "frames": report})
        with self.telemetry_span("draw contact sheet"):
            draw_sheet(self.folder / "contact_sheet.png", panels)
        print(f"look at {self.folder / 'contact_sheet.png'}")
