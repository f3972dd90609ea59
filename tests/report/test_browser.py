"""The page in a real browser: nothing fetched, nothing logged, nothing too wide, all images there.

Needs Chromium (`apt-get install chromium`).
"""

import shutil

import pytest

from distillation.report.page import write_report
from tests.report.conftest import PARAMETERS

BROWSER = next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None
)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium: apt-get install chromium")

WIDTHS = (360, 1280)
A4_WIDTH = 718
"""Pixels between margins of 10 mm."""
SCHEMES = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}
LONG = "a-class-whose-name-is-much-longer-than-any-column-of-a-phone-could-ever-be"


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def reports(make_project, tmp_path_factory):
    """Write a usual report and one with everything that is long or many."""
    directory = tmp_path_factory.mktemp("reports")
    write_report(directory / "usual.html", make_project().read("control", "exp1", "exp2", "exp3"))
    methods = ("control", "exp1", "exp2", "exp3", "attention", "dist", "dkd", "exp3_scaled", "mine")
    classes = [f"{LONG}-{number}" for number in range(100)]
    many = make_project(methods=methods, classes=classes, num_test=400, image_size=120)
    parameters = {
        **PARAMETERS,
        "dataset": f"/{LONG}/{LONG}",
        "student_checkpoint": LONG.replace("-", ""),
    }
    write_report(directory / "many.html", many.read(*methods, parameters=parameters))
    return directory


@pytest.fixture
def open_page(browser, reports):
    """Give a function that opens a report and remembers what the browser said and fetched."""
    contexts = []

    def open_report(name, **settings):
        context = browser.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        said, fetched = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: fetched.append(request.url))
        page.goto((reports / f"{name}.html").as_uri())
        return page, said, fetched

    yield open_report
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["usual", "many"])
def test_the_page_is_whole(open_page, reports, name, width, scheme):
    page, said, fetched = open_page(
        name, viewport={"width": width, "height": 800}, color_scheme=scheme
    )
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert said == []
    address = (reports / f"{name}.html").as_uri()
    assert [url for url in fetched if not url.startswith("data:")] == [address]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    images = "Array.from(document.images)"
    assert page.evaluate(f"{images}.length") > 20
    assert page.evaluate(f"{images}.every(one => one.complete && one.naturalWidth > 0)")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == SCHEMES[scheme]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_pictures_are_drawn_in_the_colours_of_the_scheme(open_page, scheme):
    page, _, _ = open_page("usual", viewport={"width": 1280, "height": 800}, color_scheme=scheme)
    labels = "document.querySelector('.wide svg text')"
    seen = page.evaluate(f"getComputedStyle({labels}).fill")
    assert seen == {"light": "rgb(92, 102, 115)", "dark": "rgb(162, 171, 184)"}[scheme]
    families = page.evaluate(
        f"[getComputedStyle({labels}).fontFamily, getComputedStyle(document.body).fontFamily]"
    )
    assert families[0] == families[1]
    # A variable that is not defined would leave a line black or without a stroke.
    undefined = page.evaluate(
        """() => Array.from(document.querySelectorAll('svg [style*="var("]'))
            .flatMap(one => one.getAttribute('style').match(/var\\((--[\\w-]+)\\)/g))
            .map(one => one.slice(4, -1))
            .filter(one => !getComputedStyle(document.documentElement).getPropertyValue(one))"""
    )
    assert undefined == []


@pytest.mark.parametrize(("width", "shown"), [(360, ".narrow"), (1280, ".wide")])
def test_each_large_picture_is_shown_in_one_of_its_two_forms(open_page, width, shown):
    page, _, _ = open_page("usual", viewport={"width": width, "height": 800})
    for name in (".narrow", ".wide"):
        forms = page.locator(f"{name} svg").all()
        assert [form.is_visible() for form in forms] == [name == shown] * 2


@pytest.mark.parametrize("width", WIDTHS)
def test_text_in_pictures_is_large_enough_to_read(open_page, width):
    page, _, _ = open_page("usual", viewport={"width": width, "height": 800})
    smallest = page.evaluate(
        """() => Math.min(...Array.from(document.querySelectorAll('svg.picture text'))
            .filter(one => one.getClientRects().length)
            .map(one => parseFloat(getComputedStyle(one).fontSize) * one.getScreenCTM().a
                 || Infinity))"""
    )
    assert 6 <= smallest < 20


@pytest.mark.parametrize("name", ["usual", "many"])
def test_a_wide_table_scrolls_on_a_phone_under_the_names_of_its_rows(open_page, name):
    page, _, _ = open_page(name, viewport={"width": 360, "height": 800})
    table = page.locator("#summary .scroll")
    hidden = "one => one.scrollWidth - one.clientWidth"
    assert table.evaluate(hidden) > 100
    left = "one => one.querySelector('tbody td').getBoundingClientRect().left"
    before = table.evaluate(left)
    table.evaluate("one => { one.scrollLeft = 100 }")
    assert table.evaluate("one => one.scrollLeft") == 100
    assert table.evaluate(left) == before
    assert page.locator(".few").first.locator("..").evaluate(hidden) == 0


@pytest.mark.parametrize("name", ["usual", "many"])
def test_a_printed_page_is_light_and_fits_on_paper(open_page, name):
    page, _, _ = open_page(name, viewport={"width": A4_WIDTH, "height": 1000}, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == SCHEMES["light"]
    assert page.evaluate("document.documentElement.scrollWidth") == A4_WIDTH
    assert page.pdf().startswith(b"%PDF")
