"""
Notebooks: their content, that changes by users are kept, and that tasks report when they run in one.

Not here: the image in which users run them (test_notebook_image).
"""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core import RunState, TaskBase, Workflow, subscribe
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.errors import ExtraMissingError, WorkflowError
from dkist_processing_core.events import TaskFailed, TaskFinished, TaskStarted
from dkist_processing_core.notebook_utils import export_notebook_by_path, wait_for_notebook_save
from tests import pipelines, sample
from tests.generated import generated_by
from tests.running import ROOT
from tests.services.broker import Broker
from tests.waiting import SECONDS

GOLDEN = Path(__file__).parent / "exported"
PIXEL = base64.b64encode(b"\x89PNG\r\n").decode()
Programs = Callable[..., None]


def sources(file: Path) -> list[str]:
    """
    Return the sources of the cells of a notebook.
    """
    return ["".join(cell["source"]) for cell in json.loads(file.read_bytes())["cells"]]


def fill_in(file: Path, recipe_run_id: int, *more: str) -> None:
    """
    Enter the recipe run id, as a user does first, and add cells.
    """
    notebook = nbformat.read(file, as_version=4)
    notebook.cells[0].source += f" {recipe_run_id}"
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in more]
    nbformat.write(notebook, file)


@pytest.fixture
def execute(tmp_path: Path) -> Programs:
    """
    Return a function that executes a notebook in a separate kernel and saves the outputs into its file.
    """

    def run(program: list[str], file: Path, *options: str, **environment: str) -> None:
        own = {name: str(tmp_path / name.lower()) for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR")}
        subprocess.run(
            [sys.executable, *program, file, *options],
            env=os.environ | {"PYTHONPATH": str(ROOT), "JUPYTER_PLATFORM_DIRS": "1"} | own | environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )

    return run


# Export


@generated_by(".venv/bin/python -m tests.exported")
def test_an_exported_notebook_is_this_one(tmp_path: Path) -> None:
    """
    The notebook has a cell for the recipe run id and one for each task.
    """
    file = sample.workflow().export_notebook(tmp_path)

    assert file == tmp_path / "l0_to_l1_visp_sample_1.2.3.ipynb"
    assert (GOLDEN / f"{file.name}.txt").read_text() == file.read_text()


def test_an_exported_notebook_is_valid_and_laid_out_as_jupyter_does(tmp_path: Path) -> None:
    """
    Saving it in Jupyter then changes only the content that the user has changed.
    """
    file = sample.workflow().export_notebook(tmp_path)
    before = file.read_text()
    notebook = nbformat.read(file, as_version=nbformat.NO_CONVERT)

    nbformat.validate(notebook)
    nbformat.write(notebook, file)

    assert file.read_text() == before


def test_a_notebook_goes_into_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Missing folders are created, and a path may be a string.
    """
    monkeypatch.chdir(tmp_path)

    assert sample.workflow().export_notebook() == Path("notebooks/l0_to_l1_visp_sample_1.2.3.ipynb")
    assert sample.workflow().export_notebook("a/b").parent == Path("a/b")


_TASKS: list[type[TaskBase]] = [
    type(name, (sample.First,), {"__module__": __name__}) for name in ("A", "B", "C", "D", "E")
]
globals().update({task.__name__: task for task in _TASKS})


@given(edges=st.lists(st.sets(st.integers(0, 3)), min_size=5, max_size=5), order=st.permutations(range(5)))
def test_a_cell_comes_after_those_that_it_waits_for(edges: list[set[int]], order: list[int]) -> None:
    """
    For any graph, each task has one cell, and the cells are in dependency order.
    """
    built = Workflow(process_category="a", process_name="b", workflow_version="1")
    for position, number in enumerate(order):
        built.add_node(_TASKS[number], upstreams=[_TASKS[order[each]] for each in edges[position] if each < position])

    cells = ["".join(cell["source"]) for cell in json.loads(built.notebook_source())["cells"]]

    places = {line.split()[-1]: place for place, line in enumerate(cell.splitlines()[0] for cell in cells[1:])}
    assert sorted(places) == ["A", "B", "C", "D", "E"]
    assert all(places[upstream] < places[name] for upstream, name in built.graph.edges)


def test_what_a_notebook_could_not_import_is_refused(tmp_path: Path) -> None:
    """
    For a refused export, nothing is written. A workflow of a script can be exported if its tasks are in a module.
    """

    class Hidden(TaskBase):
        def run(self) -> None:
            pass

    hidden = Workflow(process_category="a", process_name="b", workflow_version="1")
    hidden.add_node(Hidden)
    bare = Workflow(process_category="a", process_name="b", workflow_version="1")
    bare.add_node(sample.First)

    with pytest.raises(WorkflowError, match=r"^Hidden of a_b cannot be exported: another process imports a task by "):
        hidden.export_notebook(tmp_path / "new")
    with pytest.raises(WorkflowError, match=r"^a_b cannot be exported: it has no tasks$"):
        Workflow(process_category="a", process_name="b", workflow_version="1").export_notebook(tmp_path / "new")

    assert not (tmp_path / "new").exists()
    assert bare.export_notebook(tmp_path).exists()


# Changes by users


@pytest.mark.parametrize(
    "work",
    [
        pytest.param(lambda cells: cells[0]["source"].append(" 1"), id="filled in"),
        pytest.param(lambda cells: cells[1]["source"].append("\n# mine"), id="changed"),
        pytest.param(lambda cells: cells.append({**cells[0], "id": "x", "cell_type": "markdown"}), id="has more"),
        pytest.param(lambda cells: cells[1]["outputs"].append({"output_type": "stream"}), id="has outputs"),
        pytest.param(lambda cells: cells[2].update(execution_count=3), id="was run"),
        pytest.param(lambda cells: cells.clear(), id="without cells"),
    ],
)
def test_a_notebook_that_was_worked_with_is_not_written_over(work: Callable[[Any], None], tmp_path: Path) -> None:
    """
    The file stays unchanged.
    """
    file = sample.workflow().export_notebook(tmp_path)
    notebook = json.loads(file.read_bytes())
    del notebook["metadata"]["language_info"]
    work(notebook["cells"])
    file.write_text(json.dumps(notebook))

    with pytest.raises(
        WorkflowError, match=rf"^not overwritten, since it was changed or run after its export: {file}; move it, "
    ):
        sample.workflow().export_notebook(tmp_path)

    assert json.loads(file.read_bytes()) == notebook


def test_what_is_no_notebook_is_not_written_over(tmp_path: Path) -> None:
    """
    A file that is not a notebook may contain anything, so it is kept.
    """
    file = tmp_path / "l0_to_l1_visp_sample_1.2.3.ipynb"
    file.write_text("my notes")

    with pytest.raises(WorkflowError, match=r"^not overwritten, "):
        sample.workflow().export_notebook(tmp_path)

    assert file.read_text() == "my notes"


def test_an_untouched_notebook_is_exported_again(tmp_path: Path) -> None:
    """
    The new export contains the tasks that were added to the workflow, even after JupyterLab has saved the old one.
    """
    workflow = sample.workflow()
    file = workflow.export_notebook(tmp_path)
    before = sources(file)
    notebook = nbformat.read(file, as_version=4)
    notebook.metadata.language_info.version = "3.13.0"
    nbformat.write(notebook, file)
    workflow.add_node(pipelines.Left, upstreams=sample.First)

    workflow.export_notebook(tmp_path)

    (added,) = set(sources(file)) - set(before)
    assert len(sources(file)) == len(before) + 1
    assert added.startswith("from tests.pipelines import Left\n")


# Tasks that are run in a notebook


def test_tasks_in_a_notebook_report_as_everywhere(broker: Broker, execute: Programs, tmp_path: Path) -> None:
    """
    The run id states that the run was started by hand. A cell that is run again makes the next attempt, after a success
    or a failure.
    """
    file = pipelines.diamond.export_notebook(tmp_path)
    _, first, left, right, last = sources(file)
    fill_in(file, 7, right, last)

    execute(
        ["-m", "nbconvert", "--to", "notebook", "--execute", "--inplace", "--allow-errors"],
        file,
        **broker.env,
        PIPELINES_FAIL="1",
        PIPELINES_FOLDER=str(tmp_path),
    )

    settings = DKISTProcessingCoreConfiguration(
        mesh_config=json.loads(broker.env["MESH_CONFIG"]),
        isb_username=broker.username,
        isb_password=broker.password,
        isb_vhost=broker.vhost,
    )
    with subscribe(settings=settings, replay=True, every_report=True, timeout=SECONDS) as reports:
        seen = [next(reports) for _ in range(13)]
    run = RunState(seen).runs[0]
    tasks = {task.name: [(attempt.number, attempt.state.value) for attempt in task.attempts] for task in run.tasks}
    assert len({event.run_id for event in seen}) == 1
    assert run.run.run_id.startswith("hand__7__")
    assert tasks == {
        "First": [(1, "finished")],
        "Left": [(1, "finished")],
        "Right": [(1, "failed"), (2, "finished")],
        "Last": [(1, "finished"), (2, "finished")],
    }
    assert {type(event) for event in seen} >= {TaskStarted, TaskFinished, TaskFailed}
    assert {event.workflow_version for event in seen} == {"1"}
    assert (first, left) == tuple(sources(file)[1:3])


# Executes a notebook while another thread saves it repeatedly, as a browser does.
_SAVING = """
import sys, threading, nbformat
from pathlib import Path
from nbclient import NotebookClient
path = Path(sys.argv[1])
notebook = nbformat.read(path, as_version=4)
done = threading.Event()
def save():
    while not done.wait(0.1):
        beside = path.with_suffix(".saving")
        nbformat.write(notebook, beside)
        beside.replace(path)
saver = threading.Thread(target=save)
saver.start()
try:
    NotebookClient(notebook, resources={"metadata": {"path": str(path.parent)}}).execute()
finally:
    done.set()
    saver.join()
"""


@pytest.mark.once
def test_a_task_keeps_the_notebook_that_it_runs_in(execute: Programs, tmp_path: Path) -> None:
    """
    The document contains the output of the cell that is still running.
    """
    file = pipelines.kept.export_notebook(tmp_path / "notebooks")
    fill_in(file, 8)

    execute(["-c", _SAVING], file)

    record = (file.parent / "record.md").read_text()
    assert "recipe_run_id: int = 8" in record
    assert "kept for 8" in record
    assert "is saved with this line: " in record


# Waiting for a notebook to be saved


def notebook_of(*outputs: Any) -> str:
    """
    Return a notebook with one cell and its outputs.
    """
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("source('wanted')", outputs=list(outputs))])
    return str(nbformat.writes(notebook))


def stream(text: str) -> Any:
    """
    Return an output that a cell has printed.
    """
    return nbformat.v4.new_output("stream", text=text)


@pytest.mark.parametrize("sentinel", ["wanted", 'a "quoted" line', "über"])
def test_a_saved_notebook_is_known_by_its_outputs(
    sentinel: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    The sentinel may have any characters. It is printed so that the notebook shows it.
    """
    file = tmp_path / "n.ipynb"
    file.write_text(notebook_of(stream(f"one\nbefore {sentinel} after\n")))

    wait_for_notebook_save(notebook_path=file, attempts=1, delay_s=0, sentinel=sentinel)

    assert capsys.readouterr().out == f"Waiting until n.ipynb is saved with this line: {sentinel}\n"


@pytest.mark.parametrize("content", [notebook_of(stream("another")), "{", "[]", '{"cells": 1}', '{"cells": [1]}', ""])
def test_one_that_is_not_saved_in_time_is_an_error(content: str, tmp_path: Path) -> None:
    """
    The error names the file and the remedy. The source of a cell does not count as output, and an incomplete file as no
    notebook.
    """
    file = tmp_path / "n.ipynb"
    file.write_text(content)

    with pytest.raises(
        TimeoutError, match=rf"^{file} was not saved with the outputs of this cell: read 2 times, every 0 s"
    ):
        wait_for_notebook_save(file, "wanted", attempts=2, delay_s=0)


def test_a_notebook_that_is_not_there_is_not_waited_for(tmp_path: Path) -> None:
    """
    The notebook was probably renamed, so waiting would not help.
    """
    with pytest.raises(FileNotFoundError, match=r"^there is no notebook .*n\.ipynb; check its "):
        wait_for_notebook_save(notebook_path=tmp_path / "n.ipynb")


# A notebook as a document


def test_a_document_holds_text_outputs_and_pictures(tmp_path: Path) -> None:
    """
    The document is one file that includes the pictures.
    """
    picture = nbformat.v4.new_output("display_data", {"image/png": PIXEL, "text/plain": "<Figure>"})
    drawing = nbformat.v4.new_output("display_data", {"image/svg+xml": "<svg/>"})
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("# Title"),
            nbformat.v4.new_code_cell("show()", outputs=[stream("shown\n"), picture, drawing]),
        ]
    )
    file = tmp_path / "n.ipynb"
    nbformat.write(notebook, file)

    exported = export_notebook_by_path(notebook_path=file)

    assert isinstance(exported, bytes)
    document = exported.decode()
    assert all(part in document for part in ("# Title", "show()", "shown", f"](data:image/png;base64,{PIXEL})"))
    assert f"](data:image/svg+xml;base64,{base64.b64encode(b'<svg/>').decode()})" in document


