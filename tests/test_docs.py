"""
Every marked program and command of the documents is run, and its output compared.

python -m tests.test_docs writes the outputs again

A block after `<!-- file: NAME -->` is written to that file; the commands of a console block after `<!-- run -->` are
run, in one folder per document; a block after `<!-- consume -->` is run against a bus with events, and after
`<!-- consume: NAME -->` also written to that file; a block after `<!-- program: PATH -->` shows a program of the
repository, which other tests run. Not here: the commands after `<!-- set up -->`, which are run once
(test_distribution), and the page that needs a real Airflow; its commands stand after `<!-- shell -->`
(tests/airflow/test_how_to.py).
"""

import os
import platform
import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import authors_page
from tests.generated import generated_by

# Against a command that hangs. Some start several processes, beside the other tests of a slow machine.
_SECONDS = 300.0
pytestmark = pytest.mark.timeout(1800)

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
_BLOCK = re.compile(
    r"<!-- (file: (?P<file>[\w.]+)|program: (?P<program>[\w./-]+)|"
    r"(?P<kind>run|consume|set up)(: (?P<saved>[\w.]+))?) -->\n"
    r"```(\w+)\n(?P<text>.*?)```",
    re.DOTALL,
)
_VARIES = [
    (re.compile(r"(local|hand)__\d+__\d{8}T\d{6}Z__[0-9a-f]{8}"), r"\1__RUN"),
    (re.compile(r"\d\d:\d\d:\d\d([.,]\d+)?"), "TIME"),
    (re.compile(r"\b(run|TIME) [0-9a-f]{8}\b"), r"\1 RUN"),
    (re.compile(r"\d+(\.\d+)? ?(ms|s)\b"), "SECONDS"),
    (re.compile(r"line \d+"), "line N"),
    (re.compile(r"sqlite:/+\S*inbox\.db"), "INBOX"),
    (re.compile(r"\bg[ijq][0-9a-f]{8}\b"), "GROUP"),
    (re.compile(r"python:3\.\d+"), "python:3.N"),
    # Whether a timeline has room for it depends on the durations.
    (re.compile(r" +[▁▂▃▄▅▆▇█]+ \d+ [KM]B"), ""),
    (re.compile(r"pid \d+|on [\w.-]+, |\d+ MB|\d{4}-\d\d-\d\d"), "VARIES"),
    (re.compile(r"[━─╸╺╼╾░╰┴·]+"), ""),
    (re.compile(r"(?m)^ *0 .*$"), "AXIS"),
    (re.compile(r"[ \t]+"), " "),
]
ENVIRONMENT = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "100"}


def environment_of(state_dir: Path) -> dict[str, str]:
    """
    Return the variables of a document's commands; Jupyter's files are kept with the journals.
    """
    kept = {"DKIST_CORE_STATE_DIR": ".", "IPYTHONDIR": "ipython", "JUPYTER_RUNTIME_DIR": "jupyter"}
    return {**os.environ, **ENVIRONMENT, **{name: str(state_dir / place) for name, place in kept.items()}}


@dataclass(frozen=True)
class Block:
    """
    A marked block of a document.
    """

    start: int
    end: int
    kind: str
    text: str
    program: str | None = None
    saved: str | None = None


def blocks_of(text: str) -> list[Block]:
    """
    Return the marked blocks of a document, in order.
    """
    return [
        Block(
            found.start("text"),
            found.end("text"),
            found["file"] or found["kind"] or "",
            found["text"],
            found["program"],
            found["saved"],
        )
        for found in _BLOCK.finditer(text)
    ]


def output_of(block: Block, folder: Path, environment: dict[str, str]) -> str:
    """
    Run the commands of a console block and return it with their output.
    """
    shown = ""
    for line in block.text.splitlines():
        if line.startswith("$ "):
            done = subprocess.run(
                ["/bin/sh", "-c", line[2:]],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                timeout=_SECONDS,
            )
            shown += f"{line}\n{done.stdout}"
    # Documents contain neither a path nor the name of this machine.
    shown = shown.replace(f"{folder}/", "").replace(f"{ROOT}/", "")
    return shown.replace(f" {platform.node()},", " worker1,")


def alike(text: str) -> str:
    """
    Return a text without the parts that differ from run to run.
    """
    for pattern, replacement in _VARIES:
        text = pattern.sub(replacement, text)
    # Python 3.13 shows more of a traceback than 3.11: the line of a program without a file, and more marks.
    lines = [line for line in text.splitlines() if not re.fullmatch(r"[\w ]*\|( task\(\)|[ ~^]*)", line)]
    return "\n".join(line.strip() for line in lines)


