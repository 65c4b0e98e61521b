"""
Brightness between pixels.

Not here: scipy's splines, which are smoother. Importing them takes longer than all the interpolation of this pipeline.
"""

import numpy as np
from numpy.typing import NDArray

from solar_calibration.frames import Image

# Four pixels on each axis take part in a value between the middle two (Keys 1981).
_REACH = np.arange(-1, 3)


def brightness_at(image: Image, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """
    Interpolate an image by cubic convolution.

    ``image`` has the shape (rows, columns); ``x`` (column) and ``y`` (row), counted from 0 at the middle of the first
    pixel, have any one shape, which the result takes on. Beyond the border the border's brightness holds.
    """
    rows, row_weights = _neighbours(y, image.shape[0])
    columns, column_weights = _neighbours(x, image.shape[1])
    values = np.zeros(np.broadcast_shapes(x.shape, y.shape))
    for row, row_weight in zip(rows, row_weights, strict=True):
        for column, column_weight in zip(columns, column_weights, strict=True):
            values += row_weight * column_weight * image[row, column]
    return values


def _neighbours(position: NDArray[np.float64], size: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find the four pixels around each position and their weights; both of shape (4, *position.shape)."""
    position = np.clip(position, 0, size - 1)
    first = np.floor(position).astype(np.int64)
    t = position - first
    weights = np.stack(
        [
            ((-0.5 * t + 1.0) * t - 0.5) * t,
            (1.5 * t - 2.5) * t * t + 1.0,
            ((-1.5 * t + 2.0) * t + 0.5) * t,
            (0.5 * t - 0.5) * t * t,
        ]
    )
    indices = np.clip(np.add.outer(_REACH, first), 0, size - 1)
    return indices, weights
