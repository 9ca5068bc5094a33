"""The open card and its buttons, from fixed faces and details: what is shown, what is asked for, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, expect

from ..widgets.faces import TRACEBACK, gallery, opened, printed
from .cards import CardPage
from .test_card_views import HOSTILE

RESUMED, FAILED = "resumed", "failed"


def labels(card: Locator) -> list[str]:
    return card.locator(".nbjobs-choices button").all_text_contents()


def message(do: str, n: int, **more: Any) -> dict[str, Any]:
    return {"do": do, "n": n, **more}


# -- opening -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "width", "options"),
    [
        ("light", 720, {"theme": "light"}),
        ("dark", 720, {"theme": "dark"}),
        ("320", 320, {}),
        ("240", 240, {}),
        ("forced", 720, {"color_scheme": "dark", "forced_colors": "active"}),
        ("high-contrast", 720, {"theme": "dark-high-contrast"}),
    ],
)
def test_an_open_card_fits(browser: Browser, artifacts: Path, name: str, width: int, options: dict[str, Any]) -> None:
    """In each width and theme nothing sticks out, and buttons are large enough to be hit; pictures are kept."""
    page = CardPage(browser, width, **{k: v for k, v in options.items() if k != "theme"}).open(options.get("theme"))
    for key in (RESUMED, "paused", FAILED, "completed", "cancelling"):
        card = page.open_card(key, *opened(key))
        assert card.evaluate("el => el.scrollWidth - el.clientWidth") == 0
        for box in card.evaluate(
            "el => [...el.querySelectorAll('button')].filter(one => one.offsetParent).map(one => [one.offsetWidth, "
            "one.offsetHeight])"
        ):
            assert min(box) >= 24
    page.page.screenshot(path=artifacts / f"open-{name}.png", full_page=True, animations="disabled")
    assert page.errors == []
    page.close()


def test_details_are_asked_for_when_a_card_is_opened(cards: CardPage) -> None:
    """And no longer when it is closed; the button says which it is."""
    face, details = opened(RESUMED)
    card = cards.mount("a", face)
    button = card.get_by_role("button", name="Details of import_orders")
    expect(button).to_have_attribute("aria-expanded", "false")
    button.click()
    expect(button).to_have_attribute("aria-expanded", "true")
    expect(card.locator(".nbjobs-steps li")).to_have_count(2)  # known without asking
    cards.fill("a", details)
    expect(card.locator(".nbjobs-attempts li")).to_have_count(2)
    button.click()
    expect(card.locator(".nbjobs-opened")).to_have_count(0)
    assert cards.sent("a") == [message("expand", 7), message("collapse", 7)]


def test_a_card_that_nobody_hears_has_no_buttons(cards: CardPage) -> None:
    """Where its feed has no `act`, and where its kernel is gone."""
    card = cards.mount("a", opened(RESUMED)[0], mute=True)
    expect(card.get_by_role("button")).to_have_count(0)
    other = cards.mount("b", opened(RESUMED)[0])
    expect(other.get_by_role("button")).to_have_count(3)
    cards.page.evaluate("cards.sever('b')")
    cards.paint()
    expect(other.get_by_role("button")).to_have_count(1)


def test_a_page_loaded_anew_shows_an_open_card_open(cards: CardPage) -> None:
    """The model kept the details; so do two views of one model agree."""
    face, details = opened(RESUMED)
    cards.page.evaluate("([face, details]) => cards.mount('a', face, false, details)", [face, details])
    expect(cards.card("a").locator(".nbjobs-attempts li")).to_have_count(2)


def test_closed_elsewhere_it_asks_again(cards: CardPage) -> None:
    """Another view of the same model closed it, this one is open still."""
    face, details = opened(RESUMED)
    cards.open_card("a", face, details)
    cards.fill("a", {})
    cards.paint()
    assert cards.sent("a") == [message("expand", 7), message("expand", 7)]


def test_an_open_card_taken_away_closes(cards: CardPage) -> None:
    """Nobody reads for it any more."""
    cards.open_card("a", *opened(RESUMED))
    cards.page.evaluate("cards.unmount('a')")
    assert cards.sent("a")[-1] == message("collapse", 7)


# -- what it shows -----------------------------------------------------------------------------------------------


def test_steps_have_names_states_and_times(cards: CardPage) -> None:
    """Done ones how long they took, the present one how long it has taken, ticking."""
    cards.stop_clock()
    face, details = opened(RESUMED)
    now = cards.page.evaluate("Date.now()")
    face["steps"] = (*face["steps"][:1], {**face["steps"][1], "since": now - 21_000}, *coming("finalize"))
    card = cards.mount("a", face)
    card.locator("[data-action=expand]").click()
    cards.fill("a", details)
    cards.page.clock.run_for(200)
    rows = card.locator(".nbjobs-steps > li")
    told = rows.evaluate_all("rows => rows.map(row => [row.dataset.name, row.dataset.state, row.textContent])")
    assert told == [
        ["prepare", "done", "prepare420 msdone"],
        ["load_rows", "running", "load rows21 srunning"],
        ["finalize", "coming", "finalizeto come"],
    ]
    cards.page.clock.run_for(2000)
    expect(rows.nth(1).locator(".nbjobs-time")).to_have_text("23 s")


def coming(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "state": "coming", "title": name} for name in names]


def test_done_steps_of_a_long_list_are_folded(cards: CardPage) -> None:
    """The last three are shown; the others when somebody asks, and the focus goes there."""
    face, details = opened(RESUMED)
    done = [{"name": f"s{i}", "state": "done", "title": f"s{i}", "duration": "1 s"} for i in range(15)]
    face.update(steps=[*done, face["steps"][1]], earlier="12 earlier steps")
    card = cards.open_card("a", face, details)
    assert card.locator(".nbjobs-steps > li:visible").count() == 4
    card.get_by_role("button", name="12 earlier steps").click()
    assert card.locator(".nbjobs-steps > li:visible").count() == 16
    cards.set("a", face)
    cards.paint()
    assert card.locator(".nbjobs-steps > li:visible").count() == 16


def test_the_time_line_has_a_part_for_each_time(cards: CardPage) -> None:
    """As wide as it took; the gap says why; for who does not see it there are words."""
    card = cards.open_card("a", *opened(FAILED))
    parts = card.locator(".nbjobs-part")
    kinds = ["waiting", "starting", "running", "gap", "starting", "running"]
    assert parts.evaluate_all("parts => parts.map(part => part.dataset.kind)") == kinds
    widths = parts.evaluate_all("parts => parts.map(part => part.getBoundingClientRect().width)")
    line = card.locator(".nbjobs-timeline")
    assert sum(widths) == pytest.approx(line.evaluate("el => el.clientWidth"), abs=2)
    assert widths[2] / widths[3] == pytest.approx(27.4 / 4, rel=0.05)
    assert parts.nth(3).get_attribute("title") == "interrupted: its process died (SIGKILL), 4 s"
    image = card.get_by_role("img")
    expect(image).to_have_accessible_name(opened(FAILED)[1]["told"].join(("Times: ", "")))


def test_a_running_part_of_the_time_line_grows(cards: CardPage) -> None:
    """Nobody sends anything for that."""
    cards.stop_clock()
    card = cards.mount("a", opened(RESUMED)[0])
    card.locator("[data-action=expand]").click()
    cards.fill("a", opened(RESUMED)[1])
    cards.page.clock.run_for(200)
    last = "el => Number(el.querySelector('.nbjobs-part:last-child').style.flexGrow)"
    before = card.evaluate(last)
    cards.page.clock.run_for(3000)
    assert 2000 <= card.evaluate(last) - before <= 4000


def test_facts_and_attempts_are_shown_as_they_came(cards: CardPage) -> None:
    """Letter for letter."""
    face, details = opened(FAILED)
    card = cards.open_card("a", face, details)
    shown = card.locator(".nbjobs-row").evaluate_all(
        "rows => rows.map(row => [...row.children].map(one => one.textContent))"
    )
    assert shown == [[row["label"], row["text"]] for row in details["facts"]]
    assert ["Peak memory", "118 MB"] in shown
    attempts = card.locator(".nbjobs-attempts .nbjobs-name").all_text_contents()
    assert attempts == [one["text"] for one in details["attempts"]]
    assert attempts[1].startswith("Attempt 2, resumed at load rows, cursor 8,000, worker thor-4711, after: its process")


def test_an_error_shows_the_users_frame_and_is_copied_whole(cards: CardPage) -> None:
    """First where the own code was, then everything; the button says that it did."""
    card = cards.open_card("a", *opened(FAILED))
    expect(card.locator(".nbjobs-failure .nbjobs-place")).to_have_text("load_rows, line 12 of orders.py")
    expect(card.locator(".nbjobs-code")).to_have_text("check(row)")
    expect(card.locator(".nbjobs-traceback")).to_have_text(TRACEBACK)
    cards.page.evaluate(
        "() => document.addEventListener('copy', () => { window.copied = document.activeElement.value; })"
    )
    button = card.locator("button[data-action=copy]")
    button.focus()
    button.press("Enter")
    expect(button).to_have_text("Copied")
    assert cards.page.evaluate("window.copied") == TRACEBACK
    expect(button).to_be_focused()
    expect(button).to_have_text("Copy")


def test_what_has_not_come_is_not_there(cards: CardPage) -> None:
    """No empty boxes: no error, no result, no output."""
    card = cards.open_card("a", *opened(RESUMED, lines=0))
    for part in (".nbjobs-failure", ".nbjobs-result", ".nbjobs-log", ".nbjobs-before", ".nbjobs-more"):
        expect(card.locator(part)).to_be_hidden()


def test_the_log_follows_and_stops_when_somebody_reads(cards: CardPage) -> None:
    """At its end it stays at the end; scrolled up it stays where it is, and nothing is taken away there."""
    face, details = opened(RESUMED, lines=200)
    card = cards.open_card("a", face, details)
    log = card.locator(".nbjobs-log")
    at_end = "el => el.scrollHeight - el.scrollTop - el.clientHeight"
    assert log.evaluate(at_end) < 2
    give(cards, details, 100, 300)
    assert log.evaluate(at_end) < 2
    assert log.locator("span").count() == 200
    expect(log.locator("span").last).to_have_text("row 299 was imported\n", use_inner_text=False)
    log.evaluate("el => { el.scrollTop = 400; }")
    cards.page.wait_for_timeout(50)  # the event comes with the next frame
    seen = log.evaluate("el => [el.scrollTop, el.children.length]")
    give(cards, details, 150, 350)
    assert log.evaluate("el => [el.scrollTop, el.children.length]") == [seen[0], seen[1] + 50]
    log.evaluate("el => { el.scrollTop = el.scrollHeight; }")
    cards.page.wait_for_timeout(50)
    give(cards, details, 160, 360)
    assert log.evaluate(at_end) < 2
    assert log.locator("span").count() == 200


def test_another_output_takes_the_place_of_the_old_one(cards: CardPage) -> None:
    """After a hole, and where it begins anew."""
    face, details = opened(RESUMED, lines=50)
    card = cards.open_card("a", face, details)
    for first, until in ((500, 510), (0, 3)):
        give(cards, details, first, until)
        assert card.locator(".nbjobs-log span").all_text_contents() == [
            f"{text}\n" for _, text in printed(first, until)
        ]
        expect(card.locator(".nbjobs-before")).to_be_visible(visible=first > 0)


def give(cards: CardPage, details: dict[str, Any], first: int, until: int) -> None:
    cards.fill("a", {**details, "output": {"first": first, "lines": printed(first, until)}})
    cards.paint()


# -- buttons -----------------------------------------------------------------------------------------------------


def test_buttons_say_what_they_do(cards: CardPage) -> None:
    """On a closed card as signs with a name, on an open one in words; all with the job's name for who hears them."""
    face, details = opened(RESUMED)
    card = cards.mount("a", face)
    for name in ("Pause after this item, import_orders", "Cancel (keeps progress), import_orders"):
        expect(card.get_by_role("button", name=name)).to_be_visible()
    expect(card.get_by_role("button")).to_have_count(3)
    card.locator("[data-action=expand]").click()
    cards.fill("a", details)
    assert labels(card) == ["Pause after this item", "Cancel (keeps progress)", "Kill now"]
    expect(card.get_by_role("button", name="Kill now, import_orders")).to_be_visible()
    actions = card.locator(".nbjobs-choices button").evaluate_all("all => all.map(one => one.dataset.action)")
    assert actions == ["pause", "cancel", "kill"]


