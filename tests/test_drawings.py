"""
The drawings of the documentation: each matches its source, uses the library's names, and is self-contained.

Not here: drawing, which needs Graphviz and is `python docs/drawings/render.py`.
"""

import html
import json
import re
import runpy
import tomllib
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

import dkist_processing_core
from dkist_processing_core.bus.topology import ARCHIVE_QUEUE, publisher_topology
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.environments._requirement import Requirement
from dkist_processing_core.events import EVENT_CLASSES, Reporter
from dkist_processing_core.workflow import dag_name
from tests.generated import generated_by

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SOURCES = sorted((DOCS / "drawings").glob("*.dot"))
ARTIFACTS, DEPLOYMENT = (DOCS / "drawings" / f"{name}.dot" for name in ("artifacts", "deployment"))
PAGE = DOCS / "explanation" / "deployment.md"
SVG = "{http://www.w3.org/2000/svg}"
KINDS = ("node", "edge")
POINTS_PER_INCH = 72
PAGE_WIDTH = 900
SMALLEST_TEXT = 11
# A label ends where the next attribute begins, or the list of them ends: in HTML it may hold any bracket before.
_LABEL = re.compile(r'\blabel=(?:"(?P<plain>[^"]*)"|<(?P<html>.*?)>(?= \w+=|\]))')
_SHOWN = re.compile(r"!\[([^\]]*)\]\(([^)]+\.svg)\)")
_NODE = re.compile(r'\b(?!node\b|edge\b|graph\b)(\w+) \[[^\n]*?\bpos="([-\d.]+),([-\d.]+)!"')
_LINE = re.compile(r"(\w+) -> (\w+)")

each_source = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)


def image_of(source: Path) -> str:
    """
    Return the drawing of a source, as text.
    """
    return (DOCS / "images" / f"{source.stem}.svg").read_text(encoding="utf-8")


def texts_of(source: Path) -> set[str]:
    """
    Return each line of text that a source puts into its drawing.
    """
    lines: list[str] = []
    for label in _LABEL.finditer(source.read_text(encoding="utf-8")):
        if label["plain"] is not None:
            lines += re.split(r"\\[nlr]", label["plain"])
        else:
            lines += map(html.unescape, re.split(r"<[^>]*>", label["html"]))
    return {line.strip() for line in lines} - {""}


def shown_texts_of(source: Path) -> set[str]:
    """
    Return each line of text that a drawing shows.
    """
    return {(element.text or "").strip() for element in ET.fromstring(image_of(source)).iter(f"{SVG}text")} - {""}


def centre_of(path: str) -> tuple[float, float]:
    """
    Return the middle of an outline.
    """
    across, down = zip(*(map(float, point) for point in re.findall(r"(-?[\d.]+),(-?[\d.]+)", path)), strict=True)
    return (min(across) + max(across)) / 2, (min(down) + max(down)) / 2


def attributes_of(source: Path, node: str) -> dict[str, str]:
    """
    Return the quoted attributes that a source gives to a node itself.
    """
    given = re.search(rf"\b{node} \[(.*)\]", source.read_text(encoding="utf-8"))
    assert given is not None, node
    return dict(re.findall(r'(\w+)="([^"]*)"', given[1]))


def reached_from(node: str) -> set[str]:
    """
    Return the nodes of the deployment that can be reached from a node along lines.
    """
    lines = _LINE.findall(DEPLOYMENT.read_text(encoding="utf-8"))
    reached = {node}
    while more := {end for start, end in lines if start in reached} - reached:
        reached |= more
    return reached


@generated_by("make drawings")
def test_each_source_is_drawn_and_each_drawing_has_a_source() -> None:
    """
    The two folders contain the same names.
    """
    drawn = {path.stem for path in (DOCS / "images").glob("*.svg")}

    assert drawn == {*(source.stem for source in SOURCES), "timeline", "trace"}


