"""
The notice that people get about groups of failures: a CloudEvent that routes deliver, and that no bus carries.

Not here: the events that it is about (facts), when it is issued and what it counts (notify).
"""

from typing import Annotated, ClassVar, Literal
from urllib.parse import quote

import msgspec

from dkist_processing_core.errors import DecodeError
from dkist_processing_core.events import _checks
from dkist_processing_core.events._kinds import Count, FreeText, UtcTime, about, prepare
from dkist_processing_core.events.codec import wire_form_of
from dkist_processing_core.events.event import Event
from dkist_processing_core.text import clean_line


class NoticeGroup(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, weakref=True):
    """Failures that are alike, as a notice counts them since the last notice about them."""

    event: Annotated[str, about("The name of the events that are counted, such as `task.failed`.")]
    family: Annotated[str | None, about("The family of the failures; of `task.failed` only.")] = None
    summary: Annotated[FreeText, about("The last of them in one line.")]
    count: Annotated[Count, about("The number of them since the last notice about them.")]
    muted: Annotated[Count, about("The number of those of them that occurred while they were muted.")] = 0
    total: Annotated[Count, about("The number of them since `beganAt`.")]
    is_over: Annotated[bool, about("Whether it is over: quiet for the route's time, or withdrawn, or ended.")] = False
    began_at: Annotated[UtcTime, about("The time at which the first of them since the last all-clear was counted.")]
    first_at: Annotated[UtcTime | None, about("The time of the first of `count`, by its event.")] = None
    last_at: Annotated[UtcTime | None, about("The time of the last of `count`, by its event.")] = None
    first_seen_at: Annotated[UtcTime | None, about("The time of the first failure of the family in the store.")] = None
    first_bad_version: Annotated[str | None, about("The version of the workflow with that failure.")] = None
    last_good_version: Annotated[
        str | None, about("The last version before that ran the task with success, by the store.")
    ] = None
    workflows: Annotated[dict[str, tuple[str, ...]], about("The workflows with their versions; at most 20.")] = {}
    tasks: Annotated[tuple[str, ...], about("The tasks; at most 20.")] = ()
    hosts: Annotated[tuple[str, ...], about("The hosts as far as the store knows them; at most 20.")] = ()
    run_count: Annotated[Count, about("The number of runs; 10,000 stands for more as well.")] = 0
    run_ids: Annotated[tuple[str, ...], about("The first of these runs; at most 3.")] = ()
    log_url: Annotated[FreeText | None, about("The address of the log of the last one.")] = None

    def __post_init__(self) -> None:
        """Check the values, and clean the text."""
        _checks.check(self)


class NoticeIssued(Event, frozen=True, kw_only=True, dict=True):
    """
    Signals that people are to be notified of failures.

    Its workflow, version and run are those of the last failure of its first group.
    """

    name: ClassVar[str] = "notice.issued"

    route: Annotated[str, about("The name of the route.")]
    series: Annotated[str, about("The series of the route's notices; a new one begins with a new database.")]
    sequence: Annotated[Count, about("The number of the notice in its series, from 1.")]
    kind: Annotated[
        Literal["first", "summary", "all_clear", "sample"],
        about(
            "`first` is the first notice about a group, `summary` what was counted since the last notices, `all_clear` "
            "that groups are over, and `sample` is sent by `dkist-core notify test`."
        ),
    ]
    count: Annotated[Count, about("The number of failures that it counts, over all groups.")]
    groups: Annotated[tuple[NoticeGroup, ...], about("The groups, that with the largest count first; at most 20.")]
    more_groups: Annotated[Count, about("The number of further groups, which are in `count`.")] = 0
    after_quiet_hours: Annotated[bool, about("Whether it has what was held during quiet hours.")] = False

    @property
    def number(self) -> str:
        """What distinguishes the notice from all others, as text."""
        return f"{self.route} {self.series} {self.sequence}"

    @property
    def source(self) -> str:
        """The CloudEvents source, a URI reference: the route."""
        return f"/notify/{quote(self.route)}"

    @property
    def subject(self) -> str:
        """The CloudEvents subject: `{route}/{sequence}`."""
        return clean_line(f"{self.route}/{self.sequence}")


def decode_notice(body: bytes) -> NoticeIssued:
    """
    Return the notice of a stored body, as `encode` has written it.

    Raises:
        DecodeError: The body is no notice.
    """
    form = wire_form_of(NoticeIssued)
    try:
        notice = form.event_of(form.decode(body), is_clean=False)
    except (msgspec.MsgspecError, ValueError) as error:
        msg = f"the body is no notice: {error}"
        raise DecodeError(msg) from error
    assert isinstance(notice, NoticeIssued)
    return notice


for _kind in (NoticeGroup, NoticeIssued):
    prepare(_kind)
