"""Formulas as MathML, made when the site is built: pages show them without a script, a font or a network.

`pymdownx.arithmatex` finds what stands between dollars; this turns it over. How it looks is the browser's business.
"""

import html
import re
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\s*\\[(\[](.*?)\\[)\]]\s*</\1>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Called by mkdocs with the HTML of a page."""
    return FORMULA.sub(_mathml, content)


def _mathml(formula: re.Match) -> str:
    if formula[1] == "span":
        return convert(html.unescape(formula[2]))
    return f'<div class="formula">{convert(html.unescape(formula[2]), display="block")}</div>'
