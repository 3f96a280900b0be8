"""The pictures of the examples on the site, from where the examples write them: no second copy is kept."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

EXAMPLES = Path(__file__).parents[2] / "examples"


def on_files(files: Files, config: Any, **_: Any) -> None:
    """Called by mkdocs with the files of the site."""
    for picture in sorted(EXAMPLES.glob("*.png")):
        files.append(File.generated(config, picture.name, abs_src_path=str(picture)))
