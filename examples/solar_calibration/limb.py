"""
The solar limb: points where the disk ends, and the circle most of them agree on.

Not here: what the circle is used for.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from solar_calibration.errors import LimbNotFoundError
from solar_calibration.frames import Frame, Image
from solar_calibration.interpolation import brightness_at

_ANGLES_RAD = np.deg2rad(np.arange(0, 360, 2))
# Searched from well inside the disk to just outside, in units of the header's radius.
_SEARCH_RADII = np.arange(0.90, 1.06, 0.002)
_DISK_RADII = 0.95
# Prominences and active regions are narrower than nine rays of two degrees.
_SMOOTH_RAYS = 9
_FEWEST_POINTS = 90
# The raggedest limb of these frames scatters by 1.3 percent of its radius, points picked from noise by 3 and more.
_LARGEST_RMS_RADII = 0.025
_ROUNDS = 8
_SETTLED_PX = 0.002
# Tukey's constant: 95 % efficient on points without outliers. The floor keeps a perfect disk from rejecting its own
# points.
_TUKEY = 4.685
_SCALE_FLOOR_PX = 0.05


@dataclass(frozen=True, slots=True)
class Circle:
    """
    A circle in pixel coordinates and how well it fits.

    ``x``, ``y`` (column, row, from 0), ``radius`` and ``rms`` in pixels; rms is that of the ``points`` that were kept.
    """

    x: float
    y: float
    radius: float
    rms: float
    points: int


def fit_limb(frame: Frame) -> Circle:
    """Find the disk of a calibrated frame: points on the limb, then a circle, then again from the new centre."""
    circle = Circle(*frame.center_px, frame.radius_px, rms=0.0, points=0)
    for _ in range(_ROUNDS):
        former = circle
        x, y = limb_points(frame.data, (circle.x, circle.y), frame.radius_px, bright_rim=not frame.shows_photosphere)
        circle = fit_circle(x, y)
        if np.hypot(circle.x - former.x, circle.y - former.y) < _SETTLED_PX:
            break
    if circle.points < _FEWEST_POINTS:
        raise LimbNotFoundError(
            f"{frame.name}: {circle.points} of {_ANGLES_RAD.size} limb points agree on a circle, "
            f"at least {_FEWEST_POINTS} are needed"
        )
    if circle.rms > _LARGEST_RMS_RADII * circle.radius:
        raise LimbNotFoundError(
            f"{frame.name}: limb points scatter by {circle.rms:.2f} px about a circle of {circle.radius:.1f} px, "
            f"at most {_LARGEST_RMS_RADII:.1%} of that is a limb"
        )
    return circle


def limb_points(
    data: Image, center_px: tuple[float, float], radius_px: float, *, bright_rim: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """
    Find on each ray from the centre where the brightness is halfway between the disk and what follows it.

    What follows is the bright rim of the corona, seen edge-on, or in visible light the dark sky. Halfway is the same
    height in all channels, unlike the rim's maximum, which is higher the hotter the line. Returns columns and rows,
    in pixels.
    """
    cos, sin = np.cos(_ANGLES_RAD)[:, None], np.sin(_ANGLES_RAD)[:, None]
    distance = _SEARCH_RADII * radius_px
    rays = brightness_at(data, center_px[0] + cos * distance, center_px[1] + sin * distance)
    around = np.concatenate([rays[-(_SMOOTH_RAYS // 2) :], rays, rays[: _SMOOTH_RAYS // 2]])
    rays = np.median(sliding_window_view(around, _SMOOTH_RAYS, axis=0), axis=-1)
    if not bright_rim:
        rays = -rays
    disk = np.median(rays[:, _SEARCH_RADII < _DISK_RADII], axis=1)
    halfway = (disk + rays.max(axis=1)) / 2
    below = rays < halfway[:, None]
    # The last sample below halfway that comes before the extreme.
    below &= np.arange(distance.size) < rays.argmax(axis=1)[:, None]
    found = below.any(axis=1)
    index = distance.size - 1 - np.argmax(below[:, ::-1], axis=1)[found]
    rays, halfway = rays[found], halfway[found]
    ray = np.arange(index.size)
    low, high = rays[ray, index], rays[ray, index + 1]
    edge = distance[index] + (halfway - low) / (high - low) * (distance[1] - distance[0])
    return center_px[0] + edge * cos[found, 0], center_px[1] + edge * sin[found, 0]


def fit_circle(x: NDArray[np.float64], y: NDArray[np.float64]) -> Circle:
    """
    Fit a circle to points, robustly: points far from it lose their weight (Tukey's biweight).

    ``x`` and ``y`` of shape (points,) in pixels.
    """
    if x.size < _FEWEST_POINTS:
        raise LimbNotFoundError(
            f"the limb shows on {x.size} of {_ANGLES_RAD.size} rays, at least {_FEWEST_POINTS} are needed"
        )
    # Least squares with one common origin far away loses digits; the points' own middle keeps them.
    middle_x, middle_y = float(np.median(x)), float(np.median(y))
    u, v = x - middle_x, y - middle_y
    terms = np.stack([u, v, np.ones_like(u)], axis=1)
    weight = np.ones_like(u)
    for _ in range(30):
        a, b, c = np.linalg.lstsq(terms * weight[:, None], (u * u + v * v) * weight, rcond=None)[0]
        radius = np.sqrt(c + (a * a + b * b) / 4)
        residual = np.hypot(u - a / 2, v - b / 2) - radius
        scale = max(1.4826 * float(np.median(np.abs(residual))), _SCALE_FLOOR_PX)
        weight = np.clip(1 - (residual / (_TUKEY * scale)) ** 2, 0, None)
    kept = weight > 0
    rms = float(np.sqrt(np.mean(residual[kept] ** 2)))
    return Circle(float(middle_x + a / 2), float(middle_y + b / 2), float(radius), rms, int(kept.sum()))
