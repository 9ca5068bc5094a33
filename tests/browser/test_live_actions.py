"""The buttons of a live card, pressed in a real JupyterLab and Notebook, beside a real worker."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path

import ipykernel
import pytest
import redis
from playwright.sync_api import Browser, CDPSession, Locator, Page, WebSocketRoute, expect

from ..support import RedisServer
from .axe import violations
from .conftest import Process
from .lab import PAINTS, Lab, Notebook

JOB = """
import time
from pathlib import Path
from nbjobs import job, step

@job(resume_errors_after_advancing=False, steps=["prepare", "load_rows", "finalize"])
def import_orders(rows, folder):
    step("prepare", print, "prepared")
    for number in step.each("load_rows", range(rows)):
        print("row", number)
        time.sleep(0.02)
        if Path(folder, "break").exists():
            raise ValueError(f"row {number}: no date")
    step("finalize", print, "finished")
"""
CARD = "run = import_orders.enqueue(100_000, {folder!r})\nrun.card()"
BUSY = """
while not Path({folder!r}, "over").exists():
    sum(range(50_000))
print("the kernel was busy")
"""

# Notes what a screen reader would be told, and when.
_LISTEN = """() => {
    window.told = [];
    const note = () => {
        const text = document.querySelector(".nbjobs-card > .nbjobs-status").textContent;
        if (text && text !== window.told.at(-1)?.text) window.told.push({text, at: performance.now()});
    };
    new MutationObserver(note).observe(document.querySelector(".nbjobs-card > .nbjobs-status"),
        {childList: true, characterData: true, subtree: true});
}"""


def busy_kernel(folder: Path) -> tuple[str, ...]:
    """A job, the card of a run, and a cell that computes until there is a file `over`."""
    return JOB, CARD.format(folder=str(folder)), BUSY.format(folder=str(folder))


def tab_to(page: Page, selector: str, key: str = "Tab") -> None:
    """Go there as somebody without a mouse does."""
    for _ in range(60):
        if page.evaluate("selector => !!document.activeElement?.matches(selector)", selector):
            return
        page.keyboard.press(key)
    raise AssertionError(f"not reached by {key}: {selector}; the focus is on {focused(page)}")


def focused(page: Page) -> str:
    name: str = page.evaluate(
        "() => `${document.activeElement?.tagName}.${document.activeElement?.className} "
        "${document.activeElement?.getAttribute('aria-label')}`"
    )
    return name


def state(card: Locator, *states: str) -> None:
    """Wait until the card shows one of these."""
    pattern = ", ".join(f'[data-state="{one}"]' for one in states)
    expect(card.and_(card.page.locator(pattern))).to_be_visible(timeout=20_000)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_everything_is_done_by_keyboard(
    lab: Lab,
    browser: Browser,
    client: redis.Redis,
    start_worker: Callable[[], Process],
    tmp_path: Path,
    artifacts: Path,
) -> None:
    """Expand, read the steps, read the log, pause, resume, cancel, retry, copy the error: with Tab, Enter and arrows.

    And what a screen reader is told meanwhile: each state and step that lasts, no more than one message in 5 s.
    """
    start_worker()
    name = lab.write("keys.ipynb", JOB, CARD.format(folder=str(tmp_path)))
    with lab.open(browser, name) as notebook:
        notebook.start_all()
        notebook.wait_done()
        _read_by_keyboard(notebook)
        notebook.page.screenshot(path=artifacts / "live-open.png")
        _control_by_keyboard(notebook)
        (tmp_path / "break").touch()
        _copy_by_keyboard(notebook)
        notebook.page.screenshot(path=artifacts / "live-failed.png")
        page = notebook.page
        page.wait_for_function("window.told.at(-1).text.includes('failed')", timeout=10_000)
        check_told(page)
        assert page.locator(".jp-Notebook .jp-Cell").count() == 2  # no key was one of Lab's
        assert notebook.errors == []


def _read_by_keyboard(notebook: Notebook) -> None:
    """Open the card, read its steps and its log."""
    page, card = notebook.page, notebook.card
    expect(card).to_have_attribute("data-step", "load_rows", timeout=20_000)
    page.evaluate(_LISTEN)
    page.locator(".jp-Notebook").focus()
    page.keyboard.press("Escape")
    tab_to(page, ".nbjobs-card [data-action=expand]")
    page.keyboard.press("Enter")
    rows = card.locator(".nbjobs-steps > li")
    expect(rows).to_have_count(3)
    states = rows.evaluate_all("rows => rows.map(row => [row.dataset.name, row.dataset.state])")
    assert states == [["prepare", "done"], ["load_rows", "running"], ["finalize", "coming"]]
    log = card.locator(".nbjobs-log")
    expect(log).to_contain_text("row 50", timeout=10_000)
    tab_to(page, ".nbjobs-log")
    page.keyboard.press("Home")
    page.wait_for_function("document.querySelector('.nbjobs-log').scrollTop === 0")
    expect(log).to_contain_text("prepared")
    page.keyboard.press("ArrowDown")
    page.wait_for_function("document.querySelector('.nbjobs-log').scrollTop > 0")


def _control_by_keyboard(notebook: Notebook) -> None:
    """Pause, resume and cancel, until Retry has the focus."""
    page, card = notebook.page, notebook.card
    tab_to(page, ".nbjobs-card [data-action=pause]", "Shift+Tab")
    page.keyboard.press("Enter")
    state(card, "paused")
    tab_to(page, ".nbjobs-card [data-action=unpause]")
    assert "Resume from" in focused(page)
    page.wait_for_function("window.told.some(({ text }) => text.includes('paused'))", timeout=10_000)
    page.keyboard.press("Enter")
    state(card, "running")
    tab_to(page, ".nbjobs-card [data-action=cancel]")
    page.keyboard.press("Space")
    state(card, "cancelled")
    tab_to(page, ".nbjobs-card [data-action=retry]")
    assert "Retry from" in focused(page)


def _copy_by_keyboard(notebook: Notebook) -> None:
    """Retry what fails then, and copy its error."""
    page, card = notebook.page, notebook.card
    page.keyboard.press("Enter")
    state(card, "failed")
    expect(card.locator(".nbjobs-place").last).to_have_text("import_orders, line 12 of a cell")
    assert violations(page) == []
    notebook.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab_to(page, ".nbjobs-card [data-action=copy]")
    page.keyboard.press("Enter")
    expect(card.locator("[data-action=copy]")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    expect(card.locator(".nbjobs-attempts")).to_contain_text("after: it was paused")
    assert "raise ValueError" in copied and "no date" in copied


def check_told(page: Page) -> None:
    told = page.evaluate("window.told")
    texts = [one["text"] for one in told]
    assert "import_orders: paused · Step 2 of 3 · load rows" in texts
    assert texts[-1] == "import_orders: failed in step 2 of 3 · load rows"
    assert all(text.startswith("import_orders: ") for text in texts)
    for one, following in itertools.pairwise(told):
        assert following["at"] - one["at"] > 4900


@pytest.mark.slow
@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_buttons_work_while_a_cell_runs(
    lab: Lab,
    browser: Browser,
    client: redis.Redis,
    start_worker: Callable[[], Process],
    tmp_path: Path,
    artifacts: Path,
    app: str,
) -> None:
    """The kernel computes; the card opens, follows the output, pauses and cancels all the same."""
    start_worker()
    with lab.open(browser, lab.write("busy.ipynb", *busy_kernel(tmp_path)), app=app) as notebook:
        card, page = notebook.card, notebook.page
        notebook.start_all()
        expect(card).to_have_attribute("data-step", "load_rows", timeout=20_000)
        expect(page.locator(".jp-InputPrompt", has_text="[*]")).to_have_count(1)
        card.locator("[data-action=expand]").click()
        expect(card.locator(".nbjobs-log")).to_contain_text("row 20", timeout=10_000)
        expect(card.locator(".nbjobs-attempts li")).to_have_count(1)
        card.locator("[data-action=pause]").click()
        state(card, "paused")
        page.screenshot(path=artifacts / f"busy-open-{app}.png")
        card.locator("[data-action=cancel]").click()
        state(card, "cancelled")
        expect(card.locator(".nbjobs-said")).to_be_hidden()
        expect(page.locator(".jp-InputPrompt", has_text="[*]")).to_have_count(1)
        (tmp_path / "over").touch()
        expect(page.locator(".jp-OutputArea-output", has_text="the kernel was busy")).to_be_visible(timeout=20_000)


@pytest.mark.slow
def test_who_presses_before_the_kernel_can_hear_is_heard_during_the_cell(
    lab: Lab, browser: Browser, client: redis.Redis, start_worker: Callable[[], Process], tmp_path: Path
) -> None:
    """Before the page knows the kernel's thread for widgets its messages go behind the cell: the card says it again."""
    start_worker()
    asked: list[bytes] = []

    def hold_back(page: WebSocketRoute) -> None:
        """The page learns of the thread when it has sent what is behind the cell."""
        kernel, held = page.connect_to_server(), []

        def sent(message: bytes) -> None:
            kernel.send(message)
            if b'"expand"' in message:
                asked.append(message)
                while held:
                    page.send(held.pop())

        def came(message: bytes) -> None:
            if b"create_subshell_reply" in message and not asked:
                held.append(message)
            else:
                page.send(message)

        page.on_message(sent)
        kernel.on_message(came)

    with lab.open(browser, lab.write("early.ipynb", *busy_kernel(tmp_path)), app="notebook") as notebook:
        notebook.context.route_web_socket(re.compile("/channels"), hold_back)
        notebook.reload()
        card = notebook.card
        notebook.start_all()
        expect(card).to_have_attribute("data-step", "load_rows", timeout=20_000)
        card.locator("[data-action=expand]").click()
        expect(card.locator(".nbjobs-log")).to_contain_text("row 20", timeout=10_000)
        expect(card.locator(".nbjobs-said")).to_be_hidden()
        behind = [b'"subshell_id":null' in one for one in asked]
        assert behind[0] and not behind[-1]
        card.locator("[data-action=cancel]").click()
        state(card, "cancelled")
        (tmp_path / "over").touch()
        notebook.wait_done()


