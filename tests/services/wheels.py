"""
Small real wheels, in a folder or behind a simple index, which installers install without a network.

Not here: the installers.
"""

import base64
import hashlib
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def make_wheel(
    folder: Path,
    name: str,
    version: str,
    *,
    requires: Iterable[str] = (),
    extras: Mapping[str, Iterable[str]] | None = None,
    files: Mapping[str, str] | None = None,
    wrongly: Mapping[str, str] | None = None,
) -> Path:
    """
    Write the wheel of a distribution: by default one module, which contains its version; each extra lists its
    requirements.

    The files of `wrongly` differ from their entries in its RECORD.
    """
    stem = f"{name.replace('-', '_')}-{version}"
    needed = [f"Requires-Dist: {each}\n" for each in requires]
    for extra, wanted in (extras or {}).items():
        needed.append(f"Provides-Extra: {extra}\n")
        needed += [f"Requires-Dist: {each}; extra == '{extra}'\n" for each in wanted]
    contents = {
        **(files or {f"{name.replace('-', '_')}.py": f"VERSION = {version!r}\n"}),
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{''.join(needed)}",
        f"{stem}.dist-info/WHEEL": WHEEL,
    }
    rows = [f"{path},sha256={_digest(text)},{len(text.encode())}\n" for path, text in contents.items()]
    record = f"{stem}.dist-info/RECORD"
    contents |= wrongly or {}
    contents[record] = f"{''.join(rows)}{record},,\n"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in contents.items():
            archive.writestr(inside, text)
    return path


def make_index(folder: Path, wheels: Iterable[Path]) -> str:
    """
    Write a simple index (PEP 503) of wheels, and return its URL.
    """
    pages: dict[str, list[str]] = {}
    for wheel in wheels:
        name = wheel.name.partition("-")[0].replace("_", "-").lower()
        pages.setdefault(name, []).append(f'<a href="{wheel.resolve().as_uri()}">{wheel.name}</a><br>')
    for name, links in pages.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "index.html").write_text(f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>")
    return folder.resolve().as_uri()


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
