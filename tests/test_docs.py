"""The documentation says what the code does: its snippets run, its defaults are the code's, no public name is missing.

That it can be built is tested by building it, strictly, in `.ci/run`.
"""

import ast
import inspect
import json
import pkgutil
import re
from pathlib import Path

import fill
import keras
import numpy as np
import pytest
from frameworks import BACKEND, lacks, run_eagerly

import importance_sampling
from importance_sampling import training
from importance_sampling.comparison import user_task

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "pages"
SNIPPET = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DEFAULT = re.compile(r"^\| `(\w+)` \| `([^`]+)` \|", re.MULTILINE)


def snippets(page):
    return SNIPPET.findall(page.read_text(encoding="utf-8"))


def card(trainer):
    """The page whose title is the trainer's name."""
    return next(page for page in PAGES.glob("trainers/*.md") if page.read_text("utf-8").startswith(f"# {trainer}\n"))


def parameters(trainer):
    """What its constructor takes, but for the model."""
    return {name: one.default for name, one in list(inspect.signature(trainer).parameters.items())[1:]}


@pytest.fixture
def names():
    """What the pages take for granted: data in the shape of MNIST's rows, and a compiled model of ten classes."""
    rng = np.random.default_rng(0)
    x, labels = rng.uniform(size=(576, 784)).astype("float32"), rng.integers(10, size=576)
    y = keras.utils.to_categorical(labels, 10)
    model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(10, "softmax")])
    model.compile("sgd", "categorical_crossentropy", metrics=["accuracy"])
    return dict(model=model, x_train=x[:512], y_train=y[:512], x_test=x[512:], y_test=y[512:])


@pytest.fixture
def small_mnist(monkeypatch):
    """Noise in the layout of MNIST, in place of a download."""
    rng = np.random.default_rng(0)
    parts = [(rng.integers(256, size=(n, 28, 28), dtype="uint8"), rng.integers(10, size=n)) for n in (512, 64)]
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: parts)


@pytest.fixture
def short_comparisons(monkeypatch):
    """Two steps for each way, whatever the budget is."""
    monkeypatch.setattr(user_task, "budget_of", lambda amounts: ("cost", 6.0))
    monkeypatch.setattr(user_task, "MEASUREMENTS", 1)


@pytest.fixture
def eagerly():
    """Nothing is compiled: a snippet takes a few steps, and each would wait seconds for its compiler."""
    with run_eagerly():
        yield


@pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly`:UserWarning")
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")  # of Keras, for tf.data by default
@pytest.mark.parametrize(
    "page",
    [page for page in [ROOT / "README.md", *sorted(PAGES.rglob("*.md"))] if snippets(page)],
    ids=lambda page: str(page.relative_to(ROOT)),
)
@pytest.mark.slow
def test_all_python_snippets_of_the_documentation_run(
    page, names, eagerly, small_mnist, short_comparisons, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for snippet in snippets(page):
        if lacks("TensorFlow") and re.search("tensorflow|TextVectorization", snippet):
            continue  # the other snippets of the page run
        if not {"jax", "torch"}.intersection(re.findall(r"^import (\w+)", snippet, re.MULTILINE)) <= {BACKEND}:
            continue  # the way to do it on another backend
        exec(compile(snippet, str(page), "exec"), names)


@pytest.mark.parametrize("trainer", training.__all__)
def test_every_trainer_has_a_card_with_all_its_defaults_and_a_row_to_choose_it_by(trainer):
    page = card(trainer)
    text = page.read_text(encoding="utf-8")
    rows = {name: ast.literal_eval(default) for name, default in DEFAULT.findall(text)}
    rows |= dict.fromkeys(re.findall(r"^\| `(\w+)` \| required \|", text, re.MULTILINE), inspect.Parameter.empty)
    assert rows == parameters(getattr(training, trainer))
    choosing = (PAGES / "choosing.md").read_text(encoding="utf-8").replace("<wbr>", "")  # where names may be broken
    assert f"| [{trainer}](trainers/{page.name}) |" in choosing


def slugs(path):
    """The anchors of the headings of a page in the repository: the site has the same ones."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE))
    return {heading.strip().replace(" ", "-") for heading in headings}


def test_links_to_headings_work_in_the_repository_as_on_the_site():
    pages = [ROOT / "README.md", ROOT / "docs/CONTRIBUTING.md", *PAGES.rglob("*.md")]
    links = [
        (page, *link)
        for page in pages
        for link in re.findall(r"\]\(([^)#\s:]*)#([\w-]+)\)", page.read_text(encoding="utf-8"))
    ]
    assert len(links) > 80
    broken = [link for link in links if link[2] not in slugs(link[0].parent / link[1] if link[1] else link[0])]
    assert broken == []


def test_every_public_name_is_in_the_reference():
    reference = "\n".join(page.read_text(encoding="utf-8") for page in PAGES.glob("api/*.md"))
    shown = set(re.findall(r"^::: ([\w.]+)$", reference, re.MULTILINE))
    mentioned = set(re.findall(r"`(?:importance_sampling\.)?(\w+)`", reference))
    missing = [
        module.name
        for module in pkgutil.iter_modules(importance_sampling.__path__)
        if f"importance_sampling.{module.name}" not in shown and module.name not in {*mentioned, "__main__"}
    ]
    for name in shown | {"importance_sampling"}:
        module = pkgutil.resolve_name(name)
        for public in getattr(module, "__all__", ()):
            value = getattr(module, public)
            is_ours = getattr(value, "__module__", "").startswith("importance_sampling")
            if not (is_ours and value.__doc__) and public not in mentioned:
                missing.append(f"{name}.{public}")
    assert not missing, f"docs/pages/api has nothing on {missing}"


def messages():
    """Every string in the code of the library, with a gap for each value that is filled in."""
    for path in (ROOT / "importance_sampling").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_the_warnings_that_are_explained_are_those_of_the_library():
    rows = re.findall(r"^\| (\*.+?\*) \| .+ \|$", (PAGES / "faq.md").read_text(encoding="utf-8"), re.MULTILINE)
    explained = [
        phrase.strip() for row in rows for phrase in re.split(r"\*, \*|\.\.\.", row.strip("*")) if phrase.strip()
    ]
    assert len(explained) > 30
    library = "\n".join(messages())
    assert not [phrase for phrase in explained if phrase not in library]


FIGURE = dict(median=2.0, quartiles=[1.0, 4.0], n=3)


def group(task="digits", **figures):
    """As `equal_time.py` writes them."""
    ways = [dict(way=way, train_loss=FIGURE, steps=FIGURE, **figures) for way in ("uniform", "reshuffle", "biased")]
    return dict(task=task, protocol="anytime", by="seconds", budget=15.0, unit="%", ways=ways)


def filled(marker, files, before=""):
    """The text between the lines of a marker, which contained `before`."""
    begin, end = f"<!-- begin {marker} -->\n", "\n<!-- end -->"
    text = fill.filled(f"A\n\n{begin}{before}<!-- end -->\n\nB", files)
    assert text.startswith(f"A\n\n{begin}\n") and text.endswith(f"\n{end}\n\nB")
    return text.split(begin)[1].split(end)[0].strip()


def test_the_tables_in_the_pages_are_those_of_the_files_of_measurements():
    files = fill.measurements()
    texts = {page: page.read_text(encoding="utf-8") for page in PAGES.rglob("*.md")}
    assert sum(text.count("<!-- begin ") for text in texts.values()) > 20
    changed = [str(page.relative_to(ROOT)) for page, text in texts.items() if fill.filled(text, files) != text]
    assert not changed, f"Run `python docs/fill.py`. Not up to date: {changed}"


def test_only_pages_that_are_another_file_include_one():
    pages = {page.name for page in PAGES.rglob("*.md") if "--8<--" in page.read_text(encoding="utf-8")}
    assert pages == {"changelog.md", "contributing.md", "examples.md"}


def markdown(path):
    """The text of a page, or of the cells of text in a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return text


def test_links_lead_to_files_of_the_repository():
    missing = []
    others = [ROOT / "README.md", ROOT / "docs/CONTRIBUTING.md", ROOT / "docs/CHANGELOG.md"]
    for page in (*others, ROOT / "examples/README.md", *ROOT.glob("examples/*.ipynb"), *PAGES.rglob("*.md")):
        text = re.sub(r"```.*?```|`[^`\n]+`|\$[^$]+\$", "", markdown(page), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            path = link.split("#")[0]
            if not (link.startswith(("https:", "#")) or (page.parent / path).exists()):
                missing.append(f"{page.relative_to(ROOT)}: {link}")
    assert not missing


def test_what_a_part_contained_before_is_replaced():
    text = filled("measured: reshuffle", {"trainers": [group()]}, before="\n| old |\n\n")
    assert text and "old" not in text


def test_a_table_of_measurements_is_made_of_the_file_alone():
    text = filled("measured: reshuffle", {"trainers": [group()]})
    assert text.startswith("## Measured\n\nTask `digits`. Budget: 15 seconds")
    assert "medians of 3 seeds" in text
    assert re.search(r"^\| way +\| training loss +\| steps +\|$", text, re.MULTILINE)  # nobody has the other columns
    assert re.search(r"^\| reshuffle \| 2 \(1 to 4\) ", text, re.MULTILINE)
    assert re.search(r"^\| uniform ", text, re.MULTILINE)
    assert "biased" not in text
    assert "| biased" in filled("measured: all", {"trainers": [group()]})


def test_tables_of_a_file_have_a_heading_for_each_task():
    text = filled("tables: anytime", {"anytime": [group(), group("mnist_mlp")]})
    assert re.findall("^### (.*)$", text, re.MULTILINE) == ["digits", "mnist_mlp"]
    assert text.count("| biased") == 2
    assert "MNIST digits, with a perceptron" in text  # the docstring of the task's module
    longer = dict(group(), budget=60.0)
    text = filled("tables: budget", {"budget": [group(), longer]})
    assert re.findall("^### (.*)$", text, re.MULTILINE) == ["digits, 15 seconds", "digits, 60 seconds"]


def test_headings_name_the_schedules_if_a_task_has_several():
    groups = [dict(group(), protocol="budget", schedule=schedule) for schedule in ("cosine", "steps")]
    text = filled("tables: budget", {"budget": groups})
    headings = ["digits, budget, 15 seconds", "digits, budget, steps, 15 seconds"]
    assert re.findall("^### (.*)$", text, re.MULTILINE) == headings
    assert text.count("follows a cosine to zero") == text.count("divided by 10 after a half") == 1


def test_gains_have_a_row_for_each_task():
    over = {"train_loss over uniform": dict(median=0.5, quartiles=[0.5, 0.5], n=3)}
    text = filled("gains: biased in budget", {"budget": [group(**over), group("mnist_mlp", **over)]})
    lines = text.splitlines()
    assert len(lines) == 4 and lines[0].startswith("| task ")
    assert re.match(r"^\| `digits` +\| 0.5 +\|$", lines[2])


def test_methods_have_a_row_each_with_their_figures_side_by_side():
    def measured(file, task, error, loss):
        ratios = {
            "test_error over uniform": dict(FIGURE, median=error),
            "train_loss over uniform": dict(FIGURE, median=loss),
        }
        return dict(
            group(task), ways=[dict(way=way, **ratios) for other, way in fill.METHODS.values() if other == file]
        )

    files = {
        "equal_cost": [measured("equal_cost", "a", 0.9, 0.5), measured("equal_cost", "b", 1.2, 0.7)],
        "skipping": [measured("skipping", "b", 0.95, 1.1), measured("skipping", "c", 3.0, 3.0)],
    }
    heading, _, *lines = filled("side-by-side: test_error", files).splitlines()
    assert heading == "| method | `a` | `b` | training loss |"
    cells = {line.split("| ", 2)[2] for line in lines}
    assert len(lines) == len(fill.METHODS) and "0.90 | 1.20 | 0.50 to 0.70 |" in cells
    assert " | 0.95 | 1.10 to 1.10 |" in cells and len(cells) == 2  # it wasn't measured on the first task


def test_a_way_with_options_is_named_as_in_its_table():
    rows = [dict(way="biased, 90%", **{"test_loss over uniform": dict(median=0.5, quartiles=[0.5, 0.5], n=3)})]
    text = filled("gains: biased, 90% in equal_cost", {"equal_cost": [group() | dict(ways=rows)]})
    assert "0.50" in text.splitlines()[2]


def test_a_marker_without_figures_is_an_error():
    for place in (
        "measured: svrg",
        "tables: anytime",
        "gains: default in anytime",
        "test-loss: default in anytime",
        "side-by-side: test_error",
    ):
        with pytest.raises(ValueError, match=f"No file .* <!-- begin {place} -->"):
            filled(place, {})
    with pytest.raises(ValueError, match="Received: 'tabels'"):
        filled("tabels: anytime", {"anytime": [group()]})


def test_a_biased_trainer_says_so_in_the_first_line_of_its_docstring_and_of_its_card():
    for name in training.__all__:
        text = card(name).read_text(encoding="utf-8")
        first = text.split("\n\n")[1].splitlines()[0]
        verdict = text.split("## Biased or not\n\n")[1]
        is_biased = verdict.startswith("Biased")
        assert bool(re.search(r"\bbiased\b", first)) == is_biased, name
        assert not is_biased or "Biased" in inspect.getdoc(getattr(training, name)).splitlines()[0], name
