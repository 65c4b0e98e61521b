"""
The page about notices: the fields of the event that receivers get.

`python -m tests.notify.test_page` writes them into docs/how-to/notify.md. Not here: its commands (test_docs).
"""

import re
from pathlib import Path

import msgspec

from dkist_processing_core.events import Event
from dkist_processing_core.events.notice import NoticeGroup, NoticeIssued
from tests.generated import generated_by

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "notify.md"
_TABLE = re.compile(r"(?m)^\| field \| meaning \|\n\|---\|---\|\n(?:\|.*\n)+")


def table(kind: type[msgspec.Struct]) -> str:
    """
    Return the table of the fields of a class, without those that each event has.
    """
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    shared = {field.name for field in msgspec.structs.fields(Event)} if issubclass(kind, Event) else set()
    rows = [
        f"| `{field.encode_name}` | {description(field.type)} |\n" for field in info.fields if field.name not in shared
    ]
    return "".join(["| field | meaning |\n", "|---|---|\n", *rows])


def description(kind: msgspec.inspect.Type) -> str:
    """
    Return the meaning of a field, whose outermost annotation has it.
    """
    assert isinstance(kind, msgspec.inspect.Metadata)
    assert kind.extra_json_schema is not None
    return str(kind.extra_json_schema["description"])


def page(text: str) -> str:
    """
    Return a text of the page with the tables of this release.
    """
    tables = iter([table(NoticeIssued), table(NoticeGroup)])
    return _TABLE.sub(lambda _: next(tables), text)


@generated_by(".venv/bin/python -m tests.notify.test_page")
def test_the_page_has_each_field_of_a_notice() -> None:
    """
    With its meaning, as its class declares it.
    """
    text = PAGE.read_text(encoding="utf-8")

    assert len(_TABLE.findall(text)) == 2
    assert page(text) == text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
