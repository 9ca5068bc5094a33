"""The card drawn by a real browser from fixed faces: looks, words, manners."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from nbjobs import words

from ..widgets.faces import gallery
from .cards import CardPage

FACES = gallery()
ENDS = ("failed", "dead")
_SIZES = """() => [...document.querySelectorAll(".nbjobs-card")]
    .map(el => [el.parentElement.dataset.key, el.offsetHeight, el.scrollWidth - el.clientWidth])"""
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "<svg onload=alert(1)>",
    "javascript:alert(1)",
    '"><b id=MathJax data-commandlinker-command=x>',
    "{{constructor.constructor('alert(1)')()}}",
    "expression(alert(1));background:url(//evil.test/x)",
    "\u202egnp.exe",
    "x" * 100_000,
]


def face(name: str, **changes: Any) -> dict[str, Any]:
    """A fixed face, made just now."""
    return {**gallery()[name], **changes}


_WHOLE = """() => [...document.querySelectorAll(".nbjobs-card")].flatMap(card => {
    const box = card.querySelector(".nbjobs-facts").getBoundingClientRect();
    return [...card.querySelectorAll(".nbjobs-fact")].filter(fact => fact.offsetParent).map(fact => {
        const {right, bottom} = fact.getBoundingClientRect();
        const text = fact.querySelector(".nbjobs-text");
        const whole = text.scrollWidth <= text.clientWidth && right <= box.right + 1 && bottom <= box.bottom + 1;
        return [card.closest("[data-key]").dataset.key, fact.dataset.kind, whole];
    });
})"""


@pytest.mark.parametrize(
    ("name", "width", "options"),
    [
        ("light", 720, {}),
        ("dark", 720, {"color_scheme": "dark"}),
        ("320", 320, {}),
        ("240", 240, {}),
        ("forced", 720, {"color_scheme": "dark", "forced_colors": "active"}),
        ("still", 720, {"reduced_motion": "reduce"}),
        ("lab-light", 720, {"theme": "light"}),
        ("lab-dark", 720, {"theme": "dark"}),
        ("lab-high-contrast", 720, {"theme": "dark-high-contrast"}),
    ],
)
def test_every_state_fits(browser: Browser, artifacts: Path, name: str, width: int, options: dict[str, Any]) -> None:
    """Each state has the same height (an error one line more), and nothing sticks out; pictures are kept."""
    theme = options.pop("theme", None) if "theme" in options else None
    page = CardPage(browser, width, **options).open(theme)
    page.mount_all(gallery())
    page.paint()
    page.page.screenshot(path=artifacts / f"cards-{name}.png", full_page=True, animations="disabled")
    height = {320: 72, 240: 88}.get(width, 56)
    for key, tall, over in page.page.evaluate(_SIZES):
        assert over == 0, key
        assert tall == height or (key in ENDS and height < tall <= height + 32), (key, tall)
    assert page.errors == []
    page.close()


def test_what_there_is_to_be_noticed_is_read_whole(cards: CardPage) -> None:
    """A note is not cut at any width; of a resumed run with newer code on disk both are there."""
    cards.mount_all(gallery())
    for width in (240, 320, 400, 480, 560, 640, 720):
        cards.page.set_viewport_size({"width": width + 24, "height": 400})
        cards.paint()
        whole = cards.page.evaluate(_WHOLE)
        assert sum(kind == "note" for _, kind, _ in whole) >= 7
        assert [(width, key) for key, kind, shown in whole if kind == "note" and not shown] == []
        assert ["newer code", "resumed", True] in whole


def test_the_root_tells_tests_and_styles_what_it_shows(cards: CardPage) -> None:
    """The data attributes of every state are those of its face."""
    for key, shown in FACES.items():
        card = cards.mount(key, shown)
        for attribute in ("run", "state", "step", "attempt", "resumed", "n"):
            expect(card).to_have_attribute(f"data-{attribute}", str(shown[attribute]))
        marks = (card.get_attribute("data-marks") or "").split()
        assert set(shown["marks"]) <= set(marks)


def test_words_are_shown_as_they_came(cards: CardPage) -> None:
    """Name, headline, percent and facts stand in the card letter for letter."""
    shown = FACES["resumed"]
    card = cards.mount("a", shown)
    expect(card.locator(".nbjobs-title")).to_have_text("import_orders Step 2 · load rows")
    expect(card.locator(".nbjobs-percent")).to_have_text("62 %")
    facts = card.locator(".nbjobs-fact")
    assert facts.all_text_contents() == [fact["text"] for fact in shown["facts"]]
    error = cards.mount("b", FACES["failed"]).locator(".nbjobs-error")
    expect(error).to_have_text("ValueError: row 12,432: expected 14 columns, found 13")


def test_the_bar_shows_done_earlier_and_notch(cards: CardPage) -> None:
    """Filled is what is done, hatched what earlier attempts did, the notch where this one went on."""
    card = cards.mount("a", face("resumed", bar={"done": 0.5, "earlier": 0.25, "notch": 0.25}))
    cards.paint()
    cards.page.wait_for_timeout(300)  # the bar's own movement
    bar = card.locator(".nbjobs-bar").bounding_box()
    assert bar is not None
    for part, share in (("fill", 0.5), ("earlier", 0.25)):
        box = card.locator(f".nbjobs-{part}").bounding_box()
        assert box is not None
        assert box["x"] + box["width"] == pytest.approx(bar["x"] + share * bar["width"], abs=1.5)
    notch = card.locator(".nbjobs-notch").bounding_box()
    assert notch is not None
    assert notch["x"] == pytest.approx(bar["x"] + 0.25 * bar["width"], abs=1.5)


def test_the_bar_speaks_to_screen_readers(cards: CardPage) -> None:
    """A progressbar with a name, a value where it is known, and the whole story as its text."""
    known = cards.mount("a", FACES["resumed"]).get_by_role("progressbar", name="import_orders")
    expect(known).to_have_attribute("aria-valuenow", str(FACES["resumed"]["bar"]["done"]))
    expect(known).to_have_attribute("aria-valuetext", FACES["resumed"]["aria"])
    assert "62 percent" in FACES["resumed"]["aria"]
    for key in ("plain step", "queued"):
        unknown = cards.mount(key, FACES[key]).get_by_role("progressbar")
        assert unknown.get_attribute("aria-valuenow") is None
        assert unknown.get_attribute("aria-valuetext")


def test_a_flood_is_painted_ten_times_a_second_at_most(cards: CardPage) -> None:
    """Of 250 faces in a second about ten are drawn, never two within 100 ms, and the last one is."""
    clock = cards.page.clock
    clock.install(time=0)
    clock.pause_at(1000)
    card = cards.mount("a", face("running", n=0))
    cards.page.evaluate(
        """() => {
            window.drawn = [];
            const root = document.querySelector(".nbjobs-card");
            new MutationObserver(() => drawn.push(performance.now()))
                .observe(root, {attributes: true, attributeFilter: ["data-n"]});
        }"""
    )
    for n in range(1, 251):
        cards.set("a", face("running", n=n))
        clock.run_for(4)
    clock.run_for(200)
    times = cards.page.evaluate("drawn")
    assert 8 <= len(times) <= 11
    assert all(later - earlier >= 100 for earlier, later in itertools.pairwise(times)), times
    expect(card).to_have_attribute("data-n", "250")


def test_news_after_a_quiet_moment_is_drawn_at_once(cards: CardPage) -> None:
    """Not a frame later; what follows within 100 ms waits its turn, the last of it is drawn."""
    cards.mount("a", FACES["queued"])
    cards.page.wait_for_timeout(150)
    drawn = cards.page.evaluate(
        """([running, resumed]) => {
            const root = document.querySelector(".nbjobs-card");
            return [running, resumed].map(face => { cards.set("a", face); return root.dataset.n; });
        }""",
        [face("running", n=5), face("resumed", n=6)],
    )
    assert drawn == ["5", "5"]
    expect(cards.card("a")).to_have_attribute("data-n", "6")


def test_an_end_is_drawn_at_once(cards: CardPage) -> None:
    """The saved output replaces the card right after the end: the end must have been drawn by then."""
    cards.mount("a", FACES["resumed"])
    state = cards.page.evaluate(
        "face => { cards.set('a', face); return document.querySelector('.nbjobs-card').dataset.state }",
        FACES["completed"],
    )
    assert state == "completed"


def test_going_back_and_catching_up_are_not_animated(cards: CardPage) -> None:
    """The next step begins at its left end, without the bar running backwards."""
    cards.mount("a", FACES["resumed"])
    cards.paint()
    cards.set("a", face("running", bar={"done": 0.1, "earlier": 0, "notch": None}))
    cards.paint()
    assert cards.page.evaluate("document.getAnimations().length") == 0
    cards.set("a", face("running", bar={"done": 0.9, "earlier": 0, "notch": None}))
    cards.page.wait_for_function("document.getAnimations().length > 0")


def test_only_transforms_move_and_one_thing_at_a_time(cards: CardPage) -> None:
    """No state animates anything but a transform of its bar; most animate nothing."""
    for key, shown in FACES.items():
        card = cards.mount(key, shown)
        moving = card.evaluate(
            """el => el.getAnimations({subtree: true}).map(one => [one.effect.target.className,
                ...one.effect.getKeyframes().flatMap(Object.keys)])"""
        )
        allowed = {"offset", "computedOffset", "easing", "composite", "transform"}
        assert len(moving) <= 1, key
        assert all(part == "nbjobs-fill" and set(keys) <= allowed for part, *keys in moving), key


def test_who_wants_no_motion_gets_none(browser: Browser) -> None:
    """With prefers-reduced-motion nothing is animated; an unknown share is a still pattern and a word."""
    page = CardPage(browser, reduced_motion="reduce").open()
    page.mount("a", FACES["starting"])
    page.mount("b", FACES["resumed"])
    page.set("b", face("resumed", bar={"done": 0.9, "earlier": 0.4, "notch": 0.4}))
    page.paint()
    assert page.page.evaluate("document.getAnimations().length") == 0
    expect(page.card("a").locator(".nbjobs-headline")).to_have_text("running")
    page.close()


def test_the_clock_ticks_by_itself(cards: CardPage) -> None:
    """A queued run counts its seconds without any message, in the words of the other surfaces."""
    cards.stop_clock()
    now = cards.page.evaluate("Date.now()")
    card = cards.mount("a", face("queued", clock={"since": now - 58_500, "prefix": "queued for "}, thresholds=[]))
    clock = card.locator('.nbjobs-fact[data-kind="clock"]')
    expect(clock).to_have_text("queued for 58 s")
    cards.page.clock.run_for(2000)
    expect(clock).to_have_text("queued for 1 min")
    cards.page.clock.run_for(1000)
    expect(clock).to_have_text("queued for 1 min 1 s")


def test_a_clock_to_a_time_ahead_counts_down_and_ends(cards: CardPage) -> None:
    """A scheduled run says in how long it starts, and no longer once that time has come."""
    cards.stop_clock()
    now = cards.page.evaluate("Date.now()")
    due = {"at": now + 2500, "mark": "due", "text": "queued: its time has come"}
    clock = {"since": now + 2500, "prefix": "starts in "}
    card = cards.mount("a", face("scheduled", clock=clock, thresholds=[due]))
    expect(card.locator(".nbjobs-facts")).to_have_text("starts in 3 s")
    cards.page.clock.run_for(3000)
    expect(card.locator(".nbjobs-facts")).to_have_text("")
    expect(card.locator(".nbjobs-headline")).to_have_text("queued: its time has come")
    expect(card).to_have_attribute("data-marks", "due")
    expect(card).to_have_attribute("data-state", "scheduled")


def test_a_run_that_falls_silent_is_called_stuck(cards: CardPage) -> None:
    """At a threshold headline and mark change by themselves, and what is no longer true disappears."""
    cards.stop_clock()
    now = cards.page.evaluate("Date.now()")
    late = {"at": now + 1000, "mark": "stuck", "text": "stuck? no progress for 10 s"}
    card = cards.mount("a", face("resumed", thresholds=[late]))
    expect(card.locator(".nbjobs-facts")).to_contain_text("about 35 s left")
    cards.page.clock.run_for(1300)
    expect(card.locator(".nbjobs-headline")).to_have_text("stuck? no progress for 10 s")
    expect(card).to_have_attribute("data-marks", "resumed stuck")
    expect(card.locator(".nbjobs-facts")).not_to_contain_text("left")


def test_old_data_says_how_old_it_is(cards: CardPage) -> None:
    """Behind a threshold its clock ticks in the place of the face's own, and goes with the next news."""
    cards.stop_clock()
    now = cards.page.evaluate("Date.now()")
    late = {"at": now + 1000, "mark": "stale", "text": "Step 2 · load rows"}
    late["clock"] = {"since": now - 3000, "prefix": "no news for "}
    card = cards.mount("a", face("resumed", thresholds=[late]))
    facts = card.locator(".nbjobs-facts")
    expect(facts).not_to_contain_text("no news")
    cards.page.clock.run_for(1300)
    expect(facts).to_contain_text("no news for 4 s")
    cards.page.clock.run_for(2000)
    expect(facts).to_contain_text("no news for 6 s")
    expect(facts).not_to_contain_text("left")
    cards.set("a", face("resumed", thresholds=[]))
    cards.page.clock.run_for(300)
    expect(facts).to_contain_text("left")


