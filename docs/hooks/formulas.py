"""Convert formulas to MathML when the site is built, so that pages need no script, font or network to show them.

`pymdownx.arithmatex` finds the formulas between dollar signs; this hook converts them.
"""

import html
import re
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\s*\\[(\[](.*?)\\[)\]]\s*</\1>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Convert the formulas in the HTML of a page; mkdocs calls this function."""
    return FORMULA.sub(_mathml, content)


def _mathml(formula: re.Match) -> str:
    if formula[1] == "span":
        return convert(html.unescape(formula[2]))
    return f'<div class="formula">{convert(html.unescape(formula[2]), display="block")}</div>'
