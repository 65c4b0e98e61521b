"""
Local means of an image, by two small matrix products.

Not here: scipy's filters. Importing them takes longer than all the smoothing of this pipeline.
"""

import numpy as np
from numpy.typing import NDArray

from solar_calibration.frames import Image


def gaussian_mean(image: Image, sigma_px: float) -> Image:
    """Smooth an image of shape (rows, columns) with a Gaussian; beyond the border nothing counts."""
    rows, columns = (np.exp(-0.5 * (_distances(length) / sigma_px) ** 2) for length in image.shape)
    return _weighted(rows, image, columns)


def box_mean(image: Image, width_px: int) -> Image:
    """Average an image of shape (rows, columns) over squares of odd width; beyond the border nothing counts."""
    rows, columns = ((_distances(length) <= width_px // 2).astype(np.float64) for length in image.shape)
    return _weighted(rows, image, columns)


def _distances(length: int) -> NDArray[np.float64]:
    position = np.arange(length, dtype=np.float64)
    return np.abs(position[:, None] - position)


def _weighted(rows: NDArray[np.float64], image: Image, columns: NDArray[np.float64]) -> Image:
    # Both kernels are separable, so the mean over rows and the mean over columns can follow one another.
    rows = rows / rows.sum(axis=1, keepdims=True)
    columns = columns / columns.sum(axis=1, keepdims=True)
    # Not `@`: BLAS would wake its threads even for so small a product, which takes far longer on a busy machine.
    return np.einsum("ij,kj->ik", np.einsum("ij,jk->ik", rows, image), columns)