def test_a_clock_of_another_machine_does_not_disturb(cards: CardPage) -> None:
    """Where the kernel's clock is an hour behind the browser's, a card counts from the kernel's."""
    kernel = int(time.time() * 1000) - 3_600_000
    queued = face("queued", clock={"since": kernel - 3000, "prefix": "queued for "}, thresholds=[])
    card = cards.mount("a", queued)
    cards.set("a", {**queued, "sent": kernel + 100})
    cards.paint()
    expect(card.locator(".nbjobs-facts")).to_have_text("queued for 3 s")


@pytest.mark.parametrize("seconds", [0, 1, 59, 60, 61, 3599, 3600, 3660, 86_400, 93_600, 400_000])
def test_durations_have_the_words_of_the_other_surfaces(cards: CardPage, seconds: int) -> None:
    """A clock that ticks in the browser reads as one worded in Python."""
    assert cards.page.evaluate("s => cards.duration(s * 1000 + 999)", seconds) == words.ticked(seconds)


def test_changes_are_announced_politely(cards: CardPage) -> None:
    """A status region says new states and steps: the latest, no more than one message in five seconds."""
    cards.stop_clock()
    card = cards.mount("a", FACES["queued"])
    status = card.get_by_role("status")
    expect(status).to_have_text("")
    for shown in (FACES["starting"], FACES["plain step"], FACES["resumed"]):
        cards.set("a", shown)
        cards.page.clock.run_for(400)
    expect(status).to_have_text("import_orders: running")
    cards.set("a", face("resumed", n=9))  # progress is not news
    cards.page.clock.run_for(5000)
    expect(status).to_have_text("import_orders: Step 2 · load rows")
    cards.set("a", FACES["completed"])
    cards.page.clock.run_for(1000)
    expect(status).to_have_text("import_orders: Step 2 · load rows")
    cards.page.clock.run_for(5000)
    expect(status).to_have_text("import_orders: done")


