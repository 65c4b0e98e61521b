"""
The contact sheet: one row per frame, from the counts as recorded to the difference from its reference.

Not here: any measurement; what the sheet prints, it is given.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

from solar_calibration.frames import Frame, Image, disk_distance

_TITLES = ("as recorded", "calibrated, with its limb", "off its reference, before", "off its reference, aligned")
_PANEL_PX, _GAP_PX, _TITLE_PX, _TEXT_PX = 224, 6, 26, 340
_LINE_PX, _FONT_PX = 15, 12
# Stronger compression takes three times as long and saves a tenth.
_COMPRESSION = 3
_COLUMNS_PX = (235, 330)

# By custom each channel of these telescopes has its colour.
_COLOURS = {"EIT 19.5 nm": (0x3F, 0xAE, 0x49), "EIT 17.1 nm": (0x3B, 0x7D, 0xD8), "AIA 17.1 nm": (0xC9, 0xA2, 0x27)}
_OTHER_COLOUR = (0xB8, 0x65, 0x3A)
_LOST = (0xFF, 0x00, 0xFF)
_BLACK, _GRAY, _WHITE = (0, 0, 0), (0x80, 0x80, 0x80), (0xFF, 0xFF, 0xFF)
_BELOW, _ABOVE = (0x21, 0x66, 0xAC), (0xB2, 0x18, 0x2B)

# Percentiles drawn black and white. The corona spans decades; the photosphere hardly a factor of two, in two thirds
# of its frame.
_FAINTEST_CORONA, _FAINTEST_PHOTOSPHERE, _BRIGHTEST = 1.0, 30.0, 99.7
_DEVIATIONS = 3.0

_Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """
    One row of the sheet.

    ``before`` and ``after`` are differences from the reference, shape (128, 128), in standard deviations; ``numbers``
    is the frame's entry of ``quality.json``.
    """

    raw: Frame
    calibrated: Frame
    before: Image
    after: Image
    numbers: dict[str, Any]


def draw_sheet(path: Path, panels: Sequence[Panel]) -> None:
    """Draw the contact sheet as PNG; references come first in their scene."""
    rows = sorted(
        panels, key=lambda panel: (panel.calibrated.scene, not panel.calibrated.is_reference, panel.calibrated.name)
    )
    pitch = _PANEL_PX + _GAP_PX
    sheet = Picture.new("RGB", (_GAP_PX + len(_TITLES) * pitch + _TEXT_PX, _TITLE_PX + len(rows) * pitch), _WHITE)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_PX)
    for column, title in enumerate(_TITLES):
        middle = _GAP_PX + column * pitch + _PANEL_PX / 2
        draw.text((middle, _TITLE_PX / 2), title, fill=_BLACK, font=font, anchor="mm")
    for row, panel in enumerate(rows):
        top = _TITLE_PX + row * pitch
        for column, picture in enumerate(_pictures(panel)):
            left = _GAP_PX + column * pitch
            if picture is None:
                center = (left + _PANEL_PX / 2, top + _PANEL_PX / 2)
                draw.text(center, "reference", fill=_GRAY, font=font, anchor="mm")
            else:
                sheet.paste(picture, (left, top))
        left = _GAP_PX + len(_TITLES) * pitch + _GAP_PX
        for line, cells in enumerate(_lines(panel)):
            draw.text((left, top + line * _LINE_PX), cells[0], fill=_BLACK, font=font)
            for cell, end in zip(cells[1:], _COLUMNS_PX, strict=True):
                draw.text(
                    (left + end, top + line * _LINE_PX),
                    cell,
                    fill=_BLACK if cells[0] else _GRAY,
                    font=font,
                    anchor="ra",
                )
    sheet.save(path, format="PNG", compress_level=_COMPRESSION)


def _pictures(panel: Panel) -> Iterator[Picture.Image | None]:
    raw, frame, limb = panel.raw, panel.calibrated, panel.numbers["limb"]
    stops = (_BLACK, _COLOURS.get(frame.label, _OTHER_COLOUR), _WHITE)
    yield _picture(_coloured(raw.data, 0.0, float(np.nanpercentile(raw.data, _BRIGHTEST)), stops))
    light = frame.data if frame.shows_photosphere else np.sqrt(np.clip(frame.data, 0, None))
    faintest = _FAINTEST_PHOTOSPHERE if frame.shows_photosphere else _FAINTEST_CORONA
    low, high = np.percentile(light, [faintest, _BRIGHTEST])
    calibrated = _picture(_coloured(light, float(low), float(high), stops))
    yield _ringed(calibrated, limb["x"], limb["y"], limb["radius"], _PANEL_PX / frame.data.shape[0])
    for difference in (panel.before, panel.after):
        stops = (_BELOW, _WHITE, _ABOVE)
        yield None if frame.is_reference else _picture(_coloured(difference, -_DEVIATIONS, _DEVIATIONS, stops))


def _coloured(image: Image, low: float, high: float, stops: Sequence[_Colour]) -> NDArray[np.uint8]:
    """Map brightness to colours spread evenly from low to high; shape (rows, columns, 3), lost pixels magenta."""
    level = (image - low) / (high - low) * (len(stops) - 1)
    channels = [np.interp(level, range(len(stops)), channel) for channel in zip(*stops, strict=True)]
    colours = np.stack(channels, axis=-1)
    colours[~np.isfinite(image)] = _LOST
    return colours.round().astype(np.uint8)


def _picture(colours: NDArray[np.uint8]) -> Picture.Image:
    # A picture's first row is at the top, a frame's at the bottom.
    size = (_PANEL_PX, _PANEL_PX)
    return Picture.fromarray(np.ascontiguousarray(colours[::-1])).resize(size, Picture.Resampling.BICUBIC)


def _ringed(picture: Picture.Image, x: float, y: float, radius: float, scale: float) -> Picture.Image:
    """Draw a thin circle given in the frame's pixels, smooth-edged, which Pillow's own outline is not."""
    # Pixel centres are whole numbers, so the first pixel reaches from -0.5 to 0.5.
    center = ((x + 0.5) * scale - 0.5, picture.height - ((y + 0.5) * scale + 0.5))
    distance = disk_distance((picture.height, picture.width), center, 1.0)
    ink = np.clip(1.2 - np.abs(distance - radius * scale), 0, 1) * 255
    picture.paste(_WHITE, mask=Picture.fromarray(ink.astype(np.uint8)))
    return picture


def _lines(panel: Panel) -> list[tuple[str, str, str]]:
    """Make the table beside a row: a name and two numbers per line; a line without a name heads what follows."""
    frame, numbers = panel.calibrated, panel.numbers
    raw, calibrated, limb = numbers["metrics"]["raw"], numbers["metrics"]["calibrated"], numbers["limb"]
    lines = [
        (f"{frame.name}: {'derived, not observed' if numbers['derived'] else 'observed'}", "", ""),
        (f"{frame.label}, {frame.observed:%Y-%m-%d %H:%M} UTC", "", ""),
        ("", "recorded", "calibrated"),
        (f"background [{panel.raw.unit}]", f"{numbers['background']['mean']:.1f}", "0"),
        ("contrast", f"{raw['contrast']:.3f}", f"{calibrated['contrast']:.3f}"),
        ("sharpness", f"{raw['sharpness']:.3f}", f"{calibrated['sharpness']:.3f}"),
        ("filter mesh", f"{raw['mesh']:.1%}", f"{calibrated['mesh']:.1%}"),
        ("", "header", "fitted"),
        (f"limb radius [px], rms {limb['rms']:.2f}", f"{frame.radius_px:.2f}", f"{limb['radius']:.2f}"),
    ]
    if not frame.is_reference:
        alignment = numbers["alignment"]
        found, expected = alignment["displacement"], alignment["expected"]
        lines += [
            ("", "known" if numbers["derived"] else "solar rotation", "found"),
            ("shift along columns [px]", f"{expected['dx_px']:+.2f}", f"{found['dx_px']:+.2f}"),
            ("shift along rows [px]", f"{expected['dy_px']:+.2f}", f"{found['dy_px']:+.2f}"),
            ("roll [deg]", f"{expected['roll_deg']:+.2f}", f"{found['roll_deg']:+.2f}"),
            ("", "before", "aligned"),
            ("residual", f"{alignment['residual_before']:.2f}", f"{alignment['residual']:.2f}"),
        ]
    return lines
