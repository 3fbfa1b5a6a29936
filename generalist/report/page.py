"""The report's templates: the page around it (`page.html`, `style.css`) and those of its sections, beside their code.

Whatever is put into a template is escaped unless it is a drawing, which is marked by `| safe`. Nothing in the page is
fetched from elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from generalist.report.figures import HIDDEN, fmt, shorten

ROOM = Path(__file__).parent


def _plain(value: Any) -> Any:
    """Without the characters that are not seen; a drawing as it is."""
    return value if isinstance(value, Markup) else HIDDEN.sub(" ", str(value))


TEMPLATES = Environment(
    loader=FileSystemLoader([ROOM, ROOM / "sections"]),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_plain,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= {"fmt": fmt, "shorten": shorten, "anchor": lambda title: title.lower().replace(" ", "-")}


def render(template: str, **values: Any) -> Markup:
    """HTML of a template by its file's name."""
    return Markup(TEMPLATES.get_template(template).render(values))
