"""
Correction: from counts as recorded to light per second, with lost pixels filled from their neighbours.

Not here: how background and gain are found.
"""

from dataclasses import replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from solar_calibration.errors import CorrectionError
from solar_calibration.frames import Frame, Image

_LARGEST_LOSS = 0.1


def correct_frame(frame: Frame, background: Image, gain: Image) -> Frame:
    """
    Subtract the background, divide by gain and exposure, and fill lost pixels.

    Background in the frame's unit, gain without unit, both of the frame's shape; the result is in DN/s, without NaN.
    """
    if not frame.data.shape == background.shape == gain.shape:
        raise CorrectionError(f"{frame.name}: shapes differ: {frame.data.shape}, {background.shape}, {gain.shape}")
    rate = (frame.data - background) / gain / frame.exposure_seconds
    lost = int(np.count_nonzero(~np.isfinite(rate)))
    return replace(
        frame,
        data=fill_lost(rate),
        unit="DN/s",
        history=(
            *frame.history,
            f"Background {np.mean(background):.2f} subtracted, gain {gain.min():.4f} to {gain.max():.4f} divided out",
            f"Divided by {frame.exposure_seconds} s; {lost} lost pixels filled from neighbours",
        ),
    )


def fill_lost(data: Image) -> Image:
    """Replace NaN by the mean of the neighbours that arrived, from the rim of a gap inwards; shape (rows, columns)."""
    lost = np.count_nonzero(~np.isfinite(data))
    if lost > _LARGEST_LOSS * data.size:
        raise CorrectionError(f"{lost} of {data.size} pixels are lost, more than neighbours can make up for")
    filled = np.pad(data, 1, constant_values=np.nan)
    while np.isnan(inner := filled[1:-1, 1:-1]).any():
        neighbours = sliding_window_view(filled, (3, 3)).reshape(*data.shape, 9)
        known = np.isfinite(neighbours)
        count = known.sum(axis=-1)
        mean = np.where(known, neighbours, 0.0).sum(axis=-1) / np.maximum(count, 1)
        inner[:] = np.where(np.isnan(inner) & (count > 0), mean, inner)
    return filled[1:-1, 1:-1].copy()