@pytest.mark.skipif(ipykernel.version_info < (7, 4), reason="older ones need nothing from us to hear during a cell")
def test_where_the_kernel_cannot_hear_a_button_says_so_and_acts_later(
    lab: Lab, browser: Browser, client: redis.Redis, tmp_path: Path
) -> None:
    """Without our hook, as with a front end that knows no subshells: it is said, and done when the cell ends."""
    deaf = "import nbjobs.widgets.card\nnbjobs.widgets.card.reach_during_cells = lambda comm: None"
    with lab.open(browser, lab.write("deaf.ipynb", deaf, *busy_kernel(tmp_path))) as notebook:
        card = notebook.card
        notebook.start_all()
        state(card, "queued")
        card.locator("[data-action=expand]").click()
        expect(card.locator(".nbjobs-steps li")).to_have_count(3)
        expect(card.locator(".nbjobs-said")).to_contain_text("The kernel is busy", timeout=10_000)
        card.locator("[data-action=cancel]").click()
        expect(card.locator(".nbjobs-said")).to_contain_text("At once, in a terminal: nbjobs cancel", timeout=10_000)
        expect(card).to_have_attribute("data-state", "queued")
        (tmp_path / "over").touch()
        state(card, "cancelled")
        expect(card.locator(".nbjobs-said")).to_be_hidden()
        expect(card.locator(".nbjobs-timeline > *")).to_have_count(1)


