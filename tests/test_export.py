"""
The file of an exported workflow: equal values give equal bytes, and the file contains only these values.

Not here: running it in a real Airflow (tests/airflow).
"""

import ast
import enum
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core import ResourceQueue, TaskBase, Workflow
from dkist_processing_core.errors import EngineMissingError, WorkflowError
from dkist_processing_core.export.bash_operator import COMMAND
from dkist_processing_core.export.dag_source import exec_dag_source
from dkist_processing_core.text import clean
from tests import sample
from tests.generated import generated_by
from tests.running import ROOT
from tests.sample import First, workflow

GOLDEN = Path(__file__).parent / "exported"


@generated_by(".venv/bin/python -m tests.exported")
def test_an_exported_file_is_this_one(tmp_path: Path) -> None:
    """
    The file must not change by accident for Airflow and operators: check the difference before you write it again.
    """
    file = workflow().export_dag(tmp_path)

    assert file == tmp_path / "l0_to_l1_visp_sample_1.2.3.py"
    assert (GOLDEN / f"{file.name}.txt").read_text() == file.read_text()


def test_the_same_workflow_gives_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    """
    Nothing depends on the order of sets, which differs from process to process.
    """
    exports = "from tests.sample import workflow; import sys; workflow().export_dag(sys.argv[1])"
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", exports, tmp_path / seed],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
        )
    (first,), (second,) = (list((tmp_path / seed).iterdir()) for seed in ("1", "2"))

    assert first.read_bytes() == second.read_bytes() == workflow().export_dag(tmp_path).read_bytes()


@pytest.mark.parametrize("tags", ["", [""], ["", "x"], None])
def test_an_empty_tag_counts_as_not_given(tags: Any) -> None:
    """
    An unset variable gives an empty tag.
    """
    assert "" not in workflow(tags=tags).tags


def test_a_set_has_a_fixed_order_too(tmp_path: Path) -> None:
    """
    Python's own order of a set differs from process to process.
    """
    export = (
        "import sys; from dkist_processing_core import Workflow; from tests import sample\n"
        "w = Workflow(process_category='a', process_name='b', workflow_package='p', workflow_version='1',"
        " tags={'x', 'y', 'zed'})\n"
        "w.add_node(sample.First); w.add_node(sample.Second)\n"
        "w.add_node(sample.Third, upstreams={sample.First, sample.Second}, pip_extras={'c', 'b', 'a'})\n"
        "w.export_dag(sys.argv[1])"
    )

    for seed in range(4):
        environ = {**os.environ, "PYTHONHASHSEED": str(seed)}
        subprocess.run([sys.executable, "-c", export, tmp_path / str(seed)], cwd=ROOT, env=environ, check=True)

    assert len({(tmp_path / str(seed) / "a_b_1.py").read_bytes() for seed in range(4)}) == 1


def test_the_folder_is_made_and_has_a_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    `dags` for the newer name, `export` for the older one; parents are created, and a string is accepted.
    """
    monkeypatch.chdir(tmp_path)

    assert workflow().export_dag() == Path("dags/l0_to_l1_visp_sample_1.2.3.py")
    assert workflow().export() == Path("export/l0_to_l1_visp_sample_1.2.3.py")
    assert workflow().export_dag(str(tmp_path / "a" / "b" / "c")).is_file()


def test_a_file_is_replaced_whole_and_readable_by_the_scheduler(tmp_path: Path) -> None:
    """
    The old content is never half overwritten, no other file remains, and the mode is that of any new file.
    """
    file = workflow().export_dag(tmp_path)
    before = file.stat()
    umask = os.umask(0o027)
    try:
        workflow().export_dag(tmp_path)
    finally:
        os.umask(umask)

    assert file.stat().st_ino != before.st_ino
    assert [file] == list(tmp_path.iterdir())
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_every_command_is_the_same_and_ends_in_no_template(tmp_path: Path) -> None:
    """
    The values of a run never become shell text: they are passed in variables. A command that ends in `.sh` would name a
    file.
    """
    source = workflow().export_dag(tmp_path).read_text()

    assert COMMAND == 'exec </dev/null; exec "$DKIST_CORE_PYTHON" -m dkist_processing_core.launcher'
    assert source.count("bash_command") == 1
    assert f"'bash_command': {COMMAND!r}," in source


def test_the_file_imports_the_engine_and_the_callbacks_alone(tmp_path: Path) -> None:
    """
    Neither a task nor its requirements are needed where it is parsed.
    """
    tree = ast.parse(workflow().export_dag(tmp_path).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}

    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    assert imported == {
        "datetime",
        "airflow",
        "airflow.providers.standard.operators.bash",
        "dkist_processing_core.airflow.callbacks",
    }


def test_what_the_file_imports_from_here_needs_the_standard_library_alone() -> None:
    """
    Airflow imports it at each look at a file, and again for every task.
    """
    program = (
        "import sys; before = set(sys.modules);"
        "import dkist_processing_core.airflow.callbacks, dkist_processing_core.failure_callback;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    ours = [name for name in done.stdout.split() if name.startswith("dkist")]
    assert ours == [
        "dkist_processing_core",
        "dkist_processing_core.airflow",
        "dkist_processing_core.airflow.callbacks",
        "dkist_processing_core.failure_callback",
    ]
    others = {name.partition(".")[0] for name in done.stdout.split()} - {"dkist_processing_core"}
    assert others <= sys.stdlib_module_names


HOSTILE = st.text(min_size=1, max_size=40).filter(lambda text: clean(text) == text) | st.sampled_from(
    ["')#", "{{ 1 }}", '"""', "\\", "${HOME}", "\n", "\U0001f52d"]
)