@generated_by(".venv/bin/python -m tests.test_docs")
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_document_shows_is_what_happens(path: Path, tmp_path: Path, state_dir: Path) -> None:
    """
    Programs run, commands print the text below them, and consumers consume.
    """
    environment = environment_of(state_dir)

    for block in blocks_of(path.read_text()):
        if block.program is not None:
            assert block.text == (ROOT / block.program).read_text()
        elif block.kind == "run":
            assert alike(block.text) == alike(output_of(block, tmp_path, environment))
        elif block.kind == "consume":
            check_consumer(block.text, environment)
            if block.saved is not None:
                (tmp_path / block.saved).write_text(block.text)
        elif block.kind != "set up":
            (tmp_path / block.kind).write_text(block.text)


def check_consumer(program: str, environment: dict[str, str]) -> None:
    """
    Run a consumer's program until its end is requested, against a run with a failure on the bus.

    Its output is a pipe: a line that is not flushed does not arrive before the process is killed.
    """
    environment = {**environment, "PIPELINES_FAIL": "always", "PYTHONPATH": str(ROOT)}
    # The subscription exists under its name before the run, as in real use.
    prepare = "from dkist_processing_core import subscribe; subscribe('task.failed', name='operators').close()"
    run = "from tests.pipelines import diamond; diamond.run(recipe_run_id=1)"
    for program_before in (prepare, run):
        subprocess.run([sys.executable, "-c", program_before], env=environment, check=True, capture_output=True)
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True
    ) as consumer:
        assert consumer.stdout is not None
        line = consumer.stdout.readline()
        consumer.terminate()
    assert "Right" in line
    assert consumer.returncode == 0 or "SIGTERM" not in program


@generated_by(".venv/bin/python -m tests.authors_page docs/reference/tasks.md")
def test_the_page_of_tasks_is_what_the_docstrings_state() -> None:
    """
    Its sections about classes are generated, and each argument and attribute has a meaning.
    """
    written = (ROOT / "docs" / "reference" / "tasks.md").read_text()

    generated = authors_page.page(written)

    assert "|  |" not in generated
    assert written == generated


def test_every_link_leads_somewhere() -> None:
    """
    A relative link in a document names an existing file.
    """
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in [
            *DOCUMENTS,
            *(ROOT / name for name in ("CONTRIBUTING.md", "examples/README.md", "telemetry/README.md")),
        ]
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text())
        if "://" not in target and not (path.parent / target).exists()
    ]

    assert broken == []


def test_every_page_is_to_be_found() -> None:
    """
    The index links each page of the documentation, and the README links those that new users need.
    """
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    linked = set(re.findall(r"\]\(([^)#]+)", (ROOT / "docs" / "index.md").read_text()))
    readme = set(re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text()))

    assert pages - {"index.md"} - linked == set()
    assert {"docs/how-to/outages.md", "docs/benchmarks.md", "docs/tutorial.md"} - readme == set()


def test_the_menu_of_the_site_names_each_page_and_fits_on_one_line() -> None:
    """
    At 1280 pixels the menu has room for some sixty characters; a style sheet that the site names is a file.
    """
    site = (ROOT / "mkdocs.yml").read_text()
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}

    listed = re.findall(r"(\S+\.md)$", site, flags=re.MULTILINE)
    titles = re.findall(r"^  - ([A-Z][\w ]*):", site, flags=re.MULTILINE)
    sheets = re.findall(r"^  - (\S+\.css)$", site, flags=re.MULTILINE)

    assert sorted(listed) == sorted(pages)
    assert len(re.findall(r"^  - .*(?:\.md|:)$", site, flags=re.MULTILINE)) - 1 == len(titles)  # and one extension
    assert len("   ".join(titles)) < 60
    assert [sheet for sheet in sheets if not (ROOT / "docs" / sheet).exists()] == []


def test_the_site_is_built_without_a_complaint(tmp_path: Path) -> None:
    """
    A link to a missing page or part of a page is one; the home links to the repository.
    """
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]

    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=_SECONDS)

    assert built.returncode == 0, built.stderr
    home = (tmp_path / "site" / "index.html").read_text()
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"] in home
    assert '<span class="kn">import</span>' in home  # highlighted


def test_versions_and_pythons_are_those_of_the_package() -> None:
    """
    The README's oldest Python and the changelog's version are those that the package declares.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert f"Python {project['requires-python'].removeprefix('>=')} or later" in (ROOT / "README.md").read_text()
    assert project["version"] in (ROOT / "CHANGELOG.md").read_text()


def write_anew() -> None:
    """
    Write the current outputs into the documents.
    """
    for path in DOCUMENTS:
        text = path.read_text()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            environment = environment_of(folder / "state")
            outputs = []
            for block in blocks_of(text):
                if block.program is not None:
                    outputs.append((block, (ROOT / block.program).read_text()))
                elif block.kind == "run":
                    outputs.append((block, output_of(block, folder, environment)))
                elif block.saved is not None:
                    (folder / block.saved).write_text(block.text)
                elif block.kind not in {"consume", "set up"}:
                    (folder / block.kind).write_text(block.text)
        for block, output in reversed(outputs):
            text = text[: block.start] + output + text[block.end :]
        path.write_text(text)


if __name__ == "__main__":
    write_anew()
