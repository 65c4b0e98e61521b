"""
Tests of the functions that a pipeline's tests and release call: they find, check and export workflows.

Not here: the content of an exported file (test_export), and the command line (test_cli_workflows).
"""

import importlib
import io
import logging
import os
import py_compile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dkist_processing_core.build_utils import (
    export,
    export_archive,
    export_dags,
    export_notebook_dockerfile,
    export_notebooks,
    extract_workflows_from_package,
    validate_workflows,
)
from dkist_processing_core.build_utils.find import find_workflows
from dkist_processing_core.errors import WorkflowError
from tests.clients import TASKS, importing, module, workflow, write_package

Make = Callable[[Mapping[str, str]], ModuleType]
EMPTY = """
from dkist_processing_core import Workflow
{0} = Workflow(process_category="no", process_name="{0}", workflow_package=__package__, workflow_version="1")
"""


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """
    A function that creates a package `scratch` of modules.
    """
    with ExitStack() as stack:

        def write(files: Mapping[str, str]) -> ModuleType:
            write_package(tmp_path, files)
            return stack.enter_context(importing(tmp_path))

        yield write


def names(package: ModuleType) -> list[str]:
    """
    Return the names of the workflows that were found.
    """
    return [each.workflow_name for each in extract_workflows_from_package(package)]


def files_below(folder: Path) -> set[str]:
    """
    Return the files in a folder, including hidden ones.
    """
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# Finding


def test_workflows_are_found_in_a_fixed_order(make: Make) -> None:
    """
    Modules come in the order of their names, workflows in the order of definition, and the package's own file last.
    """
    package = make({"b.py": module("z", "a"), "a.py": module("m"), "__init__.py": module("own")})

    assert names(package) == ["scratch_m", "scratch_z", "scratch_a", "scratch_own"]


def test_private_modules_and_subpackages_are_not_looked_in(make: Make) -> None:
    """
    A name with a leading underscore is private, and a package inside is another package.
    """
    package = make({"_draft.py": module("draft"), "inside/__init__.py": module("inside"), "a.py": module("a")})

    assert names(package) == ["scratch_a"]


def test_an_imported_workflow_counts_where_it_is_defined(make: Make) -> None:
    """
    However often it is imported, including by the package itself and by a module of an earlier name, it is listed once.
    """
    package = make(
        {
            "__init__.py": "from scratch.c import c as shown\n",
            "a.py": "from scratch.c import c, c as again\n" + module("a"),
            "b.py": "from scratch.c import *\nother = 1\n",
            "ba.py": "import scratch.c\nfrom scratch import c as module\none = scratch.c.c\nother = more = module.c\n",
            "c.py": module("c"),
        }
    )

    assert names(package) == ["scratch_a", "scratch_c"]


def test_a_workflow_with_two_names_is_found_once(make: Make) -> None:
    """
    A second name does not define a second workflow.
    """
    assert names(make({"a.py": module("a") + "same = a\n"})) == ["scratch_a"]


def test_a_workflow_of_a_private_module_counts_where_it_is_shown(make: Make) -> None:
    """
    If no public module defines it, the first module that holds it counts.
    """
    package = make({"_made.py": module("made"), "a.py": "from scratch._made import made\n"})

    assert names(package) == ["scratch_made"]


def test_a_workflow_that_is_taken_from_another_distribution_s_module_is_not_the_packages(
    make: Make, tmp_path: Path
) -> None:
    """
    This holds if the package gives it another name.
    """
    write_package(tmp_path, {"flows.py": module("theirs")}, name="elsewhere")
    package = make({"a.py": "import elsewhere.flows\nshown = elsewhere.flows.theirs\n" + module("ours")})

    assert names(package) == ["scratch_ours"]


@pytest.mark.parametrize("name", ["01-l0", "x{{ 1 }}", "class"])
@pytest.mark.parametrize("exporting", [export_dags, export_notebooks, validate_workflows])
def test_a_module_that_no_statement_imports_is_refused(
    make: Make, tmp_path: Path, name: str, exporting: Callable[[ModuleType, Path], object]
) -> None:
    """
    The import system finds its file, but neither a worker nor a notebook would.
    """
    with pytest.raises(
        WorkflowError, match=r"its module 'scratch\..*' cannot be named by an import statement; rename the file$"
    ):
        exporting(make({f"{name}.py": module("a")}), tmp_path / "out")


def test_a_workflow_of_another_distribution_is_not_the_packages(make: Make, tmp_path: Path) -> None:
    """
    The release to which it belongs exports it.
    """
    write_package(tmp_path, {"flows.py": module("theirs")}, name="elsewhere")
    package = make({"a.py": "from elsewhere.flows import theirs\n" + module("ours")})

    assert names(package) == ["scratch_ours"]


