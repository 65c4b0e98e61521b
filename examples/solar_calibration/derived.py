"""
Derived frames: an observed Sun moved and turned by a known amount and seen through a known imperfect detector.

None of these was observed. They exist because calibration and alignment can only be verified where the truth is
known, and each says so in its header (``DERIVED``, ``KNOWNDX``, ``KNOWNDY``, ``KNOWNROT``) and in its ``HISTORY``.
"""

from dataclasses import dataclass, replace

import numpy as np

from solar_calibration.frames import Displacement, Frame, Image
from solar_calibration.interpolation import brightness_at

# EIT's frames show this shadow of the mesh that carries their front filter: periods of 2.7 pixels, a few percent deep.
MESH_CYCLES_PER_PX = 0.3725
_BLOCK_PX = 4


@dataclass(frozen=True, slots=True)
class Recipe:
    """
    How to make one frame from another.

    ``offset`` (the readout's pedestal), and ``noise`` (standard deviation of the reading) are in the unit of the
    source; ``mesh`` is the depth of the filter mesh's shadow as a fraction. ``seed`` fixes the noise.
    """

    source: str
    displacement: Displacement
    offset: float
    mesh: float
    noise: float
    seed: int


RECIPES = {
    "aia_171_derived_1": Recipe(
        "aia_171", Displacement(1.6, -0.8, 3.0), offset=850.0, mesh=0.04, noise=4.0, seed=20110215
    ),
    "aia_171_derived_2": Recipe(
        "aia_171", Displacement(-2.3, 1.2, -5.0), offset=850.0, mesh=0.04, noise=4.0, seed=20110216
    ),
    "hmi_6173_derived_1": Recipe(
        "hmi_6173", Displacement(0.7, 0.4, 4.0), offset=0.0, mesh=0.0, noise=250.0, seed=20140301
    ),
}


def derive_frame(source: Frame, name: str, recipe: Recipe) -> Frame:
    """Make the derived frame ``name`` from an observed one; same shape and unit, a 4 by 4 pixel block of it lost."""
    known = recipe.displacement
    data = displaced(source.data, source.center_px, known)
    data = data * mesh_gain(data.shape, recipe.mesh) + recipe.offset
    generator = np.random.default_rng(recipe.seed)
    data = data + generator.normal(0.0, recipe.noise, data.shape)
    row, column = generator.integers(data.shape[0] // 3, 2 * data.shape[0] // 3, size=2)
    data[row : row + _BLOCK_PX, column : column + _BLOCK_PX] = np.nan
    center = (source.center_px[0] + known.dx_px, source.center_px[1] + known.dy_px)
    # The centre in the header stays the source's, as a real header repeats where the telescope was told to point.
    return replace(
        source,
        name=name,
        data=data,
        known=known,
        history=(
            *source.history,
            f"DERIVED from {source.name}, not observed:",
            f"disk turned by {known.roll_deg:+} deg, moved by {known.dx_px:+}, {known.dy_px:+} px",
            f"to {center[0]:.3f}, {center[1]:.3f} (cubic interpolation)",
            f"filter mesh {recipe.mesh}, offset {recipe.offset}, noise {recipe.noise}, seed {recipe.seed}",
            f"{_BLOCK_PX} by {_BLOCK_PX} px block lost at column {column}, row {row}",
        ),
    )


def displaced(data: Image, center_px: tuple[float, float], by: Displacement) -> Image:
    """Turn an image about ``center_px`` and then move it, by cubic interpolation; shape (rows, columns) as before."""
    rows, columns = np.indices(data.shape, dtype=np.float64)
    x = columns - center_px[0] - by.dx_px
    y = rows - center_px[1] - by.dy_px
    angle = np.deg2rad(by.roll_deg)
    # Each pixel asks where its light came from, so the rotation is applied backwards.
    from_x = center_px[0] + np.cos(angle) * x + np.sin(angle) * y
    from_y = center_px[1] - np.sin(angle) * x + np.cos(angle) * y
    return brightness_at(data, from_x, from_y)


def mesh_gain(shape: tuple[int, ...], depth: float) -> Image:
    """Gain of a detector behind a square filter mesh: 1 on average, shape as given, no unit."""
    rows, columns = (1 + depth * np.cos(2 * np.pi * MESH_CYCLES_PER_PX * np.arange(n) + 0.6) for n in shape)
    return np.outer(rows, columns)