QUEUED = """
import nbjobs
from nbjobs import job

nbjobs.configure(redis_url={url!r})

@job
def import_orders():
    pass

run = import_orders.enqueue()
"""


def test_a_redis_out_of_reach_is_said_and_found_again(lab: Lab, browser: Browser, artifacts: Path) -> None:
    """The card shows what was known, since when, and what it is; when Redis is back it goes on."""
    with RedisServer() as server:
        cells = (QUEUED.format(url=server.url), "run")
        with lab.open(browser, lab.write("away.ipynb", *cells)) as notebook:
            card = notebook.card
            notebook.start_all()
            notebook.wait_done()
            state(card, "queued")
            expect(card.locator(".nbjobs-headline")).to_contain_text("waiting for a worker", timeout=15_000)
            server.kill()
            expect(card).to_have_attribute("data-marks", re.compile("away"), timeout=15_000)
            said = re.compile(r"Redis out of reach: shown as of \d\d:\d\d")
            expect(card.locator(".nbjobs-facts")).to_have_text(said)
            card.screenshot(path=artifacts / "live-away.png")
            card.locator("[data-action=cancel]").click()
            expect(card.locator(".nbjobs-said")).to_contain_text("Redis", timeout=15_000)
            server.start()
            expect(card).not_to_have_attribute("data-marks", re.compile("away"), timeout=15_000)
            card.locator("[data-action=cancel]").click()
            expect(notebook.page.locator(".jp-OutputArea-output", has_text="cancelled")).to_be_visible(timeout=15_000)