@pytest.mark.parametrize("strange", ["an id in format 4.4", "a name that the format does not know"])
def test_a_notebook_of_mixed_tools_is_a_document_too(strange: str, tmp_path: Path) -> None:
    """
    Jupyter opens such a notebook and 7.x exported it, so its task must not fail after its work is done.
    """
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("show()", outputs=[stream("shown\n")])])
    if strange == "an id in format 4.4":
        notebook.nbformat_minor = 4
    else:
        notebook.cells[0].outputs[0]["extra"] = 1
    file = tmp_path / "n.ipynb"
    file.write_text(json.dumps(notebook))

    assert "shown" in export_notebook_by_path(file).decode()


@pytest.mark.parametrize(
    "content",
    ["", "my notes", "[]", "{}", '{"cells": []}', '{"nbformat": 4, "nbformat_minor": 5, "cells": [1]}', "\xe9"],
)
def test_what_is_no_notebook_is_no_document(content: str, tmp_path: Path) -> None:
    """
    The error names the file.
    """
    file = tmp_path / "n.ipynb"
    file.write_bytes(content.encode("latin-1"))

    with pytest.raises(WorkflowError, match=rf"^{file} is not a notebook: "):
        export_notebook_by_path(file)


def test_without_the_extra_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    """
    Only the export of a document needs the extra; importing the module does not.
    """
    program = (
        "import sys; sys.modules['nbconvert'] = None\n"
        "from dkist_processing_core.notebook_utils import export_notebook_by_path\n"
        "export_notebook_by_path(sys.argv[1])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "n.ipynb"], capture_output=True, text=True, check=False
    )

    assert done.stderr.endswith(
        "ExtraMissingError: a notebook is exported with the extra 'notebook', and there is no module 'nbconvert' here; "
        "install it with pip install 'dkist-processing-core[notebook]'\n"
    )
    assert issubclass(ExtraMissingError, ImportError)
