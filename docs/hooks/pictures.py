"""Add the pictures to the site from the folders that the scripts write to, without a second copy in the repository.

A page refers to a picture by its path in the repository. The gallery, a file of the folder `examples` that the site
includes, refers to it by its name.
"""

import os
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PLACES = ("examples/*.png", "docs/data/*/*.png")


def on_files(files: Files, config: Any, **_: Any) -> None:
    """Add the pictures to the files of the site; mkdocs calls this function."""
    for picture in sorted(path for place in PLACES for path in ROOT.glob(place)):
        from_pages = Path(os.path.relpath(picture, config.docs_dir)).as_posix()
        for path in (picture.name, from_pages):
            file = File.generated(config, path, abs_src_path=str(picture))
            file.dest_uri = picture.name
            files.append(file)