def test_a_card_that_nobody_feeds_says_so(cards: CardPage) -> None:
    """When its kernel is gone a card does not look alive: it says so, and its clock stands."""
    card = cards.mount("a", FACES["plain step"])
    cards.page.evaluate("cards.sever('a')")
    cards.paint()
    expect(card).to_have_attribute("data-marks", "detached")
    expect(card.locator(".nbjobs-facts")).to_have_text("saved view: its kernel is gone")
    cards.set("a", FACES["resumed"])
    cards.paint()
    expect(card).to_have_attribute("data-marks", "resumed")


def test_neighbours_stand_still_while_a_number_changes(cards: CardPage) -> None:
    """A fact keeps the room of its widest text in this step: what stands right of it does not move."""
    facts = [{"kind": "count", "text": "9,999 of 20,000"}, {"kind": "rate", "text": "210/s"}]
    card = cards.mount("a", face("running", facts=facts))
    place = card.locator('.nbjobs-fact[data-kind="rate"]')
    before = place.bounding_box()
    cards.set("a", face("running", facts=[{**facts[0], "text": "1 of 20,000"}, facts[1]]))
    cards.paint()
    after = place.bounding_box()
    assert before is not None
    assert after is not None
    assert before["x"] == after["x"]


def test_a_card_taken_away_leaves_nothing(cards: CardPage) -> None:
    """Unmounting removes the element and every listener; a late face is ignored."""
    cards.mount("a", FACES["plain step"])
    assert cards.page.evaluate("cards.unmount('a')") == 0
    cards.set("a", FACES["completed"])
    cards.paint()
    expect(cards.card("a")).to_have_count(0)
    assert cards.errors == []


