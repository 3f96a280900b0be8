"""Adapt docstrings to the site: examples become code, and short names of sources become links.

This is a griffe extension. The docstrings use `Example:`, where griffe expects `Examples:`, describe several arguments
at once (`x, y: the batch`), and cite papers as [KF18].
"""

import re
from typing import Any

import griffe

SOURCES = {
    "AZ17": "https://arxiv.org/abs/1603.05953",
    "C16": "https://proceedings.mlr.press/v48/canevet16.html",
    "I17": "https://arxiv.org/abs/1702.03275",
    "J19": "https://arxiv.org/abs/1910.00762",
    "JZ13": "https://papers.nips.cc/paper/2013/hash/ac1dd209cbcc5e5d1c6e28598e8cbbe8-Abstract.html",
    "KF17": "https://arxiv.org/abs/1706.00043",
    "KF18": "https://arxiv.org/abs/1803.00942",
    "LH16": "https://arxiv.org/abs/1511.06343",
    "LJ17": "https://arxiv.org/abs/1609.03261",
    "Q24": "https://arxiv.org/abs/2303.04947",
    "S16": "https://arxiv.org/abs/1604.03540",
    "ZK16": "https://arxiv.org/abs/1605.07146",
}
# Docstrings that describe the files of a package, for readers of the code.
OF_FILES = ("importance_sampling.samplers", "importance_sampling.training")
SEVERAL = re.compile(r"^( +)(\w+(?:, \w+)+): (.+(?:\n\1 +.+)*)$", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Rewrites the docstring of each object that griffe finds in the package."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object; griffe calls this method."""
        if obj.path in OF_FILES:
            obj.docstring = None
        elif obj.docstring is not None:
            text = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
            text = SEVERAL.sub(lambda several: "\n".join(_each(*several.groups())), text)
            obj.docstring.value = re.sub(r"\[(\w+)\](?!\()", _linked, text)


def _each(indent: str, names: str, text: str) -> list[str]:
    return [f"{indent}{name}: {text}" for name in names.split(", ")]


def _linked(name: re.Match) -> str:
    return f"[{name[1]}]({SOURCES[name[1]]})" if name[1] in SOURCES else name[0]