@pytest.mark.parametrize("tag", ["\0", "a\0", "\ud800", "\x1b[31m"])
def test_a_tag_that_the_engine_s_database_cannot_hold_is_refused(tag: str) -> None:
    """
    The first ones would end Airflow's DAG processor, for all workflows; with the others the DAG would be missing.
    """
    with pytest.raises(
        WorkflowError, match=r"^tags: found .*, expected text of 1 to 100 characters without control characters$"
    ):
        Workflow(process_category="a", process_name="b", workflow_version="1", tags=["well", tag])


@given(tags=st.lists(HOSTILE, max_size=4))
def test_any_tag_comes_out_as_it_went_in(tags: list[str]) -> None:
    """
    Tags are the only free text of a file.
    """
    built = workflow(detail=None)
    free = Workflow(process_category="a", process_name="b", workflow_package="p", workflow_version="1", tags=tags)
    free.add_node(First)

    (dag,) = _calls_of(ast.parse(free.dag_source()), "DAG")
    (rendered,) = (ast.literal_eval(keyword.value) for keyword in dag.keywords if keyword.arg == "tags")
    assert rendered == list(dict.fromkeys([*tags, "1", "a", "b"]))
    assert built.tags == ("nightly", "1.2.3", "l0", "l1", "visp")


def _calls_of(tree: ast.AST, name: str) -> list[ast.Call]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == name]


@given(
    names=st.lists(
        st.from_regex(r"[A-Z][A-Za-z0-9_]{0,20}", fullmatch=True), min_size=1, max_size=12, unique_by=str.lower
    ),
    data=st.data(),
)
def test_the_graph_comes_out_as_it_went_in(names: list[str], data: st.DataObject) -> None:
    """
    Each task is one operator with its upstreams, and each edge exists once.
    """
    module = sys.modules[__name__]
    built = Workflow(process_category="any", process_name="graph", workflow_package="p", workflow_version="1")
    classes: list[type[TaskBase]] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            task = type(name, (First,), {"__module__": __name__})
            patch.setattr(module, name, task, raising=False)
            upstreams = data.draw(st.lists(st.sampled_from(classes), unique=True)) if classes else []
            built.add_node(task, upstreams=upstreams)
            classes.append(task)
        tree = ast.parse(built.dag_source())

    operators = _calls_of(tree, "BashOperator")
    task_ids = [
        ast.literal_eval(keyword.value) for each in operators for keyword in each.keywords if keyword.arg == "task_id"
    ]
    edges = [
        (ast.literal_eval(node.left.slice), ast.literal_eval(node.right.slice))
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.RShift)
        and isinstance(node.left, ast.Subscript)
        and isinstance(node.right, ast.Subscript)
    ]
    assert task_ids == names
    assert sorted(edges) == sorted(built.graph.edges)


def in_function() -> type[TaskBase]:
    """
    Return a task that other processes cannot find.
    """

    class Hidden(First):
        """
        Is defined in a function.
        """

    return Hidden


def of(package: str | None = "p", version: str = "1", task: type[TaskBase] = First, **options: Any) -> Workflow:
    """
    Return a workflow of one task.
    """
    built = Workflow(process_category="a", process_name="b", workflow_package=package, workflow_version=version)
    built.add_node(task, **options)
    return built


REFUSED = "First of a_b cannot be exported: "


@pytest.mark.parametrize(
    ("made", "complaint"),
    [
        (
            lambda: Workflow(process_category="a", process_name="b", workflow_package="p"),
            "a_b cannot be exported: it has no tasks",
        ),
        (lambda: of(package=None), REFUSED + r"its workflow names no package, and a worker "),
        (
            lambda: of(package="no package"),
            (
                f"{REFUSED}no worker could install version '1' of workflow_package 'no package': "
                "package of an environment: found 'no package'"
            ),
        ),
        (
            lambda: of(version="-"),
            (
                f"{REFUSED}no worker could install version '-' of workflow_package 'p': "
                "version of an environment: found '-'"
            ),
        ),
        (
            lambda: of(pip_extras=["a]b"]),
            r"First: pip_extras holds 'a\]b', expected the name of an extra, for example quality",
        ),
        (
            lambda: of(task=in_function()),
            "Hidden of a_b cannot be exported: another process imports a task by the name of its module and its class",
        ),
        (lambda: of(task=type("not-a-name", (First,), {})), "not-a-name of a_b cannot be exported"),
    ],
)
def test_what_no_worker_could_run_is_refused_with_its_reason(made: Any, complaint: str, tmp_path: Path) -> None:
    """
    This happens before a file is written, and not in the first night of a campaign.
    """
    with pytest.raises(WorkflowError, match=complaint):
        made().export_dag(tmp_path / "dags")

    assert not (tmp_path / "dags").exists()


