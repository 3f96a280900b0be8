"""Pictures on the site from where the scripts that made them write them: no second copy is kept."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PLACES = ("examples/*.png", "docs/data/*/*.png")


def on_files(files: Files, config: Any, **_: Any) -> None:
    """Called by mkdocs with the files of the site."""
    for picture in sorted(path for place in PLACES for path in ROOT.glob(place)):
        files.append(File.generated(config, picture.name, abs_src_path=str(picture)))
