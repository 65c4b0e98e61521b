"""The layout of the library: short modules, no circles of imports, no import of another package's private module."""

from tests.house import FIELDS_WITH_NAMES_OF_THEIR_OWN, circles, modules_naming, private_imports
from tests.test_architecture import MODULES, ROOT

MOST_LINES = 400
MOST_MODULES_NAMING_A_FIELD = 4


def test_no_module_is_long() -> None:
    """A module can be read at once."""
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in MODULES}

    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_no_module_imports_itself_through_others() -> None:
    """A reader can begin with any module and follow its imports to an end, including inside a package."""
    assert circles() == []


def test_no_module_imports_a_private_module_of_another_package() -> None:
    """A module with an underscore may change without a look at other packages."""
    assert private_imports() == []


def test_the_name_of_a_field_is_in_few_modules() -> None:
    """Renaming a field of an event changes its declaration, the places that report it, and the one that draws it."""
    named = {field: modules_naming(field) for field in FIELDS_WITH_NAMES_OF_THEIR_OWN}

    assert {field: modules for field, modules in named.items() if len(modules) > MOST_MODULES_NAMING_A_FIELD} == {}
