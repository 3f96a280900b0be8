"""The built site: every link has a target, every picture is described, every notebook is a page.

`.ci/run` builds the site too, strictly. That finds broken links between pages alone.
"""

import importlib
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]
# Packages of which every class and function of the library has an entry in the reference.
REFERENCE = (
    *("training", "callbacks", "comparison", "labels", "plotting", "datasets", "scores", "samplers", "conditions"),
    *("reweighting", "model_wrappers", "layers", "models"),
)


class Page(HTMLParser):
    """The links, the anchors, and the pictures with their descriptions of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors, self.pictures = [], set(), {}
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.links += [attributes[name] for name in ("href", "src") if attributes.get(name)]
        self.anchors |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        if tag == "img":
            self.pictures[attributes["src"]] = attributes.get("alt") or ""


def pages_of(site):
    """Return the pages of a site by their paths; that of the error 404 is shown at any path."""
    return {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def broken_links(pages):
    """Return the links whose file or anchor isn't there, as "page: link"."""
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            has_anchor = not parts.fragment or target not in pages or unquote(parts.fragment) in pages[target].anchors
            if not (target.is_file() and has_anchor):
                broken.append(f"{path.name}: {link}")
    return broken


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages of the site, built."""
    for package in ("mkdocs", "material", "mkdocstrings", "latex2mathml"):
        pytest.importorskip(package, reason=f"{package} isn't installed: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site").resolve()
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "-f", "docs/mkdocs.yml", "-d", str(folder)]
    environment = dict(os.environ, NO_MKDOCS_2_WARNING="1")
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert built.returncode == 0, built.stderr
    return folder, pages_of(folder)


@pytest.mark.slow
def test_every_link_of_the_site_has_a_target(site):
    _, pages = site
    assert sum(len(page.links) for page in pages.values()) > 5000
    assert broken_links(pages) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, result", [("quick_start", "times sooner (3 seeds"), ("wrong_labels", "ReducibleLossTraining")]
)
def test_a_notebook_is_a_page_with_its_results(site, name, result):
    folder, pages = site
    page = pages[folder / "notebooks" / name / "index.html"]
    assert result in page.text and f"../{name}-1.png" in page.pictures
    notebook = (folder / "notebooks" / f"{name}.ipynb").read_bytes()
    assert notebook == (ROOT / "examples" / f"{name}.ipynb").read_bytes()
    # The link to the file of the repository leads to the page, and so does the navigation.
    linking = [path for path, other in pages.items() if any(f"notebooks/{name}/" in link for link in other.links)]
    assert folder / "examples" / "index.html" in linking and len(linking) > 30


@pytest.mark.slow
def test_every_picture_of_the_site_is_described_and_every_picture_of_the_examples_is_shown(site):
    _, pages = site
    pictures = [(source, text) for page in pages.values() for source, text in page.pictures.items()]
    assert len(pictures) > 8
    assert [source for source, text in pictures if len(text) < 40] == []
    shown = {Path(source).name for source, _ in pictures}
    assert {path.name for path in (ROOT / "examples").glob("*.png")} - shown == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", REFERENCE)
def test_the_reference_shows_every_public_class_and_function_of_a_package(site, name):
    _, pages = site
    anchors = set().union(*(page.anchors for page in pages.values()))
    module = importlib.import_module(f"importance_sampling.{name}")
    public = {name: getattr(getattr(module, name), "__module__", "") for name in module.__all__}
    ours = {name: source for name, source in public.items() if source.startswith("importance_sampling")}
    ours = {name: source for name, source in ours.items() if hasattr(getattr(module, name), "__name__")}  # no constants
    assert ours
    missing = [name for name in ours if not {f"{module.__name__}.{name}", f"{ours[name]}.{name}"} & anchors]
    assert missing == []


@pytest.mark.slow
def test_the_reference_has_the_methods_of_all_trainers_and_none_of_their_internals(site):
    folder, pages = site
    prefix = "importance_sampling.fit.trainer.Trainer."
    shown = {name.removeprefix(prefix) for name in pages[folder / "api/training/index.html"].anchors if prefix in name}
    assert {"fit", "summary", "save_state", "load_state", "importance_steps", "forward_equivalents"} <= shown
    assert not {name for name in shown if re.match("_|needs_rows|accepts_train_step", name)}


def test_links_without_a_file_or_an_anchor_are_found(tmp_path):
    (tmp_path / "data.csv").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "index.html").write_text('<h1 id="top">A</h1><a href="../data.csv"></a><a href="#top"></a>')
    (tmp_path / "index.html").write_text(
        '<a href="folder/#top"></a><a href="folder/#bottom"></a><a href="a.ipynb"></a><img src="b.png">'
        '<a href="https://example.org/none"></a><a href="data.csv#any"></a>'
    )
    found = broken_links(pages_of(tmp_path.resolve()))
    assert sorted(found) == ["index.html: a.ipynb", "index.html: b.png", "index.html: folder/#bottom"]
