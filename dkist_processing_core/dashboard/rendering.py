"""
Rendering a page by its template, as a whole or only its live parts.

A live part is a block whose name begins with `live_`, and whose one element has the block's name as its id. All HTML
and SVG is in the templates, which escape every value. Not here: the values (pages), and the words (words).
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dkist_processing_core.dashboard import links, words
from dkist_processing_core.dashboard.asked import Page

_LIVE = "live_"
# Each page extends it.
_FRAME = "base.html"


@cache
def _environment() -> Environment:
    environment = Environment(
        # A page that is saved contains its style sheets.
        loader=FileSystemLoader([Path(__file__).parent / name for name in ("templates", "static")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= words.FILTERS
    environment.globals |= {
        name: getattr(links, name)
        for name in (
            "address",
            "attempt_address",
            "compare_address",
            "compare_with_previous_address",
            "family_address",
            "run_address",
            "workflow_address",
        )
    }
    # A block that is rendered alone does not see what its template has imported.
    environment.globals["ui"] = environment.get_template("ui.html").module
    return environment


def whole(page: Page, common: Mapping[str, object]) -> str:
    """Return a page; `common` are the values that each page has."""
    return _environment().get_template(page.template).render({**common, **page.values, "title": page.title})


def live_parts(page: Page, common: Mapping[str, object]) -> dict[str, str]:
    """Return the live parts of a page, each by its id."""
    environment = _environment()
    template = environment.get_template(page.template)
    context = template.new_context({**common, **page.values, "title": page.title})
    blocks = {**environment.get_template(_FRAME).blocks, **template.blocks}
    return {name: "".join(block(context)).strip() for name, block in blocks.items() if name.startswith(_LIVE)}