@generated_by(".venv/bin/python docs/drawings/timeline.py")
def test_the_timeline_is_drawn_as_the_command_draws_it() -> None:
    """
    It is generated from the events of a run, and needs nothing from another address.
    """
    image = (DOCS / "images" / "timeline.svg").read_text(encoding="utf-8")

    generated: str = runpy.run_path(str(DOCS / "drawings" / "timeline.py"))["render"]()

    assert re.findall(r'https?://[^"]*', image) == [SVG.strip("{}")]
    assert image == generated


@generated_by(".venv/bin/python docs/drawings/trace.py")
def test_the_trace_is_drawn_from_the_spans_of_a_run_with_a_retry_and_a_killed_attempt() -> None:
    """
    Each of its spans is a row, or a mark if it is a publication, and the drawing needs nothing from another address.
    """
    program = runpy.run_path(str(DOCS / "drawings" / "trace.py"))
    spans = json.loads((DOCS / "drawings" / "trace.json").read_text(encoding="utf-8"))
    image = (DOCS / "images" / "trace.svg").read_text(encoding="utf-8")
    shown = [element.text for element in ET.fromstring(image).iter(f"{SVG}text")]

    assert re.findall(r'https?://[^"]*', image) == [SVG.strip("{}")]
    assert image == program["render"]()
    assert sum(name in shown for name in {span["name"] for span in spans if span["kind"] != "PRODUCER"}) >= 10
    assert {span["error_type"] for span in spans} == {None, "OSError", "signal"}
    assert len(spans) == image.count("<rect") - 6 + image.count("<path") - 1  # without the ground and the legend


@generated_by("make drawings")
@each_source
def test_a_drawing_is_that_of_its_source(source: Path) -> None:
    """
    It has the nodes and the lines of its source, and each node is at the position that the source gives.
    """
    text = source.read_text(encoding="utf-8")
    placed = {name: (float(x), -float(y)) for name, x, y in _NODE.findall(text)}
    groups = [(group.get("class"), group) for group in ET.fromstring(image_of(source)).iter(f"{SVG}g")]
    drawn = {kind: {group.findtext(f"{SVG}title"): group for each, group in groups if each == kind} for kind in KINDS}
    outlines = {name: group.find(f"{SVG}path") for name, group in drawn["node"].items()}

    centres = {name: centre_of(path.attrib["d"]) for name, path in outlines.items() if path is not None}
    offsets = {
        tuple(round(at - place * POINTS_PER_INCH) for at, place in zip(centre, placed[name], strict=True))
        for name, centre in centres.items()
    }

    assert drawn["node"].keys() <= placed.keys()  # ends of lines are not shown
    assert drawn["edge"].keys() == {f"{start}->{end}" for start, end in _LINE.findall(text)}
    assert len(offsets) == 1


@generated_by("make drawings")
@each_source
def test_a_line_is_centred_in_its_outline_however_wide_the_font_is(source: Path) -> None:
    """
    If the reader's font is wider than Graphviz expected, a single line is still centred.
    """
    beside = []
    for node in ET.fromstring(image_of(source)).iter(f"{SVG}g"):
        if node.get("class") == "node" and node.find(f"{SVG}path") is not None:
            texts = [text for text in node.iter(f"{SVG}text") if (text.text or "").strip()]
            places = [{name: text.get(name) for name in ("x", "y")} for text in texts]
            beside += [
                text.text
                for text, place in zip(texts, places, strict=True)
                if text.get("text-anchor") == "start"
                and all(sum(other[name] == place[name] for other in places) == 1 for name in place)
            ]

    assert beside == []


@generated_by("make drawings")
@each_source
def test_a_drawing_shows_every_text_of_its_source(source: Path) -> None:
    """
    Every label of the source is drawn, and no other.
    """
    assert texts_of(source) == shown_texts_of(source)