def test_a_button_asks_the_run(cards: CardPage) -> None:
    """With the event that the card had drawn; meanwhile it does nothing more."""
    card = cards.open_card("a", *opened(FAILED))
    cards.answer("a", None)
    card.get_by_role("button", name="Retry from 12,431").click()
    expect(card.get_by_role("button", name="Retry from 12,431")).to_have_attribute("aria-disabled", "true")
    card.get_by_role("button", name="Retry from 12,431").click(force=True)
    assert cards.sent("a")[1:] == [message("retry", 7)]


def test_what_loses_work_asks_first(cards: CardPage) -> None:
    """Here the first click says what is lost, the second one does it; without a second one it is forgotten."""
    cards.stop_clock()
    card = cards.mount("a", opened(FAILED)[0])
    card.locator("[data-action=expand]").click()
    cards.page.clock.run_for(200)
    button = card.get_by_role("button", name="Restart from step 2")
    button.click()
    asks = "Restart from step 2: forgets 12,431 items"
    expect(button).to_have_text(asks)
    assert len(cards.sent("a")) == 1
    cards.page.clock.run_for(7000)
    expect(button).to_have_text("Restart from step 2")
    button.click()
    button.click()
    assert cards.sent("a")[1:] == [message("retry", 7, from_step="load_rows")]


