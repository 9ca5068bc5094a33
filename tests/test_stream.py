"""Runs are loaded and followed on a real Redis, through trims, restarts and holes."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio

from nbjobs import connection, keys, stream
from nbjobs.settings import NbJobs
from nbjobs.store import Commit, Store
from nbjobs.stream import Follower, aload, follower, load
from nbjobs.view import RunView, dump, empty

from .entries import d, midway
from .support import RedisServer, wait_until

KEYS = keys.Keys("ada")
QUIET = 0.3  # s in which nothing may come


def now_d(payload: dict[str, Any] | None = None) -> str:
    return d(payload, round(time.time() * 1000))


class Driver:
    """Drives one run through the store, as enqueue, worker and child would."""

    def __init__(self, store: Store, run: str = "r1") -> None:
        self.store, self.run, self.owner, self.c = store, run, "", 0

    def enqueue(self, queue: str = "test") -> Driver:
        fields = {"job": "shop.import_orders", "kind": "sync", "args": "[]", "queue": queue}
        assert self.store.enqueue(self.run, fields, now_d({"queue": queue})).code == "OK"
        return self

    def claim(self, attempt: int = 1) -> Driver:
        self.owner = f"w-1:{attempt}"
        reply = self.store.claim(self.run, self.owner, attempt, now_d({"worker": "w-1", "resumptions": attempt - 1}))
        assert reply.code == "OK"
        return self

    def start(self, done: int | None = None) -> Driver:
        payload = {"step": "load_rows", "total": 100, "resumed": done is not None, "done": done}
        return self.commit(done or 0, ("s", "job.step_started", now_d(payload)))

    def commit(self, done: int, *given: tuple[str, str, str], view: str = "", seen: int = 0) -> Driver:
        progress = ("p", "job.progress", now_d({"step": "load_rows", "done": done, "total": 100}))
        self.c += 1
        commit = Commit(
            c=self.c, n_seen=seen, view=view, moved=not given, step="load_rows", cursor=str(done), done=done, total=100,
            events=given or (progress,),
        )  # fmt: skip
        assert self.store.commit(self.run, self.owner, commit).code == "OK"
        return self

    def lapse(self) -> Driver:
        self.store.lapse(self.run, self.owner, now_d({"reason": "child_died", "signal": "SIGKILL"}))
        return self

    def finish(self) -> Driver:
        assert self.store.finish(self.run, self.owner, "completed", d=now_d({"duration": 5})).code == "OK"
        return self


@pytest.fixture
def store(nbjobs_settings: NbJobs) -> Iterator[Store]:
    client = connection.sync_client(nbjobs_settings.redis_url or "")
    yield Store(client, "ada", nbjobs_settings)
    client.close()


@pytest.fixture
def driver(store: Store) -> Iterator[Driver]:
    found = Driver(store)
    yield found
    if store.read("r1", "n")[0]:
        store.control("r1", "now", 10**9, now_d())
        store.lapse("r1", found.owner, now_d())


@pytest.fixture
def watched(nbjobs_settings: NbJobs, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Follower]:
    monkeypatch.setattr(stream, "LINGER", 0.05)
    found = Follower("ada", nbjobs_settings)
    yield found
    monkeypatch.setattr(stream, "BLOCK", 0.01)
    wait_until(lambda: found._thread is None, 3, "the follower's thread leaves when nothing is watched")


Fresh = Callable[[], "RunView | None"]


@pytest.fixture
def loaded(redis_client: redis.Redis) -> Fresh:
    def fresh() -> RunView | None:
        found = load(redis_client, KEYS, "r1")
        return found.view if found else None

    return fresh


# -- loading -------------------------------------------------------------------------------------------------


def test_a_run_that_is_not_there_is_none(redis_client: redis.Redis) -> None:
    """Neither an error nor an empty view."""
    assert load(redis_client, KEYS, "r1") is None


def test_a_run_without_a_stored_view_is_loaded_from_its_events(driver: Driver, loaded: Fresh) -> None:
    """As before the first commit."""
    driver.enqueue().claim().start().commit(40)
    view = loaded()
    assert view is not None
    assert (view.state, view.step, view.done, view.total, view.n, view.job) == (
        "running", "load_rows", 40, 100, 3, "shop.import_orders",
    )  # fmt: skip


def test_a_stored_view_goes_on_with_what_came_behind_it(driver: Driver, loaded: Fresh) -> None:
    """View, tail and fields together are the run."""
    driver.enqueue().claim().start()
    view = loaded()
    assert view is not None
    driver.commit(40, view=dump(view), seen=3).lapse().claim(2).start(40)
    view = loaded()
    assert view is not None
    assert (view.state, view.attempt, view.resumptions, view.resumed_at, view.crashes) == ("running", 2, 1, 40, 1)
    assert view.in_step and view.signal == "SIGKILL"


def test_the_last_id_is_where_to_go_on(driver: Driver, redis_client: redis.Redis) -> None:
    """Nothing is read twice, nothing is missed."""
    driver.enqueue().claim()
    found = load(redis_client, KEYS, "r1")
    assert found is not None and found.last_id == redis_client.xrevrange(KEYS.events("r1"), count=1)[0][0]


def test_row_29_entries_that_were_trimmed_cost_no_state(
    driver: Driver, loaded: Fresh, redis_client: redis.Redis
) -> None:
    """The fields hold all that matters."""
    driver.enqueue().claim().start().commit(70)
    redis_client.xtrim(KEYS.events("r1"), maxlen=0, approximate=False)
    view = loaded()
    assert view is not None
    assert (view.state, view.n, view.step, view.done, view.in_step) == ("running", 3, "load_rows", 70, True)


def test_a_stored_view_that_cannot_be_read_is_done_without(
    driver: Driver, loaded: Fresh, redis_client: redis.Redis
) -> None:
    """One of another version, say."""
    driver.enqueue().claim().start().commit(70)
    redis_client.hset(KEYS.run("r1"), "view", "{broken")
    view = loaded()
    assert view is not None and view.done == 70


async def test_loading_for_asyncio_is_the_same(driver: Driver, redis_client: redis.Redis, redis_url: str) -> None:
    """Both ask the same questions."""
    driver.enqueue().claim().start().commit(10)
    client = connection.async_client(redis_url)
    assert await aload(client, KEYS, "r1") == load(redis_client, KEYS, "r1")
    await client.aclose()


# -- following -----------------------------------------------------------------------------------------------


def test_each_state_is_seen_in_order(watched: Follower, driver: Driver) -> None:
    """Also those that last no time at all; the last view is the run."""
    seen: list[tuple[str, int]] = []
    driver.enqueue()
    with watched.watch("r1", lambda view: seen.append((view.state, view.n))) as watch:
        assert watch.wait_for(lambda view: view.state == "queued", 3)
        driver.claim().start().commit(40).lapse().claim(2).start(40).commit(100).finish()
        ended = watch.wait_for(lambda view: view.state == "completed", 3)
    numbers = [n for _, n in dict.fromkeys(seen)]
    assert ended is not None and numbers == sorted(set(numbers)) == [1, 2, 3, 4, 5, 6, 7]
    assert ended == load(connection.client(), KEYS, "r1").view  # type: ignore[union-attr]


def test_a_new_watch_is_served_at_once(watched: Follower, driver: Driver) -> None:
    """The read that blocks is ended for it."""
    driver.enqueue()
    Driver(driver.store, "r2").enqueue()
    with watched.watch("r1") as first:
        assert first.wait_for(bool, 3)
        wait_until(lambda: watched._reading)
        began = time.monotonic()
        with watched.watch("r2") as second:
            assert second.wait_for(lambda view: view.run == "r2", 3)
        assert time.monotonic() - began < 0.5
    driver.store.control("r2", "cancel", 10**9, now_d())


def test_a_new_watch_may_meet_a_connection_that_breaks(
    watched: Follower, driver: Driver, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its read is ended by Redis, between the look at it and the call that would end it."""
    connect = connection.sync_client

    def connect_late(url: str, *, name: str, retry: bool) -> Any:
        reading = watched._reading
        if name == "nbjobs-client" and reading:
            redis_client.client_kill_filter(_id=str(reading))
            wait_until(lambda: watched._reading != reading, 3, "the follower's read ends")
        return connect(url, name=name, retry=retry)

    driver.enqueue()
    Driver(driver.store, "r2").enqueue()
    with watched.watch("r1") as first:
        assert first.wait_for(bool, 3)
        wait_until(lambda: watched._reading)
        monkeypatch.setattr(connection, "sync_client", connect_late)
        with watched.watch("r2") as second:
            assert second.wait_for(bool, 3)


