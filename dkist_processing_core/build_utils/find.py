"""
Find the workflows that a package defines, each with the module that defines it.

Not here: the checks of the workflows (check), and their files (exports).
"""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType

from dkist_processing_core.errors import WorkflowError
from dkist_processing_core.text import show
from dkist_processing_core.text.exception_text import class_name, message_of
from dkist_processing_core.workflow import Workflow


@dataclass(frozen=True, slots=True)
class Found:
    """A workflow, and the full name of the module that defines it."""

    module: str
    workflow: Workflow

    def __str__(self) -> str:
        """Return the names of module and workflow and the version, as all messages show them."""
        return f"{self.module}: {self.workflow.workflow_name} {self.workflow.workflow_version}"


def imported(name: str) -> ModuleType:
    """
    Import a module of the package and return it.

    Raises:
        WorkflowError: The module cannot be imported; the cause is the exception that it raised. SystemExit counts too,
            since it would end a check with the module's exit code.
    """
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        text = " ".join(message_of(error).split())
        msg = f"{name} cannot be imported: {class_name(type(error))}{f': {text}' if text else ''}"
        raise WorkflowError(msg) from error


def public_modules(package: ModuleType) -> list[str]:
    """Return the sorted full names of a package's own public modules; none for a module that is not a package."""
    return sorted(f"{package.__name__}.{info.name}" for info in _parts(package) if not info.ispkg)


def subpackages(package: ModuleType) -> list[str]:
    """Return the full names of the public subpackages, which are not searched for workflows."""
    return sorted(f"{package.__name__}.{info.name}" for info in _parts(package) if info.ispkg)


def find_workflows(package: ModuleType) -> list[Found]:
    """
    Return the package's own workflows, each once, sorted by module and by the order of definition in the module.

    The package's `__init__` module comes last, since names that it imports from its modules belong to these modules. A
    workflow in several modules belongs to the module that does not import it. A workflow that is imported from another
    distribution is omitted.
    """
    if not isinstance(package, ModuleType):
        msg = f"found {show(package)}, expected a package, for example my_pipeline.workflows after its import"
        raise WorkflowError(msg)
    modules = [*(imported(name) for name in public_modules(package)), package]
    containing: dict[int, list[ModuleType]] = {}
    for module in modules:
        for workflow in _held(module):
            containing.setdefault(id(workflow), []).append(module)
    top = _top(package.__name__)
    return [
        Found(module.__name__, workflow)
        for module in modules
        for workflow in _held(module)
        if module is _defining_module(workflow, containing[id(workflow)], top)
    ]


def name_clashes(found: Iterable[Found]) -> Iterator[tuple[Found, str]]:
    """Yield each workflow whose file name equals another's, ignoring case, with a sentence about the problem."""
    first: dict[str, Found] = {}
    for each in found:
        other = first.setdefault(each.workflow.dag_name.lower(), each)
        if other is not each:
            yield (
                each,
                f"{each} would overwrite the file of {other}; give one of them another name, for example by its detail",
            )


def no_workflow_message(package: ModuleType) -> str:
    """Return a message that a package has no workflow, with the searched modules and the subpackages."""
    searched = ", ".join([*public_modules(package), package.__name__])
    inside = subpackages(package)
    hint = f"; subpackages are not searched: did you mean {' or '.join(inside)}?" if inside else ""
    return f"{package.__name__} defines no workflow; searched: {searched}{hint}"


def _parts(package: ModuleType) -> list[pkgutil.ModuleInfo]:
    return [info for info in pkgutil.iter_modules(getattr(package, "__path__", ())) if not info.name.startswith("_")]


def _held(module: ModuleType) -> list[Workflow]:
    """Return the workflows among a module's global names, in the order of definition."""
    # type() is used, since isinstance reads the value's `__class__`, and a proxy may raise an error then.
    values = {id(value): value for value in vars(module).values() if issubclass(type(value), Workflow)}
    return list(values.values())


def _defining_module(workflow: Workflow, modules: list[ModuleType], top: str) -> ModuleType | None:
    """Return the module that defines a workflow, or the first that contains it; None if another distribution does."""
    is_own = workflow.workflow_package is None or _top(workflow.workflow_package) == top
    if is_own and len(modules) == 1:
        return modules[0]
    defining = (module for module in modules if _names(module, workflow) - _imported_names(module))
    return next(defining, modules[0] if is_own else None)


def _top(name: str) -> str:
    return name.partition(".")[0]


def _names(module: ModuleType, workflow: Workflow) -> set[str]:
    return {name for name, value in vars(module).items() if value is workflow}


def _imported_names(module: ModuleType) -> set[str]:
    """Return a module's names from other modules: imported (any, with a star), or attributes of imported objects."""
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError):
        return set()
    names, modules = set[str](), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            given = {alias.asname or alias.name for alias in node.names}
            if "*" in given:
                given |= set(vars(module)) - _assigned_names(tree)
            names |= given
        elif isinstance(node, ast.Import):
            modules |= {alias.asname or _top(alias.name) for alias in node.names}
    taken = (node for node in ast.walk(tree) if isinstance(node, ast.Assign) and _root(node.value) in names | modules)
    return names | {target.id for node in taken for target in node.targets if isinstance(target, ast.Name)}


def _root(value: ast.expr) -> str | None:
    """Return the first name of a dotted name; None for a call or any other expression."""
    while isinstance(value, ast.Attribute):
        value = value.value
    return value.id if isinstance(value, ast.Name) else None


def _assigned_names(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