def test_a_refusal_is_said_until_something_happens(cards: CardPage) -> None:
    """In a line of the card."""
    face, details = opened("paused")
    card = cards.open_card("a", face, details)
    cards.answer("a", "Run r-paused has ended (cancelled), so there is nothing to unpause.")
    card.get_by_role("button", name="Resume from 12,431").click()
    expect(card.locator(".nbjobs-said")).to_have_text(
        "Run r-paused has ended (cancelled), so there is nothing to unpause."
    )
    expect(card.locator("[data-action=unpause]")).not_to_have_attribute("aria-disabled", "true")
    cards.set("a", {**face, "n": 99})
    expect(card.locator(".nbjobs-said")).to_be_hidden()


def test_a_kernel_that_cannot_hear_is_said_with_the_way_out(cards: CardPage) -> None:
    """Where no answer comes: it is done when the cell ends, and a command does it at once."""
    cards.stop_clock()
    card = cards.mount("a", gallery()[RESUMED])
    cards.answer("a", None)
    card.locator("[data-action=cancel]").click()
    expect(card.locator(".nbjobs-said")).to_be_hidden()
    cards.page.clock.run_for(1600)
    expect(card.locator(".nbjobs-said")).to_have_text(
        "The kernel is busy: this is done when the cell ends. At once, in a terminal: nbjobs cancel r-running"
    )


