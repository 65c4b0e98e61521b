"""
Alignment of two frames of one scene: roll from the polar image, shift from the phase of the spectrum.

Not here: the limb fit that starts it, and the drawing of its result.
"""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from solar_calibration.errors import AlignmentError
from solar_calibration.frames import Displacement, Frame, Image, disk_distance
from solar_calibration.interpolation import brightness_at
from solar_calibration.limb import Circle
from solar_calibration.smoothing import gaussian_mean

# The common grid: Sun in the middle, every disk of the same radius.
GRID_PX = 128
GRID_RADIUS_PX = 50.0
_MIDDLE = (GRID_PX - 1) / 2
_ANGLE_STEPS = 720
_POLAR_RADII = np.arange(0.30, 0.93, 0.02)
# Structure broader than this is the limb's darkening and the corona's glow, which do not turn with the Sun.
_BROAD_PX = 6.0
_WINDOW_RADII = (0.80, 0.95)
_LOWEST_CORRELATION = 0.3
# Between plain correlation (0) and pure phase (1), where noise and what is left of the mesh would have the same say
# as the Sun.
_WHITENING = 0.25
_DEGREES_PER_DAY = 13.2


@dataclass(frozen=True, slots=True)
class Alignment:
    """
    How a frame lies relative to its reference, and how alike the two are.

    ``displacement`` in pixels of the detector and degrees; ``correlation`` of the disk's fine structure, on a scale
    to 1, and ``residual``, the root mean square difference of the two once each is scaled to unit variance,
    ``_before`` and after.
    """

    displacement: Displacement
    correlation_before: float
    correlation: float
    residual_before: float
    residual: float


@dataclass(frozen=True, slots=True, eq=False)
class AlignedImages:
    """
    A frame on its reference's common grid, all of shape (128, 128).

    ``aligned`` in the frame's own unit; ``difference_before`` and ``difference`` from the reference, in standard
    deviations of the disk's fine structure, 0 outside of the disk.
    """

    aligned: Image
    difference_before: Image
    difference: Image


def align(frame: Frame, limb: Circle, reference: Frame, reference_limb: Circle) -> tuple[Alignment, AlignedImages]:
    """Find roll and shift of a calibrated frame against its reference, starting from the limbs of both."""
    # One telescope sees the limb a little higher or lower in each channel, but with the same plate scale: the
    # reference's radius, scaled by what the headers say, serves both.
    radius = reference_limb.radius * frame.radius_px / reference.radius_px
    fixed_grid = on_grid(reference.data, reference_limb.x, reference_limb.y, reference_limb.radius)
    moved_grid = on_grid(frame.data, limb.x, limb.y, radius)
    roll_deg = _find_roll(moved_grid, fixed_grid)
    fixed = fine_structure(fixed_grid)
    turned = fine_structure(on_grid(frame.data, limb.x, limb.y, radius, roll_deg))
    shift_x, shift_y = phase_shift(turned, fixed)
    # The shift was found on the turned grid; the detector has it the other way round and in its own pixels.
    angle, scale = np.deg2rad(roll_deg), radius / GRID_RADIUS_PX
    x = limb.x + scale * float(np.cos(angle) * shift_x - np.sin(angle) * shift_y)
    y = limb.y + scale * float(np.sin(angle) * shift_x + np.cos(angle) * shift_y)
    aligned = on_grid(frame.data, x, y, radius, roll_deg)
    fixed = _unit_variance(fixed)
    before = _unit_variance(fine_structure(on_grid(frame.data, reference_limb.x, reference_limb.y, radius)))
    after = _unit_variance(fine_structure(aligned))
    correlation = float(np.mean(after * fixed))
    if correlation < _LOWEST_CORRELATION:
        raise AlignmentError(
            f"{frame.name}: correlates only {correlation:.2f} with {reference.name}, "
            f"at least {_LOWEST_CORRELATION} is needed"
        )
    alignment = Alignment(
        displacement=Displacement(x - reference_limb.x, y - reference_limb.y, roll_deg),
        correlation_before=float(np.mean(before * fixed)),
        correlation=correlation,
        residual_before=float(np.std(before - fixed)),
        residual=float(np.std(after - fixed)),
    )
    return alignment, AlignedImages(aligned, before - fixed, after - fixed)


def on_grid(data: Image, x: float, y: float, radius: float, roll_deg: float = 0.0) -> Image:
    """Resample a disk, given in pixels and degrees, to the common grid of shape (128, 128), by cubic interpolation."""
    rows, columns = np.indices((GRID_PX, GRID_PX), dtype=np.float64)
    scale = radius / GRID_RADIUS_PX
    u, v = (columns - _MIDDLE) * scale, (rows - _MIDDLE) * scale
    angle = np.deg2rad(roll_deg)
    from_x = x + np.cos(angle) * u - np.sin(angle) * v
    from_y = y + np.sin(angle) * u + np.cos(angle) * v
    return brightness_at(data, from_x, from_y)