def test_a_workflow_of_tasks_from_elsewhere_is_the_packages_own(make: Make) -> None:
    """
    The tasks may be in another package than the workflow's definition.
    """
    package = make({"a.py": TASKS + workflow("ours", package="'elsewhere'")})

    assert names(package) == ["scratch_ours"]


def test_a_module_without_source_defines_what_it_holds(make: Make, tmp_path: Path) -> None:
    """
    A release may be deployed compiled.
    """
    folder = write_package(tmp_path, {"c.py": module("c")})
    py_compile.compile(str(folder / "c.py"), cfile=str(folder / "c.pyc"))
    (folder / "c.py").unlink()
    package = make({"a.py": "from scratch.c import c\n"})

    (found,) = find_workflows(package)

    assert found.module == "scratch.c"


def test_a_module_that_is_no_package_is_looked_in_alone(make: Make) -> None:
    """
    A single file may hold a pipeline.
    """
    make({"a.py": module("a"), "b.py": module("b")})

    assert names(importlib.import_module("scratch.a")) == ["scratch_a"]


def test_a_package_without_workflows_gives_none(make: Make) -> None:
    """
    A search without a result is not an error.
    """
    assert names(make({"a.py": "x = 1\n"})) == []


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import not_there\n", "ModuleNotFoundError: No module named 'not_there'"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("raise SystemExit\n", "SystemExit"),
        ("def broken(:\n", "SyntaxError: invalid syntax"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_with_its_error(make: Make, source: str, told: str) -> None:
    """
    The cause is kept; one that ends the interpreter cannot end a check with success.
    """
    package = make({"a.py": module("a"), "broken.py": source})

    with pytest.raises(WorkflowError, match=rf"^scratch\.broken cannot be imported: {told}") as raised:
        extract_workflows_from_package(package)

    assert type(raised.value.__cause__).__name__ == told.partition(":")[0]


def test_two_workflows_of_one_name_are_refused_with_both_modules(make: Make) -> None:
    """
    One would overwrite the file of the other, on some file systems even if only the case differs.
    """
    package = make({"a.py": module("Same"), "b.py": module("same"), "c.py": module("same", version="1.1")})

    with pytest.raises(
        WorkflowError,
        match=r"^scratch\.b: scratch_same 1\.0 would overwrite the file of scratch\.a: scratch_Same "
        r"1\.0; give one of them another name",
    ):
        extract_workflows_from_package(package)


@pytest.mark.parametrize("package", ["scratch", None, Path("scratch"), ModuleType, [pytest]])
@pytest.mark.parametrize(
    "function",
    [
        extract_workflows_from_package,
        validate_workflows,
        export_dags,
        export_archive,
        export_notebooks,
        export_notebook_dockerfile,
    ],
)
def test_what_is_no_module_is_refused_by_each(function: Callable[..., object], package: Any, tmp_path: Path) -> None:
    """
    This applies to its name: the sentence shows how to get a package. No file is written.
    """
    places = () if function is extract_workflows_from_package else (tmp_path / "out",)

    with pytest.raises(
        WorkflowError, match=r"^found .{1,40}, expected a package, for example my_pipeline\.workflows after its import$"
    ):
        function(package, *places)

    assert files_below(tmp_path) == set()


# Checking


def test_a_sound_package_is_valid_and_leaves_nothing_behind(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    An unrelated folder `export` stays unchanged.
    """
    package = make({"a.py": module("a")})
    here = tmp_path / "here"
    (here / "export").mkdir(parents=True)
    (here / "export" / "mine").write_text("precious")
    monkeypatch.chdir(here)

    validate_workflows(package)

    assert files_below(here) == {"export/mine"}


def test_valid_workflows_stay_where_that_is_wanted(make: Make, tmp_path: Path) -> None:
    """
    Existing files stay in addition.
    """
    package = make({"a.py": module("a", "b")})
    folder = tmp_path / "new" / "folder"
    folder.mkdir(parents=True)
    (folder / "mine").write_text("precious")

    validate_workflows(package, str(folder))

    assert files_below(folder) == {"mine", "scratch_a_1.0.py", "scratch_b_1.0.py"}


def test_all_that_is_wrong_is_said_at_once(make: Make, tmp_path: Path) -> None:
    """
    An author can correct all errors at once; each names its module and its workflow.
    """
    package = make(
        {
            "a.py": EMPTY.format("first") + EMPTY.format("second"),
            "b.py": TASKS + workflow("script", package="None"),
            "c.py": module("fine"),
            "d.py": module("fine"),
        }
    )

    with pytest.raises(WorkflowError) as raised:
        validate_workflows(package, tmp_path / "out")

    lines = str(raised.value).splitlines()
    assert lines[0] == "found 4 problems:"
    assert [line.split(":")[0] for line in lines[1:]] == ["- scratch.d", "- scratch.a", "- scratch.a", "- scratch.b"]
    assert ["scratch.a: no_second 1: " in line for line in lines] == [False, False, False, True, False]
    assert not (tmp_path / "out").exists()


def test_a_single_problem_is_a_single_sentence(make: Make) -> None:
    """
    A list is only used for several problems.
    """
    package = make({"a.py": EMPTY.format("empty")})

    with pytest.raises(WorkflowError, match=r"^scratch\.a: no_empty 1: .* has no tasks[^\n]*$"):
        validate_workflows(package)


def test_a_cycle_is_found(make: Make) -> None:
    """
    `add_node` allows none, but a node can be changed later.
    """
    closing = "from dataclasses import replace\na._nodes['First'] = replace(a._nodes['First'], upstreams=(Second,))\n"
    package = make({"a.py": module("a") + closing})

    with pytest.raises(WorkflowError, match=r"^scratch\.a: scratch_a 1\.0: scratch_a has a cycle: "):
        validate_workflows(package)


def test_a_package_without_workflows_is_not_valid(make: Make) -> None:
    """
    No workflow was checked, probably because another package was meant.
    """
    package = make({"a.py": "x = 1\n", "workflows/__init__.py": "", "_hidden/__init__.py": ""})

    with pytest.raises(
        WorkflowError,
        match=r"^scratch defines no workflow; searched: scratch\.a, scratch; subpackages are not searched: "
        r"did you mean scratch\.workflows\?$",
    ):
        validate_workflows(package)


def test_a_workflow_that_does_not_load_is_a_problem(make: Make) -> None:
    """
    An exception of Airflow is reported with the workflow's name.
    """
    refusing = "def refuse():\n    raise RuntimeError('no such\\nargument')\na.load = refuse\n"
    package = make({"a.py": module("a") + refusing})

    with pytest.raises(
        WorkflowError,
        match=r"^scratch\.a: scratch_a 1\.0: Airflow does not load it: RuntimeError: no such argument$",
    ):
        validate_workflows(package)


def test_a_file_that_does_not_compile_is_a_problem(make: Make) -> None:
    """
    It is compiled before it is loaded.
    """
    spoiling = "a.dag_source = lambda: 'def broken(:'\n"
    package = make({"a.py": module("a") + spoiling})

    with pytest.raises(WorkflowError, match=r"^scratch\.a: scratch_a 1\.0: its file does not compile: invalid syntax"):
        validate_workflows(package)


def test_what_was_not_checked_is_said_once(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """
    Without Airflow one warning states the number of workflows that were not loaded; with it there is no warning.
    """
    missing = (
        "from dkist_processing_core.errors import EngineMissingError\n"
        "def load():\n    raise EngineMissingError('not here')\na.load = b.load = load\n"
    )
    package = make({"a.py": module("a", "b") + missing})

    with caplog.at_level(logging.WARNING, "dkist_processing_core"):
        validate_workflows(package)

    assert [record.getMessage() for record in caplog.records] == [
        (
            "Airflow is not installed: the loading of the workflows of scratch was not checked (2 workflows); "
            "all other checks passed"
        )
    ]


def test_what_was_loaded_is_not_warned_of(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """
    A complete check logs nothing.
    """
    package = make({"a.py": module("a") + "a.load = lambda: object()\n"})

    with caplog.at_level(logging.WARNING, "dkist_processing_core"):
        validate_workflows(package)

    assert caplog.records == []


# Exporting


def test_every_workflow_is_exported_into_a_new_folder(make: Make, tmp_path: Path) -> None:
    """
    The files are returned in the order of the workflows.
    """
    package = make({"a.py": module("z", "a")})
    folder = tmp_path / "new" / "dags"

    files = export_dags(package, folder)

    assert files == [folder / "scratch_z_1.0.py", folder / "scratch_a_1.0.py"]
    assert files_below(folder) == {file.name for file in files}
    assert [file.read_bytes() for file in files] == [
        each.export_dag(tmp_path / "alone").read_bytes() for each in extract_workflows_from_package(package)
    ]


def test_the_older_name_exports_as_well() -> None:
    """
    Pipelines of earlier releases use that name.
    """
    assert export is export_dags


def test_nothing_is_written_if_one_cannot_be_exported(make: Make, tmp_path: Path) -> None:
    """
    A scheduler keeps its files; the message names all wrong workflows.
    """
    package = make({"a.py": module("a"), "b.py": EMPTY.format("one") + EMPTY.format("two")})

    with pytest.raises(WorkflowError, match=r"^found 2 problems:\n- scratch\.b: no_one 1: .*\n- scratch\.b: no_two 1"):
        export_dags(package, tmp_path / "dags")

    assert not (tmp_path / "dags").exists()


def test_an_exported_file_replaces_the_older_one_and_leaves_others(make: Make, tmp_path: Path) -> None:
    """
    Earlier versions that a scheduler still runs stay.
    """
    package = make({"a.py": module("a")})
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "scratch_a_1.0.py").write_text("older")
    (folder / "scratch_a_0.9.py").write_text("of another version")

    export_dags(package, folder)

    assert files_below(folder) == {"scratch_a_1.0.py", "scratch_a_0.9.py"}
    assert "older" not in (folder / "scratch_a_1.0.py").read_text()
    assert (folder / "scratch_a_0.9.py").read_text() == "of another version"


def test_a_place_that_cannot_be_written_to_is_named(make: Make, tmp_path: Path) -> None:
    """
    A file where the folder should be; partial output is removed.
    """
    package = make({"a.py": module("a")})
    (tmp_path / "dags").write_text("a file")

    with pytest.raises(
        WorkflowError, match=r"^the export cannot be written to .*/dags, expected a folder: File exists"
    ):
        export_dags(package, tmp_path / "dags")


@pytest.mark.parametrize("export_into", [validate_workflows, export_dags, export_archive])
def test_a_place_that_no_system_can_name_is_no_path(
    make: Make, export_into: Callable[..., object], tmp_path: Path
) -> None:
    """
    The null byte is shown as Python writes it.
    """
    package = make({"a.py": module("a") + "a.load = lambda: object()\n"})

    with pytest.raises(WorkflowError, match=r"^found .*out\\x00side'\), expected the path of a folder for the export$"):
        export_into(package, tmp_path / "out\x00side")


def test_a_file_that_cannot_be_moved_leaves_no_part_of_it(make: Make, tmp_path: Path) -> None:
    """
    A folder has the name of the file.
    """
    package = make({"a.py": module("a")})
    (tmp_path / "dags" / "scratch_a_1.0.py").mkdir(parents=True)

    with pytest.raises(WorkflowError, match=r"scratch_a_1\.0\.py'\)$"):
        export_dags(package, tmp_path / "dags")

    assert files_below(tmp_path / "dags") == set()


# The archive


def test_the_archive_is_named_by_package_and_version(make: Make, tmp_path: Path) -> None:
    """
    It holds the files that would be exported, and is the only one written.
    """
    package = make({"a.py": module("b", "a")})
    exported = {file.stem: file.read_bytes() for file in export_dags(package, tmp_path / "files")}

    file = export_archive(package, tmp_path / "dags")

    assert file == tmp_path / "dags" / "scratch_1.0.zip"
    assert files_below(tmp_path / "dags") == {"scratch_1.0.zip"}
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist() == ["scratch_1.0/scratch_a_1.0.py", "scratch_1.0/scratch_b_1.0.py"]
        assert [archive.read(name) for name in archive.namelist()] == [
            exported["scratch_a_1.0"],
            exported["scratch_b_1.0"],
        ]


def test_the_same_workflows_give_the_same_archive(make: Make, tmp_path: Path) -> None:
    """
    To the byte, at any time and for any user.
    """
    package = make({"a.py": module("b", "a")})

    first = export_archive(package, tmp_path / "first").read_bytes()
    os.umask(os.umask(0o077))
    second = export_archive(package, tmp_path / "second").read_bytes()

    assert first == second
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_workflows_of_several_versions_make_no_archive(make: Make, tmp_path: Path) -> None:
    """
    No single version could name it; a package's workflows take theirs from BUILD_VERSION.
    """
    package = make({"a.py": module("a"), "b.py": module("b", version="2.0")})

    with pytest.raises(
        WorkflowError,
        match=r"^an archive holds workflows of one version, and scratch has several: "
        r"1\.0 \(scratch_a\); 2\.0 \(scratch_b\)$",
    ):
        export_archive(package, tmp_path / "dags")

    assert not (tmp_path / "dags").exists()


def test_a_package_without_workflows_makes_no_archive(make: Make, tmp_path: Path) -> None:
    """
    An empty one would be deployed unnoticed.
    """
    with pytest.raises(WorkflowError, match=r"^scratch defines no workflow; searched: scratch$"):
        export_archive(make({}), tmp_path / "dags")

    assert not (tmp_path / "dags").exists()


@pytest.mark.parametrize("exporting", [export_dags, export_notebooks])
def test_an_export_of_nothing_says_so(
    make: Make,
    exporting: Callable[[ModuleType, Path], list[Path]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    If the named package is the parent of the one with workflows, the message states the searched package.
    """
    assert exporting(make({"a.py": "x = 1\n"}), tmp_path / "out") == []
    (said,) = (record.getMessage() for record in caplog.records)
    assert said == "nothing is exported: scratch defines no workflow; searched: scratch.a, scratch"