def test_the_focus_stays_where_the_next_action_is(cards: CardPage) -> None:
    """Pause becomes Do not pause, then Resume: who uses the keyboard goes on with Enter."""
    card = cards.open_card("a", *opened(RESUMED))
    card.get_by_role("button", name="Pause after this item").focus()
    for state, label in (("pausing", "Do not pause"), ("paused", "Resume from 12,431")):
        cards.set("a", opened(state)[0])
        cards.paint()
        assert cards.page.evaluate("document.activeElement.textContent") == label


def test_narrow_cards_keep_their_actions_behind_one_button(browser: Browser) -> None:
    """Below 360 px the signs give their room to the name."""
    page = CardPage(browser, 320).open()
    card = page.mount("a", gallery()[RESUMED])
    expect(card.locator(".nbjobs-quick")).to_be_hidden()
    card.locator("[data-action=expand]").click()
    expect(card.get_by_role("button", name="Cancel (keeps progress), import_orders")).to_be_visible()
    page.close()


# -- manners -----------------------------------------------------------------------------------------------------


@pytest.mark.fault(44)
@pytest.mark.parametrize("bad", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_in_details_is_shown_literally(cards: CardPage, bad: str) -> None:
    """Markup in any text of an open card adds no element, no request and no dialog."""
    dialogs: list[str] = []
    cards.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    shape = "el => [...el.querySelectorAll('*')].map(one => one.tagName + one.getAttributeNames()).sort().join()"
    face, details = opened(FAILED, lines=3)
    plain = cards.open_card("plain", face, details)
    asked = len(cards.asked)
    steps = [{**one, "name": bad, "title": bad, "note": bad, "duration": bad} for one in face["steps"]]
    actions = [{**one, "label": bad, "asks": one.get("asks") and bad} for one in face["actions"]]
    card = cards.open_card("bad", {**face, "steps": steps, "actions": actions}, everywhere(details, bad))
    assert card.evaluate(shape) == plain.evaluate(shape)
    assert card.locator(".nbjobs-code").evaluate("el => el.textContent") == bad
    assert card.locator(".nbjobs-log span").first.evaluate("el => el.textContent") == f"{bad}\n"
    assert (cards.asked[asked:], dialogs, cards.errors) == ([], [], [])


def everywhere(value: Any, bad: str) -> Any:
    """The same with each text of the user's replaced."""
    if isinstance(value, dict):
        return {key: one if key == "kind" else everywhere(one, bad) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [everywhere(one, bad) for one in value]
    return bad if isinstance(value, str) and value else value


_FLOOD = """async ([face, done, details]) => {
    const long = [], drawn = [];
    const observer = new PerformanceObserver(list => long.push(...list.getEntries().map(e => e.duration)));
    observer.observe({type: "longtask"});
    const root = document.querySelector(".nbjobs-card");
    const mutations = new MutationObserver(() => drawn.push(performance.now()));
    mutations.observe(root, {attributes: true, attributeFilter: ["data-n"]});
    const end = performance.now() + 2000;
    let n = Number(root.dataset.n);
    while (performance.now() < end) {
        cards.set("a", {...face, n: ++n});
        const lines = details.output.lines.map(([kind, text]) => [kind, `${text} ${n}`]);
        cards.fill("a", {...details, output: {first: n, lines}});
        await new Promise(done => setTimeout(done, 5));
    }
    cards.set("a", {...done, n: ++n});
    await new Promise(done => setTimeout(done, 300));
    observer.disconnect();
    mutations.disconnect();
    return {long, drawn, n, shown: root.dataset.n, state: root.dataset.state};
}"""


def test_a_flood_on_an_open_card_leaves_the_browser_free(cards: CardPage) -> None:
    """A face and new output every 5 ms: ten paints a second at most, no long task, the end is exact.

    A task is long in wall time: of three floods one must have none, else it is the card that takes it.
    """
    face, details = opened(RESUMED, lines=200)
    cards.open_card("a", face, details)
    calm = False
    for _ in range(3):
        seen = cards.page.evaluate(_FLOOD, [face, opened("completed")[0], details])
        assert 5 <= len(seen["drawn"]) <= 23
        assert (seen["state"], seen["shown"]) == ("completed", str(seen["n"]))
        calm = seen["long"] == []
        if calm:
            break
    assert calm


def test_a_hundred_finished_cards_cost_no_timers(cards: CardPage) -> None:
    """Neither closed nor open: nothing wakes the page for a run that has ended."""
    cards.page.evaluate(
        """() => {
            window.timers = 0;
            for (const name of ["setTimeout", "setInterval", "requestAnimationFrame"]) {
                const original = window[name].bind(window);
                window[name] = (...args) => { window.timers += 1; return original(...args); };
            }
        }"""
    )
    cards.mount_all({f"c{i}": gallery()["completed"] for i in range(99)})
    cards.open_card("open", *opened("completed"))
    cards.page.wait_for_timeout(1600)  # what was begun by opening it
    before = cards.page.evaluate("window.timers")
    cards.page.wait_for_timeout(1500)
    assert cards.page.evaluate("window.timers") == before
