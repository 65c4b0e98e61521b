"""The file of expected starts: its entries, the times that they expect, and the errors about wrong ones."""

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core.errors import ConfigurationError
from dkist_processing_core.watch.expect import Expected, expected_in
from dkist_processing_core.watch.starts import EARLY, LOOK_BACK, Starts
from tests.running import ROOT

NIGHTLY = {"workflow": "l0_to_l1_visp", "schedule": "30 2 * * *", "grace": "30m"}


def expected(**fields: str) -> Expected:
    """Return an entry, by default one for each night."""
    return Expected.model_validate(NIGHTLY | fields)


def utc(text: str) -> datetime:
    """Return a time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def written(folder: Path, text: str) -> Path:
    """Return the path of a file with this text."""
    path = folder / "expect.toml"
    path.write_text(text)
    return path


class TestFile:
    """The file as a user writes it."""

    def test_the_example_can_be_used(self) -> None:
        """It has an entry for any version in a time zone, and one for a version in UTC."""
        entries = expected_in(ROOT / "config" / "expect.example.toml")

        assert [(each.workflow, each.version, each.timezone, each.grace) for each in entries] == [
            ("l0_to_l1_visp", None, "Pacific/Honolulu", timedelta(minutes=45)),
            ("catalog_health", "1.2.3", "UTC", timedelta(minutes=10)),
        ]

    @pytest.mark.parametrize(
        ("field", "text", "found"),
        [
            ("workflow", '""', "''"),
            ("workflow", "5", "5"),
            ("version", "1.2", "1.2"),
            ("schedule", '"30 2 * *"', "'30 2 * *'"),
            ("schedule", '"0 30 2 * * *"', "'0 30 2 * * *'"),
            ("schedule", '"61 2 * * *"', "'61 2 * * *'"),
            ("schedule", '"0 0 31 2 *"', "'0 0 31 2 *'"),
            ("schedule", "2", "2"),
            ("timezone", '"Hawaii/Maui"', "'Hawaii/Maui'"),
            ("timezone", '"/etc/passwd"', "'/etc/passwd'"),
            ("timezone", '""', "''"),
            ("grace", '"30"', "'30'"),
            ("grace", "30", "30"),
            ("grace", '"-5m"', "'-5m'"),
            ("grace", '"999999999d"', "'999999999d'"),
        ],
    )
    def test_a_wrong_field_is_named_with_its_entry(self, tmp_path: Path, field: str, text: str, found: str) -> None:
        """The error has the file, the entry, the field, the value, and the form that is expected."""
        fields = {name: f'"{value}"' for name, value in NIGHTLY.items()} | {field: text}
        entry = "\n".join(f"{name} = {value}" for name, value in fields.items())
        first = '[[expect]]\nworkflow = "a"\nschedule = "0 0 * * *"\ngrace = "1h"\n'
        path = written(tmp_path, f"{first}[[expect]]\n{entry}")

        with pytest.raises(ConfigurationError) as caught:
            expected_in(path)

        named = "" if field == "workflow" else " ('l0_to_l1_visp')"
        assert str(caught.value).startswith(f"{path}: entry 2{named}, {field}: found {found}, expected ")
        assert "entry 1" not in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "found no entry, expected entries [[expect]] alone"),
            ("[[expects]]\n", "found 'expects', expected entries [[expect]] alone"),
            ('expect = "a"', "found 'a', expected entries [[expect]] alone"),
            ("expect = [1]", "entry 1, the entry: found 1, expected fields as workflow = …"),
            (
                "[[expect]]",
                "workflow: found nothing, expected one or more characters between quotes; entry 1, schedule",
            ),
            (
                '[[expect]]\nworkflow = "a"\nschedule = "0 0 * * *"\ngrace = "1h"\ngarce = 1',
                "entry 1 ('a'), garce: found a field of this name, expected one of workflow, version, schedule,",
            ),
            (
                2 * '[[expect]]\nworkflow = "a"\nschedule = "0 0 * * *"\ngrace = "1h"\n',
                "entry 2 ('a'): found the same as in entry 1, expected it once",
            ),
            ("expect", "is not in TOML: "),
        ],
    )
    def test_another_mistake_has_a_clear_error(self, tmp_path: Path, text: str, message: str) -> None:
        """Nothing is guessed: an unknown name is refused, with the known ones."""
        with pytest.raises(ConfigurationError) as caught:
            expected_in(written(tmp_path, text))

        assert message in str(caught.value)
        assert str(caught.value).startswith(str(tmp_path))

    def test_a_missing_file_is_named_with_the_option(self, tmp_path: Path) -> None:
        """The reason is that of the system."""
        with pytest.raises(ConfigurationError, match=r"none\.toml cannot be read: No such file.*--expect"):
            expected_in(tmp_path / "none.toml")


class TestTimes:
    """The times at which an entry expects a run."""

    def test_they_are_those_of_the_time_zone(self) -> None:
        """Half past six in Hawaii is half past four in the afternoon in UTC, on working days."""
        entry = expected(schedule="30 6 * * 1-5", timezone="Pacific/Honolulu")

        found = list(entry.times(utc("2026-11-20T16:30"), utc("2026-11-24T16:30")))

        assert found == [utc("2026-11-23T16:30"), utc("2026-11-24T16:30")]

    def test_a_time_of_day_that_does_not_exist_is_the_moment_of_the_change(self) -> None:
        """In Denver, 2:30 does not exist on the second Sunday in March: at 2:00 it is 3:00."""
        entry = expected(timezone="America/Denver")

        found = list(entry.times(utc("2026-03-07T12:00"), utc("2026-03-09T12:00")))

        assert found == [utc("2026-03-08T09:00"), utc("2026-03-09T08:30")]

    def test_a_time_of_day_that_exists_twice_is_due_once(self) -> None:
        """In Denver, 1:30 exists twice on the first Sunday in November, at 7:30 and at 8:30 in UTC."""
        entry = expected(schedule="30 1 * * *", timezone="America/Denver")

        found = list(entry.times(utc("2026-10-31T12:00"), utc("2026-11-02T12:00")))

        assert found == [utc("2026-11-01T07:30"), utc("2026-11-02T08:30")]

    @pytest.mark.parametrize(("day", "hours"), [("2026-03-08", 23), ("2026-11-01", 25), ("2026-06-01", 24)])
    def test_each_hour_is_due_once_in_a_day_of_any_length(self, day: str, hours: int) -> None:
        """A day has 23 hours when clocks are set forward, and 25 when they are set back."""
        zone = ZoneInfo("America/Denver")
        midnight = datetime.fromisoformat(day).replace(tzinfo=zone)
        end = (midnight + timedelta(days=1)).astimezone(UTC)

        found = list(expected(schedule="5 * * * *", timezone="America/Denver").times(midnight.astimezone(UTC), end))

        assert len(found) == hours
        assert {later - earlier for earlier, later in itertools.pairwise(found)} == {timedelta(hours=1)}

    @given(
        schedule=st.sampled_from(["30 2 * * *", "0 * * * *", "*/20 1-3 * * *", "15 0 1 * *", "0 12 * * 0"]),
        zone=st.sampled_from(["UTC", "America/Denver", "Europe/Berlin", "Australia/Lord_Howe", "Pacific/Honolulu"]),
        start=st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 1)),  # noqa: DTZ001 - the zone follows
        steps=st.lists(st.integers(1, 3000), min_size=1, max_size=10),
    )
    def test_they_do_not_depend_on_how_often_they_are_asked_for(
        self, schedule: str, zone: str, start: datetime, steps: list[int]
    ) -> None:
        """A watcher that judges each second finds the times of one that judges once a day, each once."""
        entry, begin = expected(schedule=schedule, timezone=zone), start.replace(tzinfo=UTC)
        moments = [begin]
        for step in steps:
            moments.append(moments[-1] + timedelta(minutes=step))

        found = [time for first, last in itertools.pairwise(moments) for time in entry.times(first, last)]

        assert found == list(entry.times(begin, moments[-1]))
        assert len(set(found)) == len(found)


class TestStarts:
    """Which expected starts were missed."""

    def test_a_start_is_missed_when_its_grace_is_over(self) -> None:
        """It is found once, by the first judgement from then on."""
        starts = Starts([expected()], utc("2026-11-22T00:00"))
        judged = ["2026-11-22T02:59:59", "2026-11-22T03:00:00", "2026-11-22T03:00:01", "2026-11-23T02:00:00"]

        found = [[each.expected_at for each in starts.missed(utc(time), lambda *_: False)] for time in judged]

        assert found == [[], [utc("2026-11-22T02:30")], [], []]

    @pytest.mark.parametrize(
        ("began", "number"),
        [("02:24:59", 1), ("02:25:00", 0), ("02:30:00", 0), ("03:00:00", 0), ("03:00:01", 1)],
    )
    def test_a_run_may_begin_five_minutes_early_and_up_to_its_grace_late(self, began: str, number: int) -> None:
        """A run of the day before, or one that is too late, does not count."""
        at = utc(f"2026-11-22T{began}")
        starts = Starts([expected()], utc("2026-11-22T00:00"))

        found = list(starts.missed(utc("2026-11-22T03:30"), lambda _, first, last: first <= at <= last))

        assert len(found) == number
        assert timedelta(minutes=5) == EARLY

    def test_after_a_pause_the_starts_of_the_last_day_are_checked(self) -> None:
        """A watcher that did not run for a week does not raise an alarm for each night of it."""
        starts = Starts([expected()], utc("2026-11-15T00:00"))

        found = list(starts.missed(utc("2026-11-22T12:00"), lambda *_: False))

        assert [each.expected_at for each in found] == [utc("2026-11-22T02:30")]
        assert timedelta(days=1) == LOOK_BACK

    def test_a_failure_of_the_store_leaves_no_start_unchecked(self) -> None:
        """The next call checks all of them again."""
        starts = Starts([expected(), expected(workflow="other")], utc("2026-11-22T00:00"))
        asked: list[str] = []

        def fails(entry: Expected, *_: datetime) -> bool:
            asked.append(entry.workflow)
            if len(asked) == 2:
                raise ConnectionError
            return False

        with pytest.raises(ConnectionError):
            list(starts.missed(utc("2026-11-22T03:00"), fails))
        found = list(starts.missed(utc("2026-11-22T03:00"), lambda *_: False))

        assert [each.entry.workflow for each in found] == ["l0_to_l1_visp", "other"]

    def test_a_clock_that_goes_back_checks_nothing_twice(self) -> None:
        """The time up to which all is known may be that of another process, which is a little behind."""
        starts = Starts([expected()], utc("2026-11-22T00:00"))
        judged = ["2026-11-22T03:00:00", "2026-11-22T02:00:00", "2026-11-22T03:00:00"]

        found = [len(list(starts.missed(utc(time), lambda *_: False))) for time in judged]

        assert found == [1, 0, 0]
