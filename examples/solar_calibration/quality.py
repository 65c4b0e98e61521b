"""
Quality of one frame in a few numbers that calibration should improve.

Not here: how well frames fit each other, which alignment tells.
"""

from dataclasses import dataclass

import numpy as np

from solar_calibration.errors import QualityError
from solar_calibration.flat_field import fit_mesh
from solar_calibration.frames import Frame, disk_distance

_DISK_RADII = 0.9
# Standard deviation of white noise after second differences along both axes (Immerkaer 1996).
_NOISE_GAIN = 6.0
_GAUSSIAN_MAD = 1.4826


@dataclass(frozen=True, slots=True)
class Quality:
    """
    Metrics of the disk of one frame, all without unit but ``lost_px``.

    ``contrast`` is the standard deviation over the mean, ``sharpness`` the mean gradient per pixel over the mean,
    ``signal_to_noise`` the standard deviation over the finest variation (fine structure of the Sun counts as noise,
    so it is a lower bound), ``mesh`` the depth of the filter mesh's shadow.
    """

    contrast: float
    sharpness: float
    signal_to_noise: float
    mesh: float
    lost_px: int


def measure_quality(frame: Frame) -> Quality:
    """Measure a frame, calibrated or not."""
    disk = disk_distance(frame.data.shape, frame.center_px, frame.radius_px) < _DISK_RADII
    light = frame.data[disk & np.isfinite(frame.data)]
    if light.size == 0 or np.mean(light) <= 0:
        raise QualityError(f"{frame.name}: the disk holds no light, so that contrast has no meaning")
    # A lost pixel makes its neighbours' gradient and noise NaN as well, and the NaN-aware means leave them out.
    gradient = np.hypot(*np.gradient(frame.data))
    # Second differences along both axes are blind to slopes and gentle curves, so that little but noise is left.
    finest = np.diff(np.diff(frame.data, 2, axis=0), 2, axis=1) / _NOISE_GAIN
    noise = _GAUSSIAN_MAD * np.nanmedian(np.abs(finest[disk[1:-1, 1:-1]]))
    return Quality(
        contrast=float(np.std(light) / np.mean(light)),
        sharpness=float(np.nanmean(gradient[disk]) / np.mean(light)),
        signal_to_noise=float(np.std(light) / noise),
        mesh=fit_mesh(frame.data).depth,
        lost_px=int(np.count_nonzero(~np.isfinite(frame.data))),
    )
