"""The layout of the library: no module imports itself through others, and none a private module of another package."""

from tests.house import circles, private_imports


def test_no_module_imports_itself_through_others() -> None:
    """A reader can begin with any module and follow its imports to an end, inside a package too."""
    assert circles() == []


def test_no_module_imports_a_private_module_of_another_package() -> None:
    """A module with an underscore may change without a look at other packages."""
    assert private_imports() == []