def test_all_watches_share_one_connection(watched: Follower, driver: Driver, redis_client: redis.Redis) -> None:
    """A hundred cards cost as much as one."""

    def followers() -> int:
        return sum(one["name"] == "nbjobs-follower" for one in redis_client.client_list())

    driver.enqueue()
    watches = [watched.watch("r1") for _ in range(30)]
    assert all(watch.wait_for(bool, 3) for watch in watches)
    assert followers() == 1
    for watch in watches:
        watch.close()
    wait_until(lambda: followers() == 0, 4, "the connection is closed")


def test_many_watches_are_made_at_once(watched: Follower, store: Store, redis_client: redis.Redis) -> None:
    """A hundred runs, their streams read by one connection and one thread, and each told of its own."""
    for number in range(100):
        Driver(store, f"r{number}").enqueue()
    seen: dict[str, str] = {}
    before = threading.active_count()
    watches = watched.watch_all([f"r{n}" for n in range(100)], lambda view: seen.update({view.run: view.state}))
    wait_until(lambda: len(seen) == 100, 5, "all are seen")
    Driver(store, "r99").claim()
    wait_until(lambda: seen["r99"] == "running", 3, "one moves")
    assert [client["name"] for client in redis_client.client_list()].count("nbjobs-follower") == 1
    assert threading.active_count() == before + 1
    assert set(seen.values()) == {"queued", "running"}
    for watch in watches:
        watch.close()


