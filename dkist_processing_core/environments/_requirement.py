"""
The content of an environment: one release of one distribution, with extras.

Not here: other differences between two environments (_key).
"""

from __future__ import annotations

from dkist_processing_core.errors import EnvironmentRequestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Never, Self

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_OF_NAME = _LETTERS | frozenset("-_.")
_OF_VERSION = _LETTERS | frozenset("-_.+!")
_LONGEST = 200
_NAME = "letters, digits, and -, _ or . between them, as dkist-processing-vbi"
_VERSION = "a version of letters, digits and . + ! - _, as 1.2.3"


class Requirement:
    """
    A distribution's normalised name (PEP 503), its extras (PEP 685, sorted) and a version; it is immutable.

    Not a dataclass: importing the module dataclasses alone takes longer than finding an environment.
    """

    __slots__ = ("extras", "name", "version")
    name: str
    extras: tuple[str, ...]
    version: str

    def __init__(self, name: str, version: str, extras: Iterable[str] = ()) -> None:
        """
        Check and store the parts; the distribution's name may have any spelling.

        Raises:
            EnvironmentRequestError: A part is not valid. Values of all types are checked, since they reach an
                installer's command line.
        """
        if isinstance(extras, str):
            _refuse("extras", extras, "several texts")
        fields = {
            "name": _normalised("package", name),
            "version": _checked("version", version, _OF_VERSION, _VERSION),
            "extras": tuple(sorted({_normalised("extra", extra) for extra in extras})),
        }
        for field, value in fields.items():
            object.__setattr__(self, field, value)

    @classmethod
    def of(cls, package: str, version: str, extras: Iterable[str] = ()) -> Self:
        """
        Return the requirement that a workflow names; of a module's dotted name, only the first part counts.

        Raises:
            EnvironmentRequestError: A part is not valid.
        """
        _checked("package", package, _OF_NAME, _NAME)
        return cls(package.partition(".")[0], version, extras)

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Return the requirement in `name==version` or `name[extra,extra]==version`; here dots are part of the name.

        Raises:
            EnvironmentRequestError: The text has another form.
        """
        named, equals, version = text.partition("==")
        name, bracket, extras = named.strip().partition("[")
        if not equals or (bracket and not extras.endswith("]")):
            _refuse("requirement", text, "NAME==VERSION or NAME[EXTRA,EXTRA]==VERSION")
        listed = extras.removesuffix("]")
        return cls(
            name.strip(), version.strip(), [extra.strip() for extra in listed.split(",")] if listed.strip() else ()
        )

    def __setattr__(self, name: str, value: object) -> None:
        """Raise an AttributeError: a requirement is a key."""
        msg = f"a requirement cannot be changed: {name} to {value!r}"
        raise AttributeError(msg)

    def __eq__(self, other: object) -> bool:
        """Compare all three parts."""
        return isinstance(other, Requirement) and str(self) == str(other)

    def __hash__(self) -> int:
        """Return the hash of the compared text."""
        return hash(str(self))

    def __str__(self) -> str:
        """Return the requirement in the form that an installer takes."""
        extras = f"[{','.join(self.extras)}]" if self.extras else ""
        return f"{self.name}{extras}=={self.version}"

    def __repr__(self) -> str:
        """Return the class and the text."""
        return f"<Requirement {self}>"


def normalised(name: str) -> str:
    """Return a name as PEP 503 and PEP 685 write it."""
    return "-".join(part for part in name.replace("_", "-").replace(".", "-").split("-") if part).lower()


def _normalised(where: str, name: object) -> str:
    text = _checked(where, name, _OF_NAME, _NAME)
    if text[-1] not in _LETTERS:
        _refuse(where, name, _NAME)
    return normalised(text)


def _checked(where: str, value: object, allowed: frozenset[str], expected: str) -> str:
    if not isinstance(value, str) or not value or len(value) > _LONGEST:
        _refuse(where, value, f"{expected}, at most {_LONGEST} characters")
    if value[0] not in _LETTERS or not allowed.issuperset(value):
        _refuse(where, value, expected)
    return value


def _refuse(where: str, found: object, expected: str) -> Never:
    from dkist_processing_core.text import redact, show  # noqa: PLC0415 - for an error only

    shown = show(redact(found) if isinstance(found, str) else found)
    msg = f"{where} of an environment: found {shown}, expected {expected}"
    raise EnvironmentRequestError(msg)
