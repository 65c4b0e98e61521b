"""
The variables and files on which the installed files, and therefore an environment's key, depend.

Names and bytes only. Not here: the translation of pip's settings for uv (_translation).
"""

# ruff: noqa: PTH109, PTH110, PTH111, PTH118, PTH120, PTH123 - paths are texts: importing pathlib takes longer than finding
from __future__ import annotations

import os
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# With these variables an installation would go elsewhere, or not happen: they are not passed to the installer.
REDIRECTING = frozenset(
    """
    PIP_DRY_RUN PIP_EDITABLE PIP_GROUP PIP_PREFIX PIP_PYTHON PIP_REPORT PIP_REQUIREMENT PIP_REQUIREMENTS_FROM_SCRIPT
    PIP_REQUIRE_VIRTUALENV PIP_ROOT PIP_TARGET PIP_USER PIP_UPGRADE PIP_FORCE_REINSTALL PIP_IGNORE_INSTALLED
    UV_ENV_FILE UV_MANAGED_PYTHON UV_NO_MANAGED_PYTHON UV_PROJECT UV_PROJECT_ENVIRONMENT UV_PYTHON UV_PYTHON_PREFERENCE
    UV_SYSTEM_PYTHON UV_VENV_CLEAR UV_VENV_RELOCATABLE UV_VENV_SEED UV_WORKING_DIR UV_WORKING_DIRECTORY
    """.split()  # noqa: SIM905 - quoted, they would fill a page
)
_WITHOUT_EFFECT = REDIRECTING | frozenset(
    """
    PIP_BREAK_SYSTEM_PACKAGES PIP_CACHE_DIR PIP_CERT PIP_CLIENT_CERT PIP_COMPILE PIP_CONFIG_FILE PIP_DEBUG
    PIP_DEFAULT_TIMEOUT PIP_DISABLE_PIP_VERSION_CHECK PIP_EXISTS_ACTION PIP_KEYRING_PROVIDER PIP_LOG PIP_LOG_FILE
    PIP_NO_CACHE_DIR PIP_NO_CLEAN PIP_NO_COLOR PIP_NO_COMPILE PIP_NO_INPUT PIP_NO_PYTHON_VERSION_WARNING
    PIP_NO_WARN_CONFLICTS PIP_NO_WARN_SCRIPT_LOCATION PIP_PROGRESS_BAR PIP_PROXY PIP_QUIET PIP_RESUME_RETRIES
    PIP_RETRIES PIP_ROOT_USER_ACTION PIP_SRC PIP_TIMEOUT PIP_TRUSTED_HOST PIP_USER_AGENT_USER_DATA PIP_VERBOSE
    UV_BREAK_SYSTEM_PACKAGES UV_CACHE_DIR UV_COMPILE_BYTECODE UV_COMPILE_BYTECODE_TIMEOUT UV_CONFIG_FILE
    UV_CREDENTIALS_DIR UV_FROZEN UV_HTTP_CONNECT_TIMEOUT UV_HTTP_RETRIES UV_HTTP_TIMEOUT UV_INSECURE_HOST
    UV_INSTALL_DIR UV_ISOLATED UV_KEYRING_PROVIDER UV_LINK_MODE UV_LOCKED UV_LOCK_TIMEOUT UV_LOG_CONTEXT UV_NATIVE_TLS
    UV_NO_CACHE UV_NO_DEV UV_NO_ENV_FILE UV_NO_PROGRESS UV_NO_SYNC UV_NO_WRAP UV_OFFLINE UV_PYTHON_CACHE_DIR
    UV_PYTHON_DOWNLOADS UV_REFRESH UV_REQUEST_TIMEOUT UV_RUN_MAX_RECURSION_DEPTH UV_RUN_RECURSION_DEPTH
    UV_SHOW_RESOLUTION UV_STACK_SIZE UV_SYSTEM_CERTS UV_UPLOAD_HTTP_TIMEOUT
    """.split()  # noqa: SIM905 - quoted, they would fill a page
)
_OF_OTHER_WORK = ("UV_CONCURRENT_", "UV_INIT_", "UV_PUBLISH_", "UV_PYTHON_INSTALL_", "UV_TEST_", "UV_TOOL_")
_CREDENTIALS = ("_PASSWORD", "_USERNAME")
_NAMING_FILES = frozenset(
    {"PIP_BUILD_CONSTRAINT", "PIP_CONSTRAINT", "UV_BUILD_CONSTRAINT", "UV_CONSTRAINT", "UV_EXCLUDE", "UV_OVERRIDE"}
)
_FURTHER = ("--constraint", "--requirement", "-c", "-r")
_SECTIONS = ("[global]", "[install]")
_END_OF_HOST = frozenset(" \t\r\n\f\v/?#")
_DEEPEST = 5