def cancelled(driver: Driver) -> None:
    """Let the run end."""
    driver.store.control(driver.run, "cancel", 10**6, now_d())


def opened_again(driver: Driver) -> None:
    driver.store.reopen(driver.run, 10**6, None, d=now_d())


def test_a_watch_that_rests_holds_no_connection(watched: Follower, driver: Driver, redis_client: redis.Redis) -> None:
    """After the end of all it watches the thread leaves; a run that is opened again in this process brings it back."""
    seen: list[str] = []
    watch = watched.watch(driver.enqueue().run, lambda view: seen.append(view.state), rests=True)
    wait_until(lambda: seen, 3, "the first view")
    cancelled(driver)
    wait_until(lambda: watched._thread is None, 3, "the thread leaves")
    assert seen == ["queued", "cancelled"]
    assert "nbjobs-follower" not in [client["name"] for client in redis_client.client_list()]
    opened_again(driver)
    watched.stir(driver.run)
    wait_until(lambda: seen[-1] == "queued", 3, "it is opened again")
    driver.claim()
    wait_until(lambda: seen[-1] == "running", 3, "it is followed")
    watch.close()


def test_a_run_that_is_opened_again_while_its_end_is_shown_is_live(watched: Follower, driver: Driver) -> None:
    """Who sees the end first may open the run before the follower rests."""
    seen: list[str] = []

    def see(view: RunView) -> None:
        seen.append(view.state)
        if seen.count("cancelled") == 1 and seen[-1] == "cancelled":
            opened_again(driver)
            watched.stir(driver.run)

    watch = watched.watch(driver.enqueue().run, see, rests=True)
    wait_until(lambda: seen, 3, "the first view")
    cancelled(driver)
    wait_until(lambda: seen[-1] == "queued" and len(seen) > 2, 3, "it is live again")
    watch.close()


