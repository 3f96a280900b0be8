"""Add the notebooks of the folder `examples` to the site, as pages with the results that they hold.

`notebooks/NAME.md` is a page like any other: in the navigation and in the search. A link to the notebook itself, which
works in the repository, leads to this page on the site. The page has a link to download the notebook.
"""

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
FOLDER = "notebooks"


def on_files(files: Files, config: Any, **_: Any) -> None:
    """Add the notebooks to the files of the site; mkdocs calls this function."""
    for notebook in sorted((ROOT / "examples").glob("*.ipynb")):
        markdown, pictures = rendered(json.loads(notebook.read_text(encoding="utf-8")), notebook.stem)
        page = File.generated(config, f"{FOLDER}/{notebook.stem}.md", content=markdown)
        files.append(page)
        files.append(File.generated(config, f"{FOLDER}/{notebook.name}", abs_src_path=str(notebook)))
        for name, content in pictures.items():
            files.append(File.generated(config, f"{FOLDER}/{name}", content=content))
        # From the gallery, which is a file of the folder `examples`, and from the pages. mkdocs writes pages last, so
        # that the page replaces this copy of the notebook.
        for path in (notebook.name, Path(os.path.relpath(notebook, config.docs_dir)).as_posix()):
            link = File.generated(config, path, abs_src_path=str(notebook))
            link.dest_uri = page.dest_uri
            files.append(link)


def rendered(notebook: dict[str, Any], name: str) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as Markdown, and the pictures that it refers to, by their file names.

    The text in place of a picture is in the metadata of its cell: `{"alt": "..."}`.
    """
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(_fenced("python", source))
        for text, picture in _outputs(cell["outputs"]):
            if text:
                parts.append(_fenced("text", text))
            if picture:
                file = f"{name}-{len(pictures) + 1}.png"
                pictures[file] = picture
                parts.append(f"![{cell['metadata']['alt']}]({file})")
    heading, *others = parts
    title, _, introduction = heading.partition("\n")
    download = f"This page is [a notebook]({name}.ipynb){{: download }}, with the results of its last run."
    return "\n\n".join([title, download, introduction.strip(), *others]) + "\n", pictures


def _outputs(outputs: list[dict[str, Any]]) -> Iterator[tuple[str, bytes]]:
    """Return the text and the picture of each output; texts that were printed one after another are one."""
    printed = ""
    for output in outputs:
        if output["output_type"] == "stream":
            printed += "".join(output["text"])
            continue
        yield printed, b""
        printed = ""
        picture = base64.b64decode("".join(output["data"].get("image/png", "")))
        yield "" if picture else "".join(output["data"]["text/plain"]), picture
    yield printed, b""


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text.strip()}\n```"
