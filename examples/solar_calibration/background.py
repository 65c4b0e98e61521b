"""
The background of a frame: the readout's offset and stray light, as a smooth surface through the dark corners.

Not here: the detector's gain, see `flat_field`; the two are estimated side by side.
"""

from dataclasses import dataclass

import numpy as np

from solar_calibration.errors import BackgroundError
from solar_calibration.frames import Frame, Image, disk_distance

# Farther out the corona of a quiet Sun is fainter than the readout's noise.
_SKY_RADII = 1.45
_FEWEST_SKY_PX = 100
_CLIP_SIGMAS = 4.0
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Background:
    """
    Offset of every pixel of one frame.

    ``surface`` has the frame's shape and unit; ``noise`` is the standard deviation of the sky about it, in the same
    unit; ``sky_px`` counts the pixels it rests on, 0 where the frame shows no sky.
    """

    surface: Image
    noise: float
    sky_px: int


def estimate_background(frame: Frame) -> Background:
    """Fit a bilinear surface to the sky of a frame, leaving out what sticks out of it (hot pixels, streamers)."""
    rows, columns = np.indices(frame.data.shape, dtype=np.float64)
    y, x = rows / frame.data.shape[0] - 0.5, columns / frame.data.shape[1] - 0.5
    # EIT's corners differ by ten counts across the diagonal, hence the mixed term.
    terms = np.stack([np.ones_like(x), x, y, x * y], axis=-1)
    sky = (disk_distance(frame.data.shape, frame.center_px, frame.radius_px) > _SKY_RADII) & np.isfinite(frame.data)
    if sky.sum() < _FEWEST_SKY_PX:
        # HMI's continuum ends at the limb and carries no offset: nothing to subtract.
        return Background(np.zeros_like(frame.data), noise=0.0, sky_px=0)
    for _ in range(_ROUNDS):
        coefficients = np.linalg.lstsq(terms[sky], frame.data[sky], rcond=None)[0]
        residual = frame.data - terms @ coefficients
        noise = float(np.std(residual[sky]))
        kept = sky & (np.abs(residual) <= _CLIP_SIGMAS * noise)
        if kept.sum() == sky.sum():
            break
        sky = kept
    if sky.sum() < _FEWEST_SKY_PX:
        raise BackgroundError(f"{frame.name}: only {sky.sum()} sky pixels agree, at least {_FEWEST_SKY_PX} are needed")
    return Background(terms @ coefficients, noise, int(sky.sum()))