def test_a_watch_that_rests_hears_of_others_as_long_as_one_is_watched(
    watched: Follower, driver: Driver, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that another process opens again is seen within a look where the thread is there, or comes."""
    monkeypatch.setattr(stream, "LOOK", 0.05)
    seen: list[str] = []
    resting = watched.watch(driver.enqueue().run, lambda view: seen.append(view.state), rests=True)
    cancelled(driver)
    wait_until(lambda: watched._thread is None, 3, "the thread leaves")
    opened_again(driver)
    other = Driver(store, "r2").enqueue()
    with watched.watch(other.run):
        wait_until(lambda: seen[-1] == "queued", 3, "found by the look")
    cancelled(other)
    resting.close()


def test_who_waits_for_a_run_that_rests_gets_what_is_true_now(watched: Follower, driver: Driver) -> None:
    """A new watch of it is shown the run as Redis has it, not as it was at its end."""
    resting = watched.watch(driver.enqueue().run, rests=True)
    cancelled(driver)
    wait_until(lambda: watched._thread is None, 3, "the thread leaves")
    opened_again(driver)
    with watched.watch(driver.run) as watch:
        assert watch.wait_for(lambda view: view.state == "queued", 3)
    resting.close()


def test_a_wait_ends_behind_the_callbacks(watched: Follower, driver: Driver) -> None:
    """Who waits for the end finds the card drawn."""
    drawn: list[str] = []
    driver.enqueue()
    with watched.watch("r1", lambda view: drawn.append(view.state)), watched.watch("r1") as waiting:
        assert waiting.wait_for(bool, 3)
        driver.claim().finish()
        assert waiting.wait_for(lambda view: view.state == "completed", 3)
        assert drawn[-1] == "completed"


def test_watches_are_shown_a_run_in_the_order_in_which_they_came(watched: Follower, driver: Driver) -> None:
    """Those that came while the thread was busy, too: who displays a run and then waits for it finds the card drawn."""
    driver.enqueue()
    began, gate, shown = threading.Event(), threading.Event(), list[str]()

    def busy(view: RunView) -> None:
        began.set()
        gate.wait(10)

    with watched.watch("r1", busy):
        assert began.wait(10)
        watches = [watched.watch("r1", lambda view, name=name: shown.append(name)) for name in "abc"]
        gate.set()
        wait_until(lambda: len(shown) >= 3)
        assert shown == ["a", "b", "c"]
        for watch in watches:
            watch.close()


def test_waiting_has_an_end(watched: Follower, driver: Driver) -> None:
    """None after the timeout; an error of the predicate is raised where it was given."""
    driver.enqueue()
    with watched.watch("r1") as watch:
        assert watch.wait_for(lambda view: view.state == "completed", 0.05) is None
        with pytest.raises(ZeroDivisionError):
            watch.wait_for(lambda view: 1 / 0, 3)


def test_a_callback_that_fails_harms_nobody(watched: Follower, driver: Driver, capfd: Any) -> None:
    """And nothing is printed: it would land in whatever cell runs."""
    driver.enqueue()
    with watched.watch("r1", lambda view: 1 / 0) as first, watched.watch("r1") as second:
        driver.claim()
        assert first.wait_for(lambda view: view.state == "running", 3)
        assert second.wait_for(lambda view: view.state == "running", 3)
    assert capfd.readouterr() == ("", "")


def test_a_missing_run_is_lost_until_it_is_there(watched: Follower, driver: Driver) -> None:
    """The reader's own word, taken back when the run comes."""
    with watched.watch("r1") as watch:
        assert watch.wait_for(lambda view: view.state == "lost", 3)
        driver.enqueue()
        assert watch.wait_for(lambda view: view.state == "queued", 3)


def test_row_28_a_run_that_is_flushed_is_lost(
    watched: Follower, driver: Driver, redis_client: redis.Redis, monkeypatch: Any
) -> None:
    """Though no event says so."""
    monkeypatch.setattr(stream, "LOOK", 0.2)
    driver.enqueue().claim()
    with watched.watch("r1") as watch:
        assert watch.wait_for(lambda view: view.state == "running", 3)
        redis_client.flushall()
        view = watch.wait_for(lambda view: view.state == "lost", 4)
        assert view is not None and view.job == "shop.import_orders"


def test_a_hash_that_is_gone_beside_its_stream_is_lost(
    watched: Follower, driver: Driver, redis_client: redis.Redis
) -> None:
    """And not asked for again and again."""
    driver.enqueue().claim()
    redis_client.delete(KEYS.run("r1"))
    seen: list[str] = []
    with watched.watch("r1", lambda view: seen.append(view.state)) as watch:
        assert watch.wait_for(lambda view: view.state == "lost", 3)
        assert watch.wait_for(lambda view: view.state != "lost", QUIET) is None
    assert len(seen) <= 3
    redis_client.flushall()


def test_a_hole_in_the_numbers_loads_the_run_again(
    watched: Follower, driver: Driver, redis_client: redis.Redis
) -> None:
    """Row 29, while following: what is missing is read from the run itself."""
    driver.enqueue()
    with watched.watch("r1") as watch:
        assert watch.wait_for(lambda view: view.state == "queued", 3)
        pipe = redis_client.pipeline()
        pipe.hset(
            KEYS.run("r1"), mapping={"n": "7", "state": "running", "step": "load_rows", "done": "55", "total": "100"}
        )
        pipe.xadd(KEYS.events("r1"), {"e": "job.step_started", "id": "r1", "a": "1", "d": "", "n": "7", "s": "running"})
        pipe.execute()
        view = watch.wait_for(lambda view: view.n == 7, 3)
        assert view is not None and (view.done, view.step) == (55, "load_rows")


def test_row_31_what_comes_twice_is_folded_once(watched: Follower, driver: Driver, redis_client: redis.Redis) -> None:
    """The same entry again under a new id."""
    driver.enqueue().claim().start()
    with watched.watch("r1") as watch:
        first = watch.wait_for(lambda view: view.n == 3, 3)
        for _, entry in redis_client.xrange(KEYS.events("r1")):
            redis_client.xadd(KEYS.events("r1"), entry)
        driver.commit(50)
        second = watch.wait_for(lambda view: view.done == 50, 3)
        assert (
            first is not None
            and second is not None
            and second.n == 3
            and second.steps == first.steps[:0] + second.steps
        )


def test_row_34_a_storm_of_progress_is_shown_in_few_views(
    watched: Follower, driver: Driver, redis_client: redis.Redis
) -> None:
    """What came in one reading is one view; the last one is exact."""
    seen: list[int | None] = []
    driver.enqueue().claim().start()
    with watched.watch("r1", lambda view: seen.append(view.done)) as watch:
        assert watch.wait_for(bool, 3)
        pipe = redis_client.pipeline()
        for done in range(1, 2001):
            payload = json.dumps({"p": {"step": "load_rows", "done": done, "total": 2000}, "ts": done})
            pipe.xadd(KEYS.events("r1"), {"e": "job.progress", "id": "r1", "a": "1", "d": payload})
        pipe.execute()
        assert watch.wait_for(lambda view: view.done == 2000, 5)
    assert len(seen) < 40


def test_a_queue_without_workers_is_said_within_five_seconds(
    watched: Follower, driver: Driver, redis_client: redis.Redis
) -> None:
    """And taken back when one gives a sign."""
    driver.enqueue("gpu")
    with watched.watch("r1") as watch:
        view = watch.wait_for(lambda view: view.no_worker, 5)
        assert view is not None and view.queue == "gpu"
        redis_client.zadd(keys.workers("gpu"), {"w-1": watched.now()})
        assert watch.wait_for(lambda view: not view.no_worker, 3)


def test_row_30_a_redis_that_fell_back_is_read_anew(tmp_path: Any) -> None:
    """The reader was ahead of it: after the restart it shows what Redis has, and follows on."""
    with RedisServer() as server:
        settings = NbJobs(redis_url=server.url, user="ada")
        store = Store(connection.sync_client(server.url), "ada", settings)
        driver = Driver(store).enqueue().claim()
        watched = Follower("ada", settings)
        with watched.watch("r1") as watch:
            assert watch.wait_for(lambda view: view.state == "running", 3)
            older = {name: store.read("r1", name)[0] for name in ("n", "state")}
            driver.start().commit(60)
            assert watch.wait_for(lambda view: view.done == 60, 3)
            client = server.client()
            last = client.xrange(KEYS.events("r1"))[1][0]
            for id, _ in client.xrange(KEYS.events("r1"), f"({last}"):
                client.xdel(KEYS.events("r1"), id)
            client.hset(
                KEYS.run("r1"), mapping={**older, "step": "", "cursor": "", "done": "", "last_id": last, "c": "0"}
            )
            server.restart()
            view = watch.wait_for(lambda view: view.n == 2, 10)
            assert view is not None and view.step == ""
            driver.c = 0
            driver.start().commit(30)
            assert watch.wait_for(lambda view: view.done == 30, 5)
        wait_until(lambda: watched._thread is None, 3)


def test_a_redis_that_is_away_is_waited_for(tmp_path: Any, capfd: Any) -> None:
    """Silently; the run's end is seen when it is back."""
    with RedisServer() as server:
        settings = NbJobs(redis_url=server.url, user="ada")
        store = Store(connection.sync_client(server.url), "ada", settings)
        driver = Driver(store).enqueue().claim()
        watched = Follower("ada", settings)
        with watched.watch("r1") as watch:
            assert watch.wait_for(lambda view: view.state == "running", 3)
            server.kill()
            wait_until(lambda: not watched.connected, 3)
            assert watch.wait_for(lambda view: view.away and view.state == "running", 10)
            server.start()
            assert watch.wait_for(lambda view: not view.away, 10)
            driver.finish()
            assert watch.wait_for(lambda view: view.state == "completed", 8)
        wait_until(lambda: watched._thread is None, 3)
    assert capfd.readouterr() == ("", "")


def test_a_process_shares_one_follower_a_user(nbjobs_settings: NbJobs) -> None:
    """Whoever asks."""
    assert follower("ada") is follower("ada") is not follower("bob")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_begins_without_followers(watched: Follower, driver: Driver) -> None:
    """Thread and connection are the parent's; the child makes its own."""
    driver.enqueue()
    shared = follower("ada")
    with shared.watch("r1") as watch:
        assert watch.wait_for(bool, 3)
        pid = os.fork()
        if pid == 0:
            fine = shared._thread is None and shared._client is None and follower("ada") is not shared
            os._exit(0 if fine else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        driver.claim()
        assert watch.wait_for(lambda view: view.state == "running", 3)
    wait_until(lambda: shared._thread is None, 3)


def test_a_callback_may_ask_for_what_is_known_and_never_waits_for_itself(watched: Follower, driver: Driver) -> None:
    """At a run's end it may wait for that end, as for its result; before it, the error says why that cannot be."""
    found: list[object] = []

    def see(view: RunView) -> None:
        try:
            with watched.watch("r1") as inner:
                ended = inner.wait_for(lambda view: view.state == "completed")
                found.append(ended.state if ended else None)
        except RuntimeError as error:
            found.append(error)

    driver.enqueue()
    with watched.watch("r1", see) as watch:
        assert watch.wait_for(bool, 3)
        driver.claim().finish()
        assert watch.wait_for(lambda view: view.state == "completed", 3)
    assert all("it would wait for itself" in str(one) for one in found[:-1])
    assert found[-1] == "completed"
    assert len(found) >= 2


def test_the_thread_leaves_no_trace(watched: Follower, driver: Driver) -> None:
    """I10: after the last watch there is neither thread nor connection."""
    driver.enqueue()
    for _ in range(3):
        with watched.watch("r1") as watch:
            assert watch.wait_for(bool, 3)
    wait_until(lambda: not any(one.name == "nbjobs-follower" for one in threading.enumerate()), 4)
    assert not watched.connected


def test_a_dumped_view_of_another_run_is_no_danger(driver: Driver, loaded: Fresh, redis_client: redis.Redis) -> None:
    """The fields win also over a view that says something else."""
    driver.enqueue().claim().start().commit(40)
    redis_client.hset(KEYS.run("r1"), "view", dump(midway().view))
    view = loaded()
    assert view is not None and (view.n, view.done, view.total, view.state) == (3, 40, 100, "running")
    assert empty("r1").run == view.run
