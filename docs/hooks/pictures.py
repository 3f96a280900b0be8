"""Add the pictures to the site from the folders that the scripts write to, without a second copy in the repository."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PLACES = ("examples/*.png", "docs/data/*/*.png")


def on_files(files: Files, config: Any, **_: Any) -> None:
    """Add the pictures to the files of the site; mkdocs calls this function."""
    for picture in sorted(path for place in PLACES for path in ROOT.glob(place)):
        files.append(File.generated(config, picture.name, abs_src_path=str(picture)))
