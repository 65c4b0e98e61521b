"""The layout of the library: short modules, no circles of imports, no import of another package's private module."""

import ast
import re

from tests.house import FIELDS_WITH_NAMES_OF_THEIR_OWN, circles, circles_of_parts, modules_naming, private_imports
from tests.test_architecture import MODULES, PACKAGE, ROOT

MOST_LINES = 400
MOST_MODULES_NAMING_A_FIELD = 4

# Modules that refer to each other, the imports for the type checker alone included, and why this is the plainer way.
MUTUAL = {
    "a workflow passes itself to the engine and to its rendering, which use its names, nodes and graph: otherwise "
    "seven arguments": {
        "export.rendering",
        "local.engine",
        "workflow",
    },
    "a bus opens its receivers, which connect through it: otherwise a second class of everything but `subscribe`": {
        "bus.amqp.archive",
        "bus.amqp.bus",
        "bus.amqp.consumer_thread",
        "bus.amqp.lost_events",
        "bus.amqp.named_queue",
        "bus.amqp.received",
        "bus.amqp.receiver",
    },
}


def test_no_module_is_long() -> None:
    """A module can be read at once."""
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in MODULES}

    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_no_module_imports_itself_through_others() -> None:
    """A reader can begin with any module and follow its imports to an end, including inside a package."""
    assert circles() == []


def test_no_package_imports_itself_through_those_beside_it() -> None:
    """The modules and packages of each package have an order in which a reader can learn them."""
    assert circles_of_parts() == []


def test_modules_refer_to_each_other_only_where_it_is_plainer() -> None:
    """Imports for the type checker also lead a reader from the top to the bottom."""
    found = [{name.removeprefix(f"{PACKAGE}.") for name in group} for group in circles(for_typing=True)]

    assert sorted(map(sorted, MUTUAL.values())) == sorted(map(sorted, found))


def test_no_module_imports_a_private_module_of_another_package() -> None:
    """A module with an underscore may change without a look at other packages."""
    assert private_imports() == []


def test_the_name_of_a_field_is_in_few_modules() -> None:
    """Renaming a field of an event changes its declaration, the places that report it, and the one that draws it."""
    named = {field: modules_naming(field) for field in FIELDS_WITH_NAMES_OF_THEIR_OWN}

    assert {field: modules for field, modules in named.items() if len(modules) > MOST_MODULES_NAMING_A_FIELD} == {}


def test_what_is_not_here_is_where_a_module_says() -> None:
    """A name in parentheses is that of a module or package, from the one that names it or from one above it."""
    missing = []
    for path in MODULES:
        _, _, elsewhere = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("Not here:")
        for names in re.findall(r"\(([^()]*)\)", elsewhere.partition("\n\n")[0]):
            for name in re.split(r",\s*", names):
                places = [folder.joinpath(*name.split(".")) for folder in path.relative_to(ROOT.parent).parents]
                if not any(
                    (ROOT.parent / place).is_dir() or (ROOT.parent / f"{place}.py").is_file() for place in places
                ):
                    missing.append((str(path.relative_to(ROOT)), name))

    assert missing == []
