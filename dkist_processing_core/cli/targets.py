"""
Import the workflow, the consumer (`MODULE:NAME`) or the package of workflows that a user names on the command line.

Not here: the use of them. The processes of the tasks load the tasks again by name. They must therefore find
the same modules as this process, with the same `sys.path`.
"""

import contextlib
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import typer

from dkist_processing_core.build_utils.find import imported
from dkist_processing_core.consumer import Consumer
from dkist_processing_core.text.exception_text import class_name, message_of
from dkist_processing_core.workflow import Workflow

_PACKAGE = Path(__file__).parent.parent
_SCRIPT_SUFFIX = ".py"
_Value = TypeVar("_Value", bound=Workflow | Consumer)


def load_workflow(target: str) -> Workflow:
    """
    Return the workflow for a user's `package.module:name` or `script.py:name`, or for either without a name.

    Raises:
        typer.BadParameter: There is no such workflow; the message lists the existing ones.
    """
    return _load(target, Workflow, "workflow", "MODULE:WORKFLOW, for example my_pipeline.workflows:my_workflow")


def load_consumer(target: str) -> Consumer:
    """
    Return the consumer for a user's text, as `load_workflow` does.

    Raises:
        typer.BadParameter: There is no such consumer; the message lists the existing ones.
    """
    return _load(target, Consumer, "consumer", "MODULE:CONSUMER, for example my_package.consumers:announcer")


def _load(target: str, kind: type[_Value], what: str, form: str) -> _Value:
    module_name, _, attribute = target.partition(":")
    module = _module(module_name, form)
    found: dict[str, _Value]
    # type() is used, since isinstance reads the value's `__class__`, and a proxy may raise an error then.
    found = {name: value for name, value in vars(module).items() if issubclass(type(value), kind)}
    listing = f"the {what}s in {module_name} are: {', '.join(found)}" if found else f"{module_name} defines no {what}"
    if not attribute:
        distinct = list({id(value): value for value in found.values()}.values())
        if len(distinct) == 1:
            return distinct[0]
        raise typer.BadParameter(
            f"{listing}; name one, for example {module_name}:{next(iter(found))}"
            if found
            else f"{listing}; expected one"
        )
    if not hasattr(module, attribute):
        raise typer.BadParameter(f"{module_name} has no {attribute!r}; {listing}")
    value = getattr(module, attribute)
    if not isinstance(value, kind):
        found_kind = "class" if isinstance(value, type) else type(value).__name__
        raise typer.BadParameter(f"{target} is a {found_kind}, expected a {kind.__name__}; {listing}")
    return value


def load_package(name: str) -> ModuleType:
    """
    Import and return the package of this name; as with `python -m`, the current folder comes first.

    Raises:
        typer.BadParameter: There is no package of this name.
        WorkflowError: The package exists, but cannot be imported.
    """
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        raise typer.BadParameter(f"found {name!r}, expected the name of a package, for example my_pipeline.workflows")
    _put_current_folder_first()
    # The outer packages first: they are imported before the inner ones, and any of them may be missing.
    for at in range(1, len(parts) + 1):
        outer = ".".join(parts[:at])
        if outer not in sys.modules and importlib.util.find_spec(outer) is None:
            raise _missing("package", outer)
        module = imported(outer)
        if at < len(parts) and not hasattr(module, "__path__"):
            raise typer.BadParameter(f"{outer} is a module, not a package: it has no {parts[at]!r} inside")
    return module


def _module(name: str, form: str) -> ModuleType:
    if name.endswith(_SCRIPT_SUFFIX):
        return _script(Path(name), form)
    # As with `python -m`, modules in the current folder come first.
    _put_current_folder_first()
    return _import(name, name, form)


def _script(path: Path, form: str) -> ModuleType:
    """
    Import a script by its name, with its folder on `sys.path`, as `python script.py` does.

    The code that it guards by `__name__ == "__main__"` is not run.
    """
    if not path.is_file():
        raise typer.BadParameter(f"there is no file {str(path)!r} in {Path.cwd()}")
    if not path.stem.isidentifier():
        raise typer.BadParameter(
            f"{str(path)!r} cannot be imported: {path.stem!r} is not a valid name of a module; rename the file"
        )
    _put_first(path.resolve().parent)
    module = _import(path.stem, str(path), form)
    if module.__file__ is None or Path(module.__file__).resolve() != path.resolve():
        raise typer.BadParameter(
            f"{str(path)!r} cannot be imported: another module has the name {path.stem!r}; rename the file"
        )
    return module


def _put_current_folder_first() -> None:
    # A removed folder holds no module; the workflow may be installed.
    with contextlib.suppress(FileNotFoundError):
        _put_first(Path.cwd())


def _put_first(folder: Path) -> None:
    if str(folder) not in sys.path[:1]:
        sys.path.insert(0, str(folder))


def _import(name: str, shown: str, form: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise typer.BadParameter(f"found {shown!r}, expected {form}")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise _missing("module", error.name) from error
        raise _unimportable(shown, error) from error
    except (Exception, SystemExit) as error:
        raise _unimportable(shown, error) from error


def _missing(kind: str, name: str) -> typer.BadParameter:
    try:
        current = str(Path.cwd())
    except FileNotFoundError:
        current = "removed"
    places = f"the current folder ({current}) nor an installed package or PYTHONPATH"
    return typer.BadParameter(f"there is no {kind} {name!r}: neither in {places}")


def _unimportable(shown: str, error: BaseException) -> typer.BadParameter:
    """Return an error that helps an author to find the mistake: the exception and its last place in their code."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and not Path(frame.filename).is_relative_to(_PACKAGE)
    ]
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    reason = ": ".join(part for part in (class_name(type(error)), message_of(error)) if part)
    return typer.BadParameter(f"{shown} cannot be imported: {reason}{where}; `dkist-core --debug` shows the traceback")