def fine_structure(grid: Image, *, window: bool = True) -> Image:
    """
    Bring out what moves with the Sun: logarithm, minus what is broad, faded out towards the limb.

    Takes and gives shape (128, 128); the result has no unit and, windowed, is 0 outside of the disk.
    """
    disk = disk_distance(grid.shape, (_MIDDLE, _MIDDLE), GRID_RADIUS_PX)
    floor = 0.05 * float(np.median(grid[disk < 1]))
    logarithm = np.log(np.maximum(grid, floor))
    fine = logarithm - gaussian_mean(logarithm, _BROAD_PX)
    if not window:
        return np.asarray(fine)
    weight = _window()
    return np.asarray((fine - np.average(fine, weights=weight)) * weight)


def phase_shift(moved: Image, fixed: Image) -> tuple[float, float]:
    """
    Find by how many pixels ``moved`` lies off ``fixed``, along columns and along rows.

    The peak of the partly whitened cross-correlation is found on whole pixels, then on ever finer grids around it,
    for which the Fourier sum is written out: a full transform as fine would be ten thousand times larger. Takes any
    two images of equal shape.
    """
    cross = np.fft.fft2(moved) * np.conj(np.fft.fft2(fixed))
    cross /= (np.abs(cross) + np.finfo(np.float64).tiny) ** _WHITENING
    correlation = np.fft.ifft2(cross).real
    peak = np.unravel_index(np.argmax(correlation), correlation.shape)
    shift = [index - size if index > size / 2 else float(index) for index, size in zip(peak, cross.shape, strict=True)]
    frequencies = [np.fft.fftfreq(size) for size in cross.shape]
    for step in (0.1, 0.01):
        offsets = np.arange(-12, 13) * step
        left = np.exp(2j * np.pi * np.outer(shift[0] + offsets, frequencies[0]))
        right = np.exp(2j * np.pi * np.outer(frequencies[1], shift[1] + offsets))
        # Not `@`, for the reason given in `smoothing`.
        around = np.einsum("ij,jk->ik", np.einsum("ij,jk->ik", left, cross), right).real
        row, column = np.unravel_index(np.argmax(around), around.shape)
        shift = [shift[0] + offsets[row], shift[1] + offsets[column]]
    return float(shift[1]), float(shift[0])


def expected_displacement(frame: Frame, reference: Frame) -> Displacement:
    """
    Tell how a frame should lie relative to its reference.

    For a derived frame that is known. For an observed one the telescope kept its pointing and the Sun rotated
    meanwhile: towards solar west, which a telescope rolled by 180 degrees has at its left.
    """
    if frame.known is not None:
        return frame.known
    disk = disk_distance((GRID_PX, GRID_PX), (_MIDDLE, _MIDDLE), GRID_RADIUS_PX)
    # The middle of the disk moves across the line of sight, its edge along it; alignment sees their mean.
    foreshortening = np.average(np.sqrt(np.clip(1 - disk**2, 0, None)), weights=_window())
    turned = np.deg2rad(_DEGREES_PER_DAY * ((frame.observed - reference.observed) / timedelta(days=1)))
    west, angle = float(frame.radius_px * turned * foreshortening), np.deg2rad(frame.roll_deg)
    return Displacement(west * float(np.cos(angle)), west * float(np.sin(angle)), 0.0)


def _find_roll(moved: Image, fixed: Image) -> float:
    # In the polar image a rotation is a shift along the angle, whatever the scene.
    _, steps = phase_shift(_polar(fine_structure(moved, window=False)), _polar(fine_structure(fixed, window=False)))
    return steps * 360 / _ANGLE_STEPS


def _polar(grid: Image) -> Image:
    """Unroll the disk to shape (angles, radii), each radius with a mean of zero."""
    angles = np.linspace(0, 2 * np.pi, _ANGLE_STEPS, endpoint=False)[:, None]
    distance = _POLAR_RADII * GRID_RADIUS_PX
    rays = brightness_at(grid, _MIDDLE + np.cos(angles) * distance, _MIDDLE + np.sin(angles) * distance)
    return np.asarray(rays - rays.mean(axis=0))


def _window() -> Image:
    inner, outer = _WINDOW_RADII
    disk = disk_distance((GRID_PX, GRID_PX), (_MIDDLE, _MIDDLE), GRID_RADIUS_PX)
    return np.asarray(np.sin(np.pi / 2 * np.clip((outer - disk) / (outer - inner), 0, 1)) ** 2)


def _unit_variance(image: Image) -> Image:
    return np.asarray((image - image.mean()) / image.std())
