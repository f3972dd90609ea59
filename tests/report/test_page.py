"""The whole page: self-contained, escaped, the same for the same input, with any methods."""

import json
import re
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest

from distillation.report.page import render, typeset, write_report
from tests.helpers.sealed import reseal
from tests.report.conftest import PARAMETERS

pytestmark = pytest.mark.slow

NASTY = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"
TEN = (
    *("control", "exp1", "exp2", "exp3", "attention"),
    *("dist", "dkd", "exp3_scaled", "similarity", "mine"),
)
SECTIONS = [
    "summary",
    "curves",
    "cost",
    "training-cost",
    "classes",
    "images",
    "calibration",
    "data",
    "reproduce",
]


class Page(HTMLParser):
    """Collects elements, and checks that every one is closed."""

    VOID = frozenset({"meta", "link", "img", "line", "br"})

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self._open = [], [], []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def html(make_project):
    return render(make_project().read("control", "exp1", "exp2", "exp3"))


def test_the_sections_come_in_the_order_a_person_asks(html):
    page = Page(html)
    assert [one["id"] for tag, one in page.elements if tag == "section"] == SECTIONS
    links = [one["href"] for tag, one in page.elements if tag == "a"]
    assert links == [f"#{name}" for name in SECTIONS]


def test_nothing_comes_from_elsewhere(html):
    page = Page(html)
    assert not {"script", "iframe", "object", "base"} & {tag for tag, _ in page.elements}
    for tag, attributes in page.elements:
        for key in ("src", "href", "xlink:href", "srcset", "data"):
            value = attributes.get(key) or "#"
            assert value.startswith(("#", "data:image/")), (tag, key, value)
        assert not any(key.startswith("on") for key in attributes)
        assert "url(http" not in (attributes.get("style") or "")
    assert "@import" not in html
    assert set(re.findall(r"https?://[^\"'\s<)]+", html)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_no_element_has_the_id_of_another(html):
    page = Page(html)
    ids = [one["id"] for _, one in page.elements if "id" in one]
    assert len(ids) == len(set(ids))


def test_the_same_input_gives_the_same_bytes(html, project, tmp_path):
    path = tmp_path / "report" / "index.html"
    write_report(path, project.read("control", "exp1", "exp2", "exp3"))
    assert path.read_text(encoding="utf-8") == html
    assert list(path.parent.iterdir()) == [path]


def test_class_and_file_names_are_text(make_project):
    project = make_project(classes=(NASTY, "a & b", "日本語"))
    meta = project.prepared / "meta.json"
    meta.write_text(meta.read_text().replace("shapes", "<b onclick=x>shapes</b>"))
    reseal(project.prepared)
    baseline = project.metrics / "baseline.json"
    baseline.write_text(baseline.read_text().replace('"big"', '"<i>big</i>"'))
    parameters = {**PARAMETERS, "dataset": "/<script>/' --><svg onload=x>"}
    html = render(project.read("control", "exp1", parameters=parameters))
    page = Page(html)
    tags = {tag for tag, _ in page.elements}
    assert not {"script", "b"} & tags
    assert all(not key.startswith("on") for _, one in page.elements for key in one)
    assert {one["src"][:11] for tag, one in page.elements if tag == "img"} == {"data:image/"}
    text = "".join(page.text)
    for name in (NASTY, "a & b", "日本語", "<i>big</i> → small", "<b onclick=x>shapes</b>"):
        assert name in text


@pytest.mark.parametrize(
    ("methods", "settings"),
    [
        (("control",), {"classes": ("cat", "dog"), "seeds": (0,)}),
        (("exp2",), {"classes": ("cat", "dog"), "deploy": False}),
        (("control", "exp1"), {"epochs": 0}),
        (TEN, {"classes": [f"class {number}" for number in range(100)], "num_test": 500}),
    ],
    ids=["one method, two classes", "no control", "untrained", "ten methods, 100 classes"],
)
def test_any_number_of_methods_and_classes(make_project, methods, settings):
    page = Page(render(make_project(methods=methods, **settings).read(*methods)))
    text = "".join(page.text)
    assert [one["id"] for tag, one in page.elements if tag == "section"] == SECTIONS
    assert all(method in text for method in methods)
    assert not {"nan", "None", "inf"} & set(re.findall(r"\w+", text))


def test_many_classes_have_a_column_of_top5_accuracy(html, make_project, undrawn):
    assert "top-5" not in html.lower()
    project = make_project(classes=[f"class {number}" for number in range(20)])
    inputs = project.read("control", "exp1")
    page = render(inputs)
    for records in (inputs.methods["control"], inputs.methods["exp1"]):
        mean = sum(record["best_top5"] for record in records) / len(records)
        assert f">{mean:.2f}<small>±" in page
    assert f"the teacher’s is {inputs.teacher[0]['best_top5']:.2f}." in page
    heads = re.findall(r"<thead>(.*?)</thead>", page, re.DOTALL)[0].split("</tr>")
    spans = [int(span or 1) for span in re.findall(r'<th(?:[^>]*?colspan="(\d+)")?', heads[0])]
    assert sum(spans) == heads[1].count("<th")
    # Files of former versions do not have it.
    path = project.metrics / "seeds" / "control.json"
    path.write_text(path.read_text().replace("best_top5", "former"))
    assert "top-5" not in render(project.read("control", "exp1")).lower()


def test_commit_and_commands_bring_the_run_back(html, project, undrawn):
    assert "The code is that of commit c0ffee0000 of 2026-03-01." in html
    commands = unescape(html[html.index("<pre") : html.index("</pre>")]).splitlines()
    assert commands[0].endswith(f">git checkout c0ffee{34 * '0'}")
    assert commands[1:3] == ["make setup", ". .venv/bin/activate"]
    assert commands[3].startswith("DISTILLATION_DEVICE=cpu OMP_NUM_THREADS=2 dvc exp run ")
    path = project.metrics / "seeds" / "exp1.json"
    path.write_text(
        path.read_text().replace('"uncommitted_changes": false', '"uncommitted_changes": true')
    )
    changed = render(project.read("control", "exp1"))
    assert "The code had changes that no commit holds when these were trained: exp1." in changed


def test_what_is_not_measured_is_shown_as_missing(make_project, undrawn):
    html = render(make_project(deploy=False).read("control", "exp1"))
    assert "Sizes and speeds are missing" in html


def test_what_the_export_says_stands_in_the_report(make_project, undrawn):
    project = make_project()
    deploy = project.read("control").deploy
    project.write("deploy.json", deploy | {"remarks": ["There is no student.onnx: <no>"]})
    assert "<li>There is no student.onnx: &lt;no&gt;</li>" in render(project.read("control"))
    left = {key: value for key, value in deploy["models"]["student"].items() if key == "acc"}
    project.write("deploy.json", deploy | {"models": {"student": left}, "agreement": None})
    html = render(project.read("control"))
    assert "Speeds are missing: no ONNX file of the student is shipped" in html


def test_an_export_of_another_method_is_said(html, make_project, undrawn):
    # The export is of exp3, the best.
    assert "another method’s" not in html
    assert "The exported student is another method’s: exp3." in render(
        make_project().read("control", "exp1")
    )


def test_a_control_in_place_of_a_method_is_taken_everywhere(make_project, undrawn):
    project = make_project(methods=("exp1", "control"))  # the later is the better one
    path = project.metrics / "seeds" / "exp1.json"
    content = json.loads(path.read_text())
    for record in content["seeds"]:
        record["validation_acc"] = 99.0
        record["best_acc"] = 20.0
    path.write_text(json.dumps(content))
    project.write("deploy.json", project.read("control").deploy | {"method": "exp1"})
    html = render(project.read("control", "exp1"))
    assert "Take the control, the student trained by labels alone: exp1 has the highest" in html
    assert "The exported student is another method’s: exp1." in html
    row = html[html.index('<tr class="chosen">') :]
    assert "control</span>" in row[: row.index("</tr>")]


def test_a_broken_picture_leaves_the_old_report(project, tmp_path, monkeypatch):
    path = tmp_path / "index.html"
    write_report(path, project.read("control"))
    before = path.read_bytes()

    def fail(*arguments, **named):
        raise RuntimeError("no picture")

    monkeypatch.setattr("distillation.report.page.draw_calibration", fail)
    with pytest.raises(RuntimeError, match="no picture"):
        write_report(path, project.read("control", "exp1"))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_numbers_are_typeset():
    said = "exp-1 is at -3.00 (95 % CI -4.00 … -2.00, n = 3), not well-off"
    assert typeset(said) == (
        "exp-1 is at −3.00 (95\u00a0% CI −4.00 … −2.00, n\u00a0=\u00a03), not well-off"
    )


def test_a_large_majority_and_an_absent_class_are_said_where_accuracy_is_read(make_project):
    labels = np.array([0] * 36 + [1] * 4)
    page = render(make_project(test_labels=labels).read("control", "exp1"))
    figures = page[page.index('<dl class="figures">') : page.index("</dl>")]
    assert "<dt>majority class</dt><dd>90.00 %</dd>" in figures
    assert "always predicting circle" in figures
    assert "of the test images are circle: always predicting it has that accuracy." in page
    assert "The test split has no image of star: nothing is measured there, and" in page
    assert "1 of 3 classes has no test image: its row is empty." in page
    assert page.count("no test image</td>") == 1
    assert "nan" not in re.sub(r"[\w]nan|nan[\w]", "", page.lower())


def test_the_large_numbers_are_of_the_best_epochs(project, undrawn):
    def figures():
        page = render(project.read("control", "exp1"))
        return page[page.index('<dl class="figures">') : page.index("</dl>")]

    before = figures()
    for place, name in enumerate(("control", "exp1")):
        path = project.metrics / "seeds" / f"{name}.json"
        content = json.loads(path.read_text())
        for record in content["seeds"]:
            record["after_acc"] = 50.0 - 30.0 * place
        path.write_text(json.dumps(content))
    assert figures() == before, "what the last epoch is does not count"
    assert "points at the best epochs" in before
    assert "2 seeds, at the best epochs" in before


def test_a_class_name_that_is_cut_has_a_tooltip(make_project):
    long = [f"{letter} & a name that no picture has room for" for letter in "abc"]
    html = render(make_project(classes=(*long, "short")).read("control", "exp1"))
    page = Page(html)
    titles = re.findall(r"<g id=\"([\w-]+)\"><title>([^<]*)</title>", html)
    for name in long:
        of_name = [place for place, title in titles if unescape(title) == name]
        for start in ("confusion-1-x", "confusion-1-y", "confusion-change-x", "recall-y"):
            assert [one for one in of_name if one.startswith(start)], (name, start)
        for kind in ("bar-name", "name"):
            assert ("span", {"class": kind, "title": name}) in page.elements
    assert not [title for _, title in titles if title == "short"], "it is not cut"


def test_an_even_set_has_neither(html):
    assert "majority class" not in html
    assert "gain_*" not in html, "the table has no such heading"
    assert "no test image" not in html
