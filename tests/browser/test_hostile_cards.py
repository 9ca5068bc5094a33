"""Sixty texts that want to be more than text, in every field that cards and saved pages show, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import nbformat
import pytest
from msgspec.structs import replace
from nbconvert import HTMLExporter
from playwright.sync_api import Browser, Route

from nbjobs.details import Output, details
from nbjobs.face import face
from nbjobs.intake import text
from nbjobs.runview import RunView
from nbjobs.summary import Several
from nbjobs.widgets import display

from ..hostile import HARMLESS, HOSTILE
from ..widgets.shown import bases, filled, marked
from .cards import CardPage

FILL = set(marked(RunView)) - {"after", "attempts.reason"}
BASES = ("failed, opened", "completed, opened", "resumed, opened", "changed", "by cursor")

# Mounts each card, opens it where it can be opened, and tells of each what it is made of and what it says.
_MEASURE = """async given => {
    for (const [key, face, details] of given) {
        cards.mount(key, face, false, details);
        document.querySelector(`[data-key="${CSS.escape(key)}"] [data-action=expand]`)?.click();
    }
    await new Promise(done => setTimeout(() => requestAnimationFrame(done), 400));
    return given.map(([key]) => {
        const el = document.querySelector(`[data-key="${CSS.escape(key)}"]`);
        const all = [...el.querySelectorAll("*")];
        const shape = all.map(one => one.tagName + one.getAttributeNames().sort()).sort().join();
        const said = el.textContent + all.flatMap(one => [one.title, one.getAttribute("aria-label")]).join(" ");
        return [key, shape, said, el.textContent];
    });
}"""
# The same text in each field, uncleaned, as a page that was tampered with would have it.
_RAW = """([strings, face, details]) => {
    const everywhere = (value, bad) =>
        Array.isArray(value) ? value.map(one => everywhere(one, bad))
        : value && typeof value === "object"
            ? Object.fromEntries(Object.entries(value).map(([k, one]) =>
                [k, k === "kind" || k === "do" ? one : everywhere(one, bad)]))
        : typeof value === "string" && value ? bad : value;
    window.strings = strings.map(([key, bad]) => bad);
    const some = key => key.startsWith("a megabyte"); // laid out in a few fields only, for time's sake
    window.given = strings.map(([key, bad]) => some(key)
        ? [key, { ...face, name: bad, headline: bad, error: bad }, details]
        : [key, everywhere(face, bad), everywhere(details, bad)]);
}"""
_SAID = "([key, shape, , text], i) => [key, shape, text.includes(strings[i])]"


class Guard:
    """Notes what a page does beside showing text."""

    def __init__(self, page: CardPage) -> None:
        self._cards = page
        self.dialogs: list[str] = []
        page.page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        page.page.on("popup", lambda popup: self.dialogs.append(popup.url))
        self._asked = len(page.asked)
        self._place = page.page.url

    def holds(self) -> None:
        """No request, no dialog, no error, and still the same page."""
        assert self._cards.asked[self._asked :] == []
        assert (self.dialogs, self._cards.errors) == ([], [])
        assert self._cards.page.url == self._place
        assert self._cards.page.evaluate("typeof jupyterapp + typeof MathJax") == "undefinedundefined"


@pytest.fixture
def guard(cards: CardPage) -> Iterator[Guard]:
    made = Guard(cards)
    yield made
    made.holds()


def worded(view: RunView) -> list[Any]:
    output = Output(0, tuple(("stdout", view.job) for _ in range(2)))
    return [msgspec.to_builtins(face(view)), msgspec.to_builtins(details(view, output))]


@pytest.mark.fault(44)
def test_cards_show_it_letter_for_letter(cards: CardPage, guard: Guard) -> None:
    """Open cards of each kind, each text in each field: no element or attribute more, and the text as it came in."""
    for base in BASES:
        view = bases()[base]
        made = {name: worded(filled(view, FILL, bad)) for name, bad in [("", HARMLESS), *HOSTILE.items()]}
        given = [[f"{base} {name}", *parts] for name, parts in made.items()]
        (_, shape, said, _), *others = cards.page.evaluate(_MEASURE, given)
        assert "<" not in shape and said.count(HARMLESS) > 5
        for (key, bad), (_, made_of, says, _) in zip(HOSTILE.items(), others, strict=True):
            assert made_of == shape, (base, key)
            assert text(bad).rpartition(".")[2] in says, (base, key)
        cards.page.evaluate("document.body.replaceChildren()")


@pytest.mark.fault(44)
def test_cards_show_what_nobody_cleaned(cards: CardPage, guard: Guard) -> None:
    """A face that was tampered with is text as well, a megabyte of it too."""
    shown = worded(bases()["failed, opened"])
    strings = [["", HARMLESS], ["a megabyte less", HARMLESS], *map(list, HOSTILE.items())]
    cards.page.evaluate(_RAW, [strings, *shown])
    (_, all_over, _), (_, here, _), *others = cards.page.evaluate(
        f"async () => (await ({_MEASURE})(given)).map({_SAID})"
    )
    assert [key for key, shape, _ in others if shape != (here if key.startswith("a megabyte") else all_over)] == []
    assert [key for key, _, says in others if not says] == []


@pytest.mark.fault(44)
def test_a_card_of_several_runs_shows_it(browser: Browser) -> None:
    """Names of runs and errors of the cells are text."""
    page = CardPage(browser)
    page.open(page="runs.html")
    guard = Guard(page)
    failed = bases()["failed"]
    for name, bad in [("", HARMLESS), *HOSTILE.items()]:
        views = [replace(filled(failed, FILL, bad), run=f"r{number}") for number in range(3)]
        page.mount(name, msgspec.to_builtins(Several(views).summary()))
    shape = (
        "all => all.map(el => [...el.querySelectorAll('*')].map(o => o.tagName + o.getAttributeNames().sort()).join())"
    )
    assert len(set(page.page.locator(".nbjobs-runs").evaluate_all(shape))) == 1
    guard.holds()
    page.close()


def notebook(*texts: str) -> str:
    """The page that nbconvert makes of saved runs with these texts in every field."""
    bundles = [
        display.bundle(filled(bases()[base], FILL, bad)) for bad in texts for base in ("failed, opened", "changed")
    ]
    outputs = [nbformat.v4.new_output("display_data", data=data) for data in bundles]
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("run", outputs=outputs)])
    page: str = HTMLExporter().from_notebook_node(made)[0]
    return page


class Opened:
    """A page that was opened: its elements, the addresses it asked for, its text, and what popped up."""

    def __init__(self, browser: Browser, html: str, scripts: bool) -> None:
        self.asked: set[str] = set()
        self.dialogs: list[str] = []
        self._html = html
        context = browser.new_context(java_script_enabled=scripts)
        page = context.new_page()
        page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        context.route("**/*", self._answer)
        page.goto("http://saved.test/page")
        self.said = page.locator("body").text_content() or ""
        elements = page.locator("body *")
        self.elements = elements.evaluate_all("all => all.map(one => one.tagName + one.getAttributeNames())")
        context.close()

    def _answer(self, route: Route) -> None:
        self.asked.add(route.request.url)
        if route.request.url.endswith("/page"):
            route.fulfill(body=self._html, content_type="text/html; charset=utf-8")
        else:
            route.abort()


@pytest.mark.fault(44)
@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
def test_converted_pages_show_it(browser: Browser, scripts: bool) -> None:
    """A page of nbconvert's has no element, request or dialog more than with harmless texts."""
    plain = Opened(browser, notebook(*[HARMLESS] * len(HOSTILE)), scripts)
    hostile = Opened(browser, notebook(*HOSTILE.values()), scripts)
    assert hostile.elements == plain.elements
    assert hostile.asked == plain.asked
    assert (hostile.dialogs, plain.dialogs) == ([], [])
    assert [name for name, bad in HOSTILE.items() if text(bad) not in hostile.said] == []
