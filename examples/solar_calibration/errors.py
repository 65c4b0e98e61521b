"""
What can go wrong in a calibration, by name.

Not here: errors of the file system or of the libraries, which keep their own names.
"""


class CalibrationError(Exception):
    """A frame or a whole observation cannot be calibrated."""


class FrameError(CalibrationError):
    """A frame is missing, or its header does not say what calibration needs to know."""


class BackgroundError(CalibrationError):
    """The sky of a frame does not tell the detector's offset."""


class FlatFieldError(CalibrationError):
    """The gain of a detector cannot be told from its frame."""


class CorrectionError(CalibrationError):
    """A frame cannot be brought from counts to light per second."""


class LimbNotFoundError(CalibrationError):
    """Too few points of the solar limb agree on one circle."""


class AlignmentError(CalibrationError):
    """Two frames do not show the same Sun."""


class QualityError(CalibrationError):
    """A quality metric has no meaning for a frame."""
