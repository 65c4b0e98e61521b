"""
A solar frame as tasks hand it on: the pixels, the few facts calibration needs, and both as one FITS file.

Not here: where frames come from, which is the business of `sources` and `derived`.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from solar_calibration.errors import FrameError

Image = NDArray[np.float64]

# The photosphere is seen in visible light; below this wavelength the telescopes of this example see the corona.
_VISIBLE_ANGSTROM = 3000.0


@dataclass(frozen=True, slots=True)
class Displacement:
    """
    How the solar disk lies in one frame relative to another.

    ``dx_px`` and ``dy_px`` move the disk's centre along columns and rows, in detector pixels; ``roll_deg`` turns the
    disk about its own centre, positive from the column axis towards the row axis.
    """

    dx_px: float
    dy_px: float
    roll_deg: float


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """
    One exposure of the full solar disk.

    ``data`` has the shape (rows, columns), first row at the bottom; NaN marks pixels that were lost on the way to the
    ground. ``center_px`` is (column, row) of the Sun's centre counted from 0, and ``radius_px`` its photospheric
    radius in pixels: both as the header has them, not measured. ``scene`` names the frame that shows the same Sun and
    serves as reference. ``roll_deg`` is the telescope's roll, 180 when solar north points down. ``known`` is set in
    derived frames only.
    """

    name: str
    scene: str
    telescope: str
    wavelength_angstrom: float
    observed: datetime
    exposure_seconds: float
    unit: str
    center_px: tuple[float, float]
    radius_px: float
    roll_deg: float
    data: Image
    history: tuple[str, ...] = ()
    known: Displacement | None = None

    @property
    def is_reference(self) -> bool:
        """Whether the other frames of the scene are aligned to this one."""
        return self.name == self.scene

    @property
    def shows_photosphere(self) -> bool:
        """Whether the limb is a fall of brightness (visible light) and not the bright rim of the corona."""
        return self.wavelength_angstrom > _VISIBLE_ANGSTROM

    @property
    def label(self) -> str:
        """Telescope and wavelength for a reader, such as ``AIA 17.1 nm``."""
        return f"{self.telescope.rsplit('/', 1)[-1]} {self.wavelength_angstrom / 10:.1f} nm"


def disk_distance(shape: tuple[int, ...], center_px: tuple[float, float], radius_px: float) -> Image:
    """
    Measure how far each pixel lies from the disk's centre.

    Returns an array of the given shape in units of the radius: below 1 on the disk, above 1 in the sky.
    """
    rows, columns = np.indices(shape[:2], dtype=np.float64)
    return np.asarray(np.hypot(columns - center_px[0], rows - center_px[1]) / radius_px)


def write_frame(path: Path, frame: Frame) -> None:
    """Write a frame as one FITS file, over an earlier one of the same path."""
    header = fits.Header()
    header["FRAMEID"] = (frame.name, "name of this frame")
    header["SCENE"] = (frame.scene, "frame of the same Sun that others align to")
    header["TELESCOP"] = frame.telescope
    header["WAVELNTH"] = (frame.wavelength_angstrom, "[Angstrom]")
    header["DATE-OBS"] = (frame.observed.isoformat(), "UTC")
    header["EXPTIME"] = (frame.exposure_seconds, "[s]")
    header["BUNIT"] = frame.unit
    header["SUNX"] = (frame.center_px[0], "[pix] column of Sun centre, from 0, by header")
    header["SUNY"] = (frame.center_px[1], "[pix] row of Sun centre, from 0, by header")
    header["RSUNPX"] = (frame.radius_px, "[pix] photospheric radius, by header")
    header["SCROLL"] = (frame.roll_deg, "[deg] roll of the telescope")
    header["DERIVED"] = (frame.known is not None, "made from another frame, not observed")
    if frame.known is not None:
        header["KNOWNDX"] = (frame.known.dx_px, "[pix] disk moved along columns")
        header["KNOWNDY"] = (frame.known.dy_px, "[pix] disk moved along rows")
        header["KNOWNROT"] = (frame.known.roll_deg, "[deg] disk turned about its centre")
    for line in frame.history:
        header["HISTORY"] = line
    fits.PrimaryHDU(frame.data, header).writeto(path, overwrite=True)


def read_frame(path: Path) -> Frame:
    """Read a frame that `write_frame` wrote."""
    with fits.open(path, memmap=False) as units:
        header = units[0].header
        # FITS stores the most significant byte first; the numeric libraries want the machine's own order.
        data = np.array(units[0].data, dtype=np.float64)
    try:
        known = Displacement(header["KNOWNDX"], header["KNOWNDY"], header["KNOWNROT"]) if header["DERIVED"] else None
        return Frame(
            name=header["FRAMEID"],
            scene=header["SCENE"],
            telescope=header["TELESCOP"],
            wavelength_angstrom=header["WAVELNTH"],
            observed=datetime.fromisoformat(header["DATE-OBS"]),
            exposure_seconds=header["EXPTIME"],
            unit=header["BUNIT"],
            center_px=(header["SUNX"], header["SUNY"]),
            radius_px=header["RSUNPX"],
            roll_deg=header["SCROLL"],
            data=data,
            history=tuple(header["HISTORY"]) if "HISTORY" in header else (),
            known=known,
        )
    except KeyError as error:
        raise FrameError(f"{path.name} is no frame of this pipeline: {error}") from error


def write_image(path: Path, image: Image) -> None:
    """Write bare pixels (a background, a gain, a stack of differences) as one FITS file, over an earlier one."""
    fits.PrimaryHDU(image).writeto(path, overwrite=True)


def read_image(path: Path) -> Image:
    """Read pixels that `write_image` wrote, in the shape they had."""
    with fits.open(path, memmap=False) as units:
        return np.array(units[0].data, dtype=np.float64)