def relevant_settings(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """
    Return the variables and the contents of files that may change the installed files, without credentials.

    An unknown variable of pip or uv counts. Credentials do not: they change while the installed files stay the same.
    """
    found: list[tuple[str, str]] = []
    for name in sorted(environ):
        value = environ[name]
        if value and is_relevant(name):
            found += _meaning(name, name.upper(), value)
    for path in pip_files(environ):
        for section, name, value in _in_pip_file(text_of(path) or ""):
            variable = _variable("PIP_", name)
            if value and is_relevant(variable):
                found += _meaning(f"pip.conf {section}", variable, value)
    texts = [text for path in uv_files(environ) if (text := text_of(path)) is not None]
    return found + [("uv.toml", without_user_information(_of_uv_file(text))) for text in texts]


def _meaning(where: str, variable: str, value: str) -> Iterator[tuple[str, str]]:
    """Yield the contribution of one setting: the contents of the files that it names, or its own value."""
    if variable in _NAMING_FILES:
        yield from ((f"{where} {variable}", text) for path in value.split() for text in _contents(path))
        return
    yield f"{where} {variable}", without_user_information(value)
    if variable.endswith("FIND_LINKS") and not all(map(_is_absolute, value.replace(",", " ").split())):
        yield "folder", os.getcwd()


def _in_pip_file(text: str) -> Iterator[tuple[str, str, str]]:
    """
    Yield section, name and value of each setting in one of pip's files that an installation uses.

    The file is read by lines, since importing the standard library's parser takes longer than finding an environment. A
    line with a deeper indent continues the value before it.
    """
    section, name, value, level = "", "", "", 0
    for line in (*text.splitlines(), "["):
        plain = line.strip()
        if not plain or plain[0] in "#;":
            continue
        indent = len(line) - len(line.lstrip())
        if name and indent > level:
            value += f" {plain}"
            continue
        if name and section in _SECTIONS:
            yield section, name, value
        level = indent
        if plain[0] == "[":
            section, name = plain, ""
        else:
            end = min((at for at in (plain.find("="), plain.find(":")) if at >= 0), default=len(plain))
            # A line of another form is no setting of pip's, but its meaning is not known.
            name, value = plain[:end].strip(), plain[end + 1 :].strip() or ("" if end < len(plain) else plain)


def _of_uv_file(text: str) -> str:
    """Return the lines that count of one of uv's files: no comments, and no single settings without effect."""
    counting = []
    for line in map(str.strip, text.splitlines()):
        name, equals, _ = line.partition("=")
        variable = _variable("UV_", name.strip())
        # A line without a plain name is part of a longer value, such as a requirement in a list.
        if line and line[0] != "#" and not (equals and variable.isidentifier() and not is_relevant(variable)):
            counting.append(line)
    return "\n".join(counting)


def _variable(prefix: str, name: str) -> str:
    return prefix + name.removeprefix("--").replace("-", "_").upper()


def pip_files(environ: Mapping[str, str]) -> list[str]:
    """Return the paths of pip's settings files, existing or not; a later one outranks an earlier one."""
    named = environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return []
    home = _home(environ)
    everyone = [f"{folder}/pip/pip.conf" for folder in _system_folders(environ)]
    own = [f"{home}/.pip/pip.conf", f"{environ.get('XDG_CONFIG_HOME') or f'{home}/.config'}/pip/pip.conf"]
    # A named file replaces the user's own files, as in pip.
    own = [] if named and os.path.exists(named) else own
    return [*everyone, "/etc/pip.conf", *own, f"{sys.prefix}/pip.conf", *([named] if named else [])]


def uv_files(environ: Mapping[str, str]) -> list[str]:
    """Return the paths of uv's settings files, existing or not, except those of a project."""
    if environ.get("UV_NO_CONFIG", "").lower() in {"1", "true", "yes", "on", "t", "y"}:
        return []
    if named := environ.get("UV_CONFIG_FILE"):
        return [named]
    everyone = [f"{folder}/uv/uv.toml" for folder in _system_folders(environ)]
    own = f"{environ.get('XDG_CONFIG_HOME') or f'{_home(environ)}/.config'}/uv/uv.toml"
    return [*everyone, "/etc/uv/uv.toml", own]


def without_user_information(text: str) -> str:
    """
    Return a text whose URLs contain no user and no password.

    >>> without_user_information("https://reader:s3cret@index.example/simple ftp://one@two/")
    'https://index.example/simple ftp://two/'
    """
    first, *rest = text.split("://")
    parts = [first]
    for part in rest:
        end = next((at for at, letter in enumerate(part) if letter in _END_OF_HOST), len(part))
        parts.append(part[:end].rpartition("@")[2] + part[end:])
    return "://".join(parts)


def without_scheme(place: str) -> str:
    """Return the path in a URL of a file on this host; any other place unchanged."""
    if not place.lower().startswith(("file:///", "file://localhost/")):
        return place
    path = place[place.index("/", len("file://")) :]
    if "%" in path:
        from urllib.parse import unquote  # noqa: PLC0415 - rarely needed, and slow to import

        path = unquote(path)
    return path


def is_relevant(name: str) -> bool:
    """Return True if a variable of pip or uv, in any case and spelling, may change the installed files."""
    name = name.upper().replace("-", "_")
    return (
        name.startswith(("PIP_", "UV_"))
        and name not in _WITHOUT_EFFECT
        and not name.startswith(_OF_OTHER_WORK)
        and not name.endswith(_CREDENTIALS)
        and "TOKEN" not in name
    )


def _home(environ: Mapping[str, str]) -> str:
    return environ.get("HOME") or os.path.expanduser("~")


def _system_folders(environ: Mapping[str, str]) -> Iterable[str]:
    return [folder for folder in (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":") if folder]


def _is_absolute(place: str) -> bool:
    return place.startswith("/") or "://" in place


def text_of(path: str) -> str | None:
    """Return the content of a file, one character per byte, or None if it cannot be read or is not a regular file."""
    try:
        # Opening a pipe would block until a process writes to it.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb", buffering=0) as file:
            return file.read().decode("latin-1") if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None
    except OSError:
        return None


def _contents(path: str, depth: int = 0) -> Iterator[str]:
    """Yield the text of a file of constraints, and of the files that it names; for a URL, the URL itself."""
    path = without_scheme(path)
    text = None if "://" in path else text_of(path)
    yield without_user_information(path if text is None else text)
    for line in (text or "").splitlines() if depth < _DEEPEST else ():
        plain = line.strip()
        option = next((option for option in _FURTHER if plain.startswith(option)), None)
        if option is not None:
            named = without_scheme(plain.removeprefix(option).partition(" #")[0].lstrip("= \t").rstrip())
            yield from _contents(named if "://" in named else os.path.join(os.path.dirname(path), named), depth + 1)
