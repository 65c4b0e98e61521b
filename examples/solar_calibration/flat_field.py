"""
The gain of a detector behind a filter mesh: a fine periodic shadow along rows and along columns.

Not here: the offset of the readout. The mesh is found in how the fine structure *grows with* the light, so that a
constant offset cancels and the background can be estimated at the same time.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solar_calibration.errors import FlatFieldError
from solar_calibration.frames import Image
from solar_calibration.smoothing import box_mean, gaussian_mean

# The shadow's period of 21 readout pixels, seen after binning by 8, lies in this band (cycles per pixel).
_BAND = (0.31, 0.44)
# Steps so fine that the phase is right to a tenth of a radian at both ends of 128 pixels.
_FREQUENCIES = 261
# Solar structure alone reaches 4.3 standard errors in the frames without a mesh.
_SIGNIFICANT_SIGMAS = 5.5
# The wires are not quite evenly spaced, which one tone cannot follow.
_MOST_TONES = 5
# Passes less than a ten-thousandth of a wave of the band.
_SMOOTH_PX = 2.0
_NEIGHBOURHOOD_PX = 9
_CLIP = 5.0
_FEWEST_PX = 1000


@dataclass(frozen=True, slots=True)
class Tone:
    """
    A periodic modulation along one axis: ``cosine·cos(2πft) + sine·sin(2πft)`` at pixel t.

    ``frequency`` is in cycles per pixel, the coefficients are fractions of the light, ``sigmas`` their significance.
    """

    frequency: float
    cosine: float
    sine: float
    sigmas: float

    def profile(self, length: int) -> NDArray[np.float64]:
        """Modulation along the axis, shape (length,)."""
        phase = 2 * np.pi * self.frequency * np.arange(length)
        return np.asarray(self.cosine * np.cos(phase) + self.sine * np.sin(phase))


@dataclass(frozen=True, slots=True)
class Mesh:
    """The shadow of a filter mesh: the significant tones over the columns of a row and over the rows of a column."""

    over_columns: tuple[Tone, ...]
    over_rows: tuple[Tone, ...]

    @property
    def depth(self) -> float:
        """Amplitude of the deeper of the two modulations as a fraction of the light, 0 without any."""
        return max(
            float(np.sqrt(sum(t.cosine**2 + t.sine**2 for t in tones))) for tones in (self.over_columns, self.over_rows)
        )

    def gain(self, shape: tuple[int, ...]) -> Image:
        """Gain of each pixel, shape (rows, columns), 1 on average."""
        factors = [
            1 + np.sum([np.zeros(length), *(tone.profile(length) for tone in tones)], axis=0)
            for tones, length in zip((self.over_rows, self.over_columns), shape, strict=True)
        ]
        return np.outer(*factors)


def fit_mesh(data: Image) -> Mesh:
    """Find the shadow of a filter mesh in an image of shape (rows, columns), NaN where lost, any unit and offset."""
    valid = np.isfinite(data)
    if valid.sum() < _FEWEST_PX:
        raise FlatFieldError(f"only {valid.sum()} of {data.size} pixels arrived, at least {_FEWEST_PX} are needed")
    filled = np.where(valid, data, np.median(data[valid]))
    smooth = gaussian_mean(filled, _SMOOTH_PX)
    fine = filled - smooth
    # Active regions have fine structure of their own, so each pixel counts by the calm of its neighbourhood.
    scale = box_mean(np.abs(fine), _NEIGHBOURHOOD_PX) + 1e-3 * np.std(filled)
    weight = np.where(valid & (np.abs(fine) < _CLIP * scale), scale**-2, 0.0)
    light = smooth - np.average(smooth, weights=weight)
    # Turned so that the searched axis is always the second.
    over_rows = _significant_tones(fine.T, light.T, weight.T)
    return Mesh(over_columns=_significant_tones(fine, light, weight), over_rows=over_rows)


def _significant_tones(fine: Image, light: Image, weight: Image) -> tuple[Tone, ...]:
    """Take the strongest tone over the columns away, again and again, until what is left could be chance."""
    tones: list[Tone] = []
    while len(tones) < _MOST_TONES:
        tone, wave = _strongest_tone(fine, light, weight)
        if tone.sigmas < _SIGNIFICANT_SIGMAS:
            break
        tones.append(tone)
        fine = fine - wave
    return tuple(tones)


def _strongest_tone(fine: Image, light: Image, weight: Image) -> tuple[Tone, Image]:
    """Try all frequencies of the band; give the most significant and its wave in the image, shape (rows, columns)."""
    # A wave is the same in all rows, so the sums of the normal equations over the rows are made once.
    w0, w1, w2 = (np.sum(weight * light**power, axis=0) for power in range(3))
    f0, f1 = (np.sum(weight * light**power * fine, axis=0) for power in range(2))
    energy = float(np.sum(weight * fine**2))
    frequencies = np.linspace(*_BAND, _FREQUENCIES)
    phase = 2 * np.pi * frequencies[:, None] * np.arange(fine.shape[1])
    waves = np.stack([np.cos(phase), np.sin(phase)], axis=1)
    same, mixed, growing = ((waves * w) @ waves.transpose(0, 2, 1) for w in (w0, w1, w2))
    # Unknowns: the wave that does not grow with the light (due to the offset), and the wave that does (the gain).
    inverse = np.linalg.inv(np.block([[same, mixed], [mixed, growing]]))
    right = np.concatenate([waves @ f0, waves @ f1], axis=1)
    solution = np.einsum("fij,fj->fi", inverse, right)
    variance = (energy - np.sum(solution * right, axis=1)) / (np.count_nonzero(weight) - solution.shape[1])
    error = np.sqrt(variance * (inverse[:, 2, 2] + inverse[:, 3, 3]) / 2)
    sigmas = np.hypot(solution[:, 2], solution[:, 3]) / error
    best = int(np.argmax(sigmas))
    offset, gain = solution[best, :2], solution[best, 2:]
    tone = Tone(float(frequencies[best]), float(gain[0]), float(gain[1]), float(sigmas[best]))
    return tone, offset @ waves[best] + light * (gain @ waves[best])