@generated_by("make drawings")
@each_source
def test_a_drawing_holds_nothing_that_varies_or_lies_elsewhere(source: Path) -> None:
    """
    There is no comment, no version of Graphviz, no reference, and no address but that of SVG itself.
    """
    image = image_of(source)

    assert "<!" not in image
    assert re.findall(r"href|url\(|@import|<style|<script|<image", image) == []
    assert re.findall(r'https?://[^"]*', image) == [SVG.strip("{}")]
    assert set(re.findall(r'font-family="[^"]*,([\w-]+)"', image)) == {"sans-serif", "monospace"}


@each_source
def test_a_drawing_is_readable_at_the_width_of_a_page(source: Path) -> None:
    """
    The smallest text is large enough where the drawing is as wide as a page.
    """
    image = image_of(source)
    root = ET.fromstring(image)
    scale = PAGE_WIDTH / float(root.attrib["viewBox"].split()[2])
    sizes = [float(text.attrib["font-size"]) * scale for text in root.iter(f"{SVG}text") if (text.text or "").strip()]

    assert min(sizes) >= SMALLEST_TEXT


@each_source
def test_a_drawing_brings_its_own_ground(source: Path) -> None:
    """
    On a dark page it is readable: its background is opaque, nearly white and as large as the drawing.
    """
    root = ET.fromstring(image_of(source))
    ground = next(root.iter(f"{SVG}path"))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    points = [tuple(map(float, point)) for point in re.findall(r"(-?[\d.]+),(-?[\d.]+)", ground.attrib["d"])]
    across, down = ({point[axis] for point in points} for axis in (0, 1))

    assert min(bytes.fromhex(ground.attrib["fill"].removeprefix("#"))) >= 0xF0
    assert max(across) - min(across) >= width - 4
    assert max(down) - min(down) >= height - 4


@each_source
def test_a_page_shows_each_drawing_and_says_what_is_on_it(source: Path) -> None:
    """
    A reader who cannot see the drawing gets a sentence instead.
    """
    shown = {
        (path.parent / target).resolve(): words
        for path in DOCS.rglob("*.md")
        for words, target in _SHOWN.findall(path.read_text(encoding="utf-8"))
    }

    assert len(shown[(DOCS / "images" / f"{source.stem}.svg").resolve()].split()) >= 10


# Names


def test_exchanges_queues_and_events_are_those_of_the_library() -> None:
    """
    A name with dots is a name on the bus, and everything that a publisher declares is drawn.
    """
    names = {text for text in texts_of(DEPLOYMENT) if re.fullmatch(r"[a-z]+(\.[a-z]+)+", text)}
    topology = publisher_topology(DKISTProcessingCoreConfiguration.model_construct())
    events = {event_class.name for event_class in EVENT_CLASSES}

    assert names - events == {each.name for each in topology.exchanges} | {each.name for each in topology.queues}
    # A watcher's report is not drawn: it appears where Airflow cannot see the end.
    assert events - names == {"task.overdue", "workflow.overdue"}


def test_kinds_of_exchanges_and_age_of_the_archive_are_those_declared() -> None:
    """
    The text next to the names states the properties of the topology.
    """
    topology = publisher_topology(DKISTProcessingCoreConfiguration.model_construct())
    archive = next(queue for queue in topology.queues if queue.name == ARCHIVE_QUEUE)
    age = archive.arguments["x-max-age"].replace("D", " days")

    assert {each.type for each in topology.exchanges} < texts_of(DEPLOYMENT)
    assert {f"{archive.arguments['x-queue-type']},", age} < texts_of(DEPLOYMENT)


def test_lines_lead_from_exchanges_to_the_queues_bound_to_them() -> None:
    """
    The bindings that a publisher declares are the lines that are drawn.
    """
    topology = publisher_topology(DKISTProcessingCoreConfiguration.model_construct())
    called = {
        attributes_of(DEPLOYMENT, node)["label"]: node for node in ("failures", "failure_queue", "events", "archive")
    }
    led_to = {
        (exchange.name, queue.name)
        for exchange in topology.exchanges
        for queue in topology.queues
        if called[queue.name] in reached_from(called[exchange.name])
    }

    assert led_to == {(binding.exchange, binding.queue) for binding in topology.bindings}


