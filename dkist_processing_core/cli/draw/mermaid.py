"""
Workflows as a Mermaid flowchart, for a page that renders it.

Not here: the terminal's drawing (draw.graph).
"""

from collections.abc import Iterable, Iterator

from dkist_processing_core.resource_queue import ResourceQueue
from dkist_processing_core.workflow import Workflow

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 -._,:/()=+~^!*")


def flowchart(workflows: Iterable[Workflow]) -> Iterator[str]:
    """Yield the lines of one flowchart; each workflow is a separate box."""
    yield "flowchart TD"
    for number, workflow in enumerate(workflows, 1):
        yield f'  subgraph w{number}["{_escaped(f"{workflow.workflow_name} {workflow.workflow_version}")}"]'
        ids = {node.name: f"w{number}n{at}" for at, node in enumerate(workflow.topological_sort(), 1)}
        for node in workflow.topological_sort():
            words = [str(node.resource_queue)] if node.resource_queue != ResourceQueue.DEFAULT else []
            words += [f"[{', '.join(node.pip_extras)}]"] if node.pip_extras else []
            label = _escaped(node.name) + (f"<br/>{_escaped(' '.join(words))}" if words else "")
            yield f'    {ids[node.name]}["{label}"]'
        for upstream, downstream in workflow.graph.edges:
            yield f"    {ids[upstream]} --> {ids[downstream]}"
        yield "  end"


def _escaped(text: str) -> str:
    """
    Return a text that Mermaid shows unchanged: characters with a possible meaning in Mermaid become numeric entities.

    >>> _escaped('l0 "sample" [asdf]')
    'l0 #34;sample#34; #91;asdf#93;'
    """
    return "".join(each if each in _PLAIN else f"#{ord(each)};" for each in text)
