"""
The observed frames: four full-disk images that the sunpy wheel carries as test data, decoded from their own headers.

Not here: frames made from these, see `derived`. sunpy itself is never imported, only its data files are read, because
the import would cost every task a second.
"""

import re
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from astropy.io import fits

from solar_calibration.errors import FrameError
from solar_calibration.frames import Frame, Image

EIT_195 = "EIT/efz20040301.000010_s.fits"
EIT_171 = "EIT/efz20040301.010016_s.fits"
AIA_171 = "aia_171_level1.fits"
HMI_6173 = "resampled_hmi.fits"

# Both EIT frames show the Sun of one hour, so they are one scene; SDO's two are three years apart.
_OBSERVED = {
    "aia_171": (AIA_171, "aia_171"),
    "eit_171": (EIT_171, "eit_195"),
    "eit_195": (EIT_195, "eit_195"),
    "hmi_6173": (HMI_6173, "hmi_6173"),
}


def data_folder() -> Path:
    """Find the folder of sunpy's test data without importing sunpy."""
    spec = find_spec("sunpy")
    places = [] if spec is None else [Path(place, "data", "test") for place in spec.submodule_search_locations or []]
    for place in places:
        if place.is_dir():
            return place
    raise FrameError(
        f"no sunpy test data in {places or 'this environment'}: pip install dkist-processing-core[examples]"
    )


def observed_names() -> tuple[str, ...]:
    """Names of the observed frames, in the order they are reported."""
    return tuple(_OBSERVED)


def read_observed(name: str, folder: Path | None = None) -> Frame:
    """Read one observed frame by name; pixels in the unit of the original file, lost ones as NaN."""
    file, scene = _OBSERVED[name]
    path = (folder or data_folder()) / file
    if not path.is_file():
        raise FrameError(f"{name}: {path} is missing: install sunpy>=6.0 from its wheel")
    # AIA and HMI keep the BLANK card of their integer originals, which means nothing for floating point.
    with fits.open(path, memmap=False, ignore_blank=True) as units:
        header, data = units[0].header, np.array(units[0].data, dtype=np.float64)
    decode = _decode_eit if header["TELESCOP"] == "SOHO" else _decode_sdo
    try:
        return decode(name, scene, header, data)
    except KeyError as error:
        raise FrameError(f"{name}: the header of {file} has no card {error}") from error


def _decode_eit(name: str, scene: str, header: fits.Header, data: Image) -> Frame:
    # CDELT1 and SOLAR_R still describe the 1024-pixel readout; the resampling to 128 pixels left them as they were. The
    # readout window stands in the comments.
    window = {key: int(value) for key, value in re.findall(r"(P[12]_X)\s*=\s*(\d+)", str(header["COMMENT"]))}
    binning = (window["P2_X"] - window["P1_X"] + 1) / header["NAXIS1"]
    # A telemetry block that never arrived is zero, far below the readout's offset of about 850 counts.
    lost = data == 0
    return Frame(
        name=name,
        scene=scene,
        telescope="SOHO/EIT",
        wavelength_angstrom=float(header["WAVELNTH"]),
        observed=datetime.fromisoformat(header["DATE-OBS"]).replace(tzinfo=UTC),
        exposure_seconds=header["EXPTIME"],
        unit="DN",
        center_px=(header["CRPIX1"] - 1, header["CRPIX2"] - 1),
        radius_px=header["SOLAR_R"] / binning,
        roll_deg=header["SC_ROLL"],
        data=np.where(lost, np.nan, data),
        history=(*_history(header), f"Observed frame; {lost.sum()} lost pixels set to NaN"),
    )


def _decode_sdo(name: str, scene: str, header: fits.Header, data: Image) -> Frame:
    roll_deg, scale = header["CROTA2"], header["CDELT1"]
    # World coordinates give the Sun's centre: where the helioprojective angles vanish.
    angle = np.deg2rad(roll_deg)
    x, y = -header["CRVAL1"] / scale, -header["CRVAL2"] / scale
    center = (
        header["CRPIX1"] - 1 + np.cos(angle) * x + np.sin(angle) * y,
        header["CRPIX2"] - 1 - np.sin(angle) * x + np.cos(angle) * y,
    )
    # HMI's continuum is cut off around the disk: that sky is dark, not lost.
    return Frame(
        name=name,
        scene=scene,
        telescope=header["TELESCOP"],
        wavelength_angstrom=float(header["WAVELNTH"]),
        observed=datetime.fromisoformat(header["DATE-OBS"]).replace(tzinfo=UTC),
        # HMI's continuum is composed of many exposures and comes as a rate already.
        exposure_seconds=header.get("EXPTIME", 1.0),
        unit="DN" if "EXPTIME" in header else "DN/s",
        center_px=(float(center[0]), float(center[1])),
        radius_px=header["RSUN_OBS"] / scale,
        roll_deg=roll_deg,
        data=np.nan_to_num(data, nan=0.0),
        history=(*_history(header), "Observed frame"),
    )


def _history(header: fits.Header) -> tuple[str, ...]:
    return tuple(line.strip() for line in header["HISTORY"]) if "HISTORY" in header else ()