@pytest.mark.fault(44)
@pytest.mark.parametrize("bad", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_shown_literally(cards: CardPage, bad: str) -> None:
    """Markup in any field adds no element, no attribute, no request and no dialog."""
    dialogs: list[str] = []
    cards.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    texts = dict.fromkeys(
        ("run", "job", "name", "state", "icon", "word", "headline", "step", "percent", "aria", "error"), bad
    )
    shape = "el => [...el.querySelectorAll('*')].map(one => one.tagName + one.getAttributeNames()).sort().join()"
    for key, base in (("failed", face("failed")), ("queued", face("queued", error="x", thresholds=[]))):
        fact = {"kind": "note", "text": bad}
        plain = cards.mount(f"plain {key}", {**base, "facts": [{**fact, "text": "x"}], "state": "other"})
        asked = len(cards.asked)
        hostile = {**base, **texts, "facts": [fact], "marks": [bad]}
        hostile["clock"] = base["clock"] and {**base["clock"], "prefix": bad}
        card = cards.mount(key, hostile)
        cards.paint()
        assert card.evaluate(shape) == plain.evaluate(shape)
        assert card.locator(".nbjobs-name").evaluate("el => el.textContent") == bad
        assert cards.asked[asked:] == []
    assert dialogs == []
    assert cards.errors == []


_CONTRAST = """() => {
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const surface = getComputedStyle(document.querySelector(".nbjobs-card")).backgroundColor;
    const luminance = colour => {
        canvas.fillStyle = surface; canvas.fillRect(0, 0, 1, 1);
        canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(v => v / 255)
            .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    return [...document.querySelectorAll(".nbjobs-name, .nbjobs-headline, .nbjobs-fact, .nbjobs-error, .nbjobs-icon")]
        .map(el => {
            const [a, b] = [luminance(getComputedStyle(el).color), luminance(surface)];
            const state = el.closest(".nbjobs-card").dataset.state;
            return [state, el.className, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
        });
}"""


@pytest.mark.parametrize("theme", ["light", "dark", "dark-high-contrast", "none, light", "none, dark"])
def test_colours_have_contrast(browser: Browser, theme: str) -> None:
    """Text has 4.5:1 against the card, state icons 3:1, in JupyterLab's themes and without any."""
    bare, _, scheme = theme.partition(", ")
    page = CardPage(browser, color_scheme=scheme or "light").open(None if bare == "none" else bare)
    page.mount_all(FACES)
    measured = page.page.evaluate(_CONTRAST)
    page.close()
    assert len(measured) > 4 * len(FACES)
    weak = [one for one in measured if one[2] < (3 if one[1] == "nbjobs-icon" else 4.5)]
    assert weak == []
