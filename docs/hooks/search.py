"""Leave the source code in the reference out of the search, which would find every name there many times."""

from typing import Any

SOURCE = '<details class="mkdocstrings-source">'


def on_page_content(content: str, **_: Any) -> str:
    """Mark the source code in the HTML of a page; mkdocs calls this function."""
    return content.replace(SOURCE, SOURCE.replace(">", " data-search-exclude>"))