def test_loading_without_the_engine_says_what_to_install() -> None:
    """
    Airflow is not in this environment, and only loading needs it.
    """
    with pytest.raises(EngineMissingError, match=r"l0_to_l1_visp_sample_1.2.3 cannot be loaded: there is no module 'airflow' here; install Airflow 3 with pip install 'dkist-processing-core\[airflow\]'"):  # fmt: skip # noqa: E501
        workflow().load()
    with pytest.raises(EngineMissingError, match="First cannot be loaded"):
        _ = workflow().nodes[0].operator


def test_another_missing_module_is_not_taken_for_the_engine() -> None:
    """
    The advice would be wrong.
    """
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        exec_dag_source("import no_such_module", "test")


def test_a_node_says_how_it_is_installed_and_run() -> None:
    """
    The texts with which users and notebooks run a task; the recipe run id is one of their variables.
    """
    node = workflow().nodes[1]

    assert node.install_command == "python -m pip install 'dkist-processing-visp[asdf,frozen,quality]==1.2.3'"
    assert node.pool == "high_memory_pool"
    assert node.dependencies == [("First", "Second")]
    assert node.python == (
        "from tests.sample import Second\n"
        "with Second(recipe_run_id=recipe_run_id, workflow_name='l0_to_l1_visp_sample', workflow_version='1.2.3')"
        " as task:\n"
        "    task()\n"
    )
    assert node.notebook_cell.splitlines()[-1] == "    #t.rollback()"
    compile(node.python, "python", "exec")
    compile(node.notebook_cell, "cell", "exec")


class Version(enum.StrEnum):
    """
    A version that is text, but has another representation.
    """

    ONE = "1.0"


class Several(int, enum.Enum):
    """
    A number of another class, which has another representation.
    """

    TWICE = 2


class Odd(float):
    """
    A number with the representation of another package.
    """

    def __repr__(self) -> str:
        """
        Name the package.
        """
        return f"np.float64({float(self)!r})"


def test_values_of_other_classes_come_out_as_what_they_are() -> None:
    """
    Members of enumerations and numbers of numpy are valid values whose text is not Python code.
    """
    task = type(
        "Third",
        (First,),
        {
            "__module__": "tests.sample",
            "retries": Several.TWICE,
            "retry_delay_seconds": Odd(1.5),
            "overdue_after_seconds": Odd(90.5),
        },
    )
    built = Workflow(
        process_category="a",
        process_name="b",
        workflow_package="p",
        workflow_version=Version.ONE,
        tags=ResourceQueue.GPU,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "Third", task)
        built.add_node(task)
        tree = ast.parse(built.dag_source())

    (operator,) = _calls_of(tree, "BashOperator")
    found = {keyword.arg: ast.unparse(keyword.value) for keyword in operator.keywords}
    assert built.tags == ("gpu", "1.0", "a", "b")
    assert (found["retries"], found["retry_delay"]) == ("2", "timedelta(seconds=1.5)")
    assert "'DKIST_CORE_OVERDUE_AFTER_SECONDS': '90.5'" in found["env"]


@pytest.mark.parametrize("tag", [3, None, b"tag", "x" * 101])
def test_a_tag_that_the_engine_would_refuse_is_refused_here(tag: Any) -> None:
    """
    It is refused at the export, and not by the scheduler.
    """
    with pytest.raises(WorkflowError, match=r"tags: found .*, expected text of 1 to 100 characters"):
        Workflow(process_category="a", process_name="b", workflow_package="p", workflow_version="1", tags=[tag])


def test_a_name_that_looks_like_a_file_s_is_no_template() -> None:
    """
    The operator takes a value with such an ending for the name of a file, and fails if there is none.
    """
    built = Workflow(process_category="a", process_name="b.sh", workflow_package="p", workflow_version="1.bash")
    built.add_node(First)
    tree = ast.parse(built.dag_source())
    run = next(
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "RUN"
    )

    values = ast.literal_eval(run)
    assert (values["DKIST_CORE_WORKFLOW"], values["DKIST_CORE_VERSION"]) == ("{{ 'a_b.sh' }}", "{{ '1.bash' }}")
    assert not [value for value in values.values() if value.endswith((".sh", ".bash"))]


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    """
    A file system allows names of 255 bytes, and Airflow 250 characters.
    """
    built = Workflow(process_category="a", process_name="b" * 98, workflow_package="p", workflow_version="1" * 100)
    built.add_node(First)

    assert built.export_dag(tmp_path).is_file()
