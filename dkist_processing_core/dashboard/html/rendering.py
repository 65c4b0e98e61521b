"""
Rendering a page by its template, as a whole or only its live parts.

A live part is a block whose name begins with `live_`, and whose one element has the block's name as its id. All HTML
and SVG is in the templates, which escape every value. Not here: the values (pages), and the words (words).
"""

import re
from collections.abc import Mapping
from functools import cache, lru_cache
from html import escape
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dkist_processing_core.dashboard.addresses import links
from dkist_processing_core.dashboard.asked import Page
from dkist_processing_core.dashboard.html import words

_LIVE = "live_"
# Each page extends it.
_FRAME = "base.html"
# The elements that a page has in each row, most of them alike, and how many different ones are kept.
_REPEATED, _MOST_REPEATED = ("state", "tasks", "workflow_link"), 500
# Of elements only: in each value, quotation marks are escaped.
_TO_PAGE = re.compile(r'( (?:href|action)=")/')


@cache
def _environment() -> Environment:
    environment = Environment(
        # A page that is saved contains its style sheets.
        loader=FileSystemLoader([Path(__file__).parents[1] / name for name in ("templates", "static")]),
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
    ui = environment.get_template("ui.html").module
    for name in _REPEATED:
        setattr(ui, name, lru_cache(maxsize=_MOST_REPEATED)(getattr(ui, name)))
    environment.globals["ui"] = ui
    return environment


def whole(page: Page, common: Mapping[str, object]) -> str:
    """Return a page; `common` are the values that each page has."""
    html = _environment().get_template(page.template).render({**common, **page.values, "title": page.title})
    saved_from = common["saved_from"]
    # A base address would also take the links inside of a saved page away from it.
    return html if saved_from is None else _TO_PAGE.sub(lambda found: f"{found[1]}{escape(str(saved_from))}", html)


def live_parts(page: Page, common: Mapping[str, object]) -> dict[str, str]:
    """Return the live parts of a page, each by its id."""
    environment = _environment()
    template = environment.get_template(page.template)
    context = template.new_context({**common, **page.values, "title": page.title})
    blocks = {**environment.get_template(_FRAME).blocks, **template.blocks}
    return {name: "".join(block(context)).strip() for name, block in blocks.items() if name.startswith(_LIVE)}
