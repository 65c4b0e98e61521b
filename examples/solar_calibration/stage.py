"""
What the tasks of this pipeline have in common: a scratch folder, a loop over frames with progress, a switch to fail.

Not here: any science. Nothing scientific is imported either, so that a scheduler can read the workflow at no cost.
"""

# ruff: noqa: PLC0415 - astropy takes most of a second to import, which only a running task should pay
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dkist_processing_core import TaskBase
from solar_calibration.errors import CalibrationError, FrameError

if TYPE_CHECKING:
    from solar_calibration.frames import Frame

FOLDER_VARIABLE = "SOLAR_CALIBRATION_DIR"
FAIL_VARIABLE = "SOLAR_CALIBRATION_FAIL"


class CalibrationTask(TaskBase):
    """
    A task that works on frames and hands files to the next.

    ``failure`` is the error this task meets when ``SOLAR_CALIBRATION_FAIL`` names it: with ``:once`` behind the name in
    its first attempt only. Several names are separated by commas.
    """

    failure: ClassVar[CalibrationError]

    @property
    def folder(self) -> Path:
        """The scratch folder of this recipe run."""
        return Path(os.environ.get(FOLDER_VARIABLE) or "build/solar-calibration") / str(self.recipe_run_id)

    def frames(self, stage: str) -> Iterator["Frame"]:
        """Read the frames of an earlier stage one after the other, reporting progress."""
        from solar_calibration.frames import read_frame

        names = sorted(path.stem for path in (self.folder / stage).glob("*.fits"))
        if not names:
            raise FrameError(f"no frames in {self.folder / stage}: the task that writes them has not run")
        for name in self.each(names):
            yield read_frame(self.folder / stage / f"{name}.fits")

    def each(self, names: Sequence[str]) -> Iterator[str]:
        """Give each name in turn, reporting progress; fail half way if asked to."""
        asked = self._is_asked_to_fail()
        for done, name in enumerate(names):
            self.progress(done, len(names), unit="frame", note=name)
            if asked and done == len(names) // 2:
                error = type(self.failure)(f"{name}: {self.failure}")
                error.add_note(f"asked for by {FAIL_VARIABLE}")
                raise error
            yield name
        self.progress(len(names), len(names), unit="frame")

    def emptied(self, stage: str) -> Path:
        """Prepare the folder of this task's frames: what an earlier attempt left there is not of this run."""
        folder = self.folder / stage
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob("*.fits"):
            left_over.unlink()
        return folder

    def write_json(self, name: str, content: Any) -> None:
        """Write a result for later tasks, over that of an earlier attempt."""
        text = json.dumps(content, indent=2, allow_nan=False)
        (self.folder / name).write_text(f"{text}\n", encoding="utf-8")

    def read_json(self, name: str) -> Any:
        """Read a result of an earlier task."""
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    def _is_asked_to_fail(self) -> bool:
        asked = os.environ.get(FAIL_VARIABLE, "")
        often = dict(each.partition(":")[::2] for each in asked.split(",") if each)
        tasks = {task.__name__ for task in CalibrationTask.__subclasses__()}
        if not tasks.issuperset(often) or not {"", "once"}.issuperset(often.values()):
            # A misspelt name would otherwise look like a pipeline that cannot fail.
            raise ValueError(
                f"{FAIL_VARIABLE}={asked!r} names no task of this pipeline: one of {', '.join(sorted(tasks))}; "
                "names are separated by commas, and :once behind one lets only its first attempt fail"
            )
        name = type(self).__name__
        return name in often and (often[name] == "" or self._is_first_attempt())

    def _is_first_attempt(self) -> bool:
        """Leave a mark for the next attempt, which takes it away."""
        mark = self.folder / f"{type(self).__name__}.failed"
        if mark.exists():
            mark.unlink()
            return False
        mark.touch()
        return True