IMPORTING = """
import sys, time
from nbjobs import job, step

@job
def import_orders(folder):
    sys.path.insert(0, folder)
    import orders_of_the_shop
    for number in step.each("load_rows", range(100_000)):
        time.sleep(0.02)

run = import_orders.enqueue({folder!r})
run
"""


def test_newer_code_on_disk_is_said_until_an_attempt_runs_it(
    lab: Lab, browser: Browser, start_worker: Callable[[], Process], tmp_path: Path, artifacts: Path
) -> None:
    """Who saves a module while its job runs reads that this attempt has the old one; after a pause it has the new."""
    module = tmp_path / "orders_of_the_shop.py"
    module.write_text("COLUMNS = 14")
    start_worker()
    with lab.open(browser, lab.write("newer.ipynb", IMPORTING.format(folder=str(tmp_path)))) as notebook:
        card = notebook.card
        notebook.start_all()
        notebook.wait_done()
        state(card, "running")
        expect(card).to_have_attribute("data-step", "load_rows")
        module.write_text("COLUMNS = 15  # since today")
        expect(card).to_have_attribute("data-marks", "newer-code", timeout=15_000)
        expect(card.locator(".nbjobs-facts")).to_contain_text(f"{module.name} has changed on disk")
        card.screenshot(path=artifacts / "live-newer.png")
        card.locator("[data-action=pause]").click()
        state(card, "paused")
        expect(card).to_have_attribute("data-marks", "")
        card.locator("[data-action=unpause]").click()
        state(card, "running")
        expect(card).to_have_attribute("data-marks", "resumed")


def cpu(profile: CDPSession) -> float:
    """The seconds of the processor that the page's main thread has taken."""
    metrics = {metric["name"]: metric["value"] for metric in profile.send("Performance.getMetrics")["metrics"]}
    return float(metrics["TaskDuration"])


HOT = """
from benchmarks.jobs import hot
run = hot.enqueue(150_000)
run.card()
"""


@pytest.mark.slow
def test_a_hot_job_leaves_the_browser_free(
    lab: Lab, browser: Browser, client: redis.Redis, start_worker: Callable[[], Process]
) -> None:
    """Tens of thousands of items a second, each with an event: ten paints a second, a free page, an exact end.

    Free is what is left of the processor's time, which other processes do not change as they do the clock's; that no
    task of the page is long by the clock either is for the benchmark ``dom``.
    """
    with lab.open(browser, lab.write("hot.ipynb", HOT)) as notebook:
        card, page = notebook.card, notebook.page
        notebook.start_all()
        notebook.wait_done()
        state(card, "queued")
        card.locator("[data-action=expand]").click()
        page.wait_for_timeout(2000)  # Lab's own start
        notebook.watch(PAINTS)
        profile = notebook.context.new_cdp_session(page)
        profile.send("Performance.enable", {"timeDomain": "threadTicks"})
        before = cpu(profile)
        start_worker()
        state(card, "completed")
        page.wait_for_timeout(500)
        used = cpu(profile) - before
        paints = page.evaluate("window.paints")
        assert len(paints) > 3
        # ten a second, and the end and what a screen reader is told, which do not wait their turn
        assert all(later - earlier > 950 for earlier, later in zip(paints, paints[12:], strict=False))
        assert used < 0.5 * (paints[-1] - paints[0]) / 1000
        expect(card.locator(".nbjobs-facts")).to_contain_text("150,000 of 150,000")
        expect(card.locator(".nbjobs-steps li")).to_have_attribute("data-state", "done")