def test_telemetry_comes_from_reporters_and_from_the_handlers_of_consumers() -> None:
    """
    The broker and the programs of Airflow that this library does not run in send nothing to the collector.
    """
    lines = _LINE.findall(DEPLOYMENT.read_text(encoding="utf-8"))

    assert {start for start, end in lines if end.startswith("otlp_")} == {
        "dag_processor",
        "launcher",
        "from_consumers",
    }


def test_reporters_are_those_of_events_each_in_one_colour() -> None:
    """
    The marks name reporters as events do; the events of a reporter have the colour of its mark, along one line.
    """
    source = DEPLOYMENT.read_text(encoding="utf-8")
    marks = dict(re.findall(r"(reporter_\w+) \[label=<<B>(\w+)</B>>", source))
    colours: dict[str, set[str]] = {}
    for node, reporter in marks.items():
        line = re.search(rf'{node} -> journal_\d \[color="([^"]*)"', source)
        assert line is not None
        spoken = attributes_of(DEPLOYMENT, node.replace("reporter_", "events_"))["fontcolor"]
        colours.setdefault(reporter, set()).update({attributes_of(DEPLOYMENT, node)["fillcolor"], spoken, line[1]})

    assert set(colours) == set(Reporter) - {Reporter.WATCHER}
    assert {len(of_one) for of_one in colours.values()} == {1}
    assert len(set.union(*colours.values())) == len(colours)


def test_files_and_requirements_are_called_as_the_library_calls_them() -> None:
    """
    The forms in braces, filled in, equal the library's names for the same parts.
    """
    parts = {"workflow": "l0_to_l1_visp", "version": "1.2.3", "package": "dkist-processing-visp", "extras": "asdf"}
    filled = {text.format(**parts) for text in texts_of(ARTIFACTS) if "{" in text}
    dag = dag_name(workflow_name=parts["workflow"], workflow_version=parts["version"])
    requirement = Requirement(parts["package"], parts["version"], [parts["extras"]])

    assert filled == {f"{dag}.py", f"{dag}.ipynb", "dkist-processing-visp_1.2.3.zip", str(requirement)}


def test_consumers_are_there_to_be_called() -> None:
    """
    The command is one that the package installs, the function one that it exports.
    """
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]

    assert {*scripts, "subscribe()"} < texts_of(DEPLOYMENT)
    assert "subscribe" in dkist_processing_core.__all__


def test_settings_modules_and_reporters_of_the_page_exist() -> None:
    """
    The page names variables that are settings, a module that can be run, and each reporter.
    """
    page = PAGE.read_text(encoding="utf-8")
    settings = {name.upper() for name in DKISTProcessingCoreConfiguration.model_fields}
    modules = re.findall(r"python -m ([\w.]+)", page)

    assert set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", page)) <= settings
    assert modules
    assert [module for module in modules if find_spec(f"{module}.__main__") is None] == []
    assert set(re.findall(r"(?m)^\| `(\w+)` \|", page)) == set(Reporter) - {Reporter.WATCHER}


@generated_by("make pictures")
def test_the_pictures_of_the_dashboard_are_small_and_in_the_readme() -> None:
    """
    They are taken in a browser, whose fonts and pixels differ between machines: their names and sizes are checked.
    """
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    pictures = {path.name: path.read_bytes() for path in (DOCS / "images").glob("dashboard-*.png")}

    assert sorted(pictures) == ["dashboard-now.png", "dashboard-run.png"]
    for name, picture in pictures.items():
        width = int.from_bytes(picture[16:20], "big")
        assert (picture[:8], width) == (b"\x89PNG\r\n\x1a\n", 1280)
        assert len(picture) < 100_000
        assert f"](docs/images/{name})" in readme
