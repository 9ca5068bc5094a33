"""Breaks the package on purpose, one way at a time: each time a test must fail.

Run as ``python -m tests.mutants [WORDS]`` (``make mutants``); words choose mutants by their names. Each mutant is one
replacement of text in a copy of the package, and names the tests that should notice. A mutant that survives is a hole
in the tests, one whose text is no longer there has to be written anew: both fail. The copy without a mutant must pass.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SIDE_BY_SIDE = 2
LIMIT = 120  # seconds for the tests of one mutant
PATIENCE = "20"  # seconds that a test of a fault waits for what a mutant may never let happen

KILLS, POINTS = "tests/faults/test_kills.py", "tests/faults/test_points.py"
ZOMBIES, NETWORK = "tests/faults/test_zombies.py", "tests/faults/test_network.py"
REDIS, STOPS = "tests/faults/test_redis.py", "tests/faults/test_stops.py"
MAPPING = "tests/test_mapping.py"
EARLY = "tests/faults/test_early_looks.py"
SCRIPTS, WORKER = "tests/test_store_scripts.py", "tests/test_worker.py"
RUNNER = "tests/test_runner.py"
DAEMON = "tests/test_daemon_in_bad_weather.py"
GARBAGE = "tests/test_store_garbage.py"
ENDINGS, ENDS, ATTEMPTS = "tests/test_endings.py", "tests/faults/test_ends.py", "tests/test_attempts.py"
TENANTS, FAMILIES = "tests/faults/test_tenants.py", "tests/faults/test_families.py"

JUMPS, SWEEPER = "tests/test_store_jumps.py", "tests/test_sweeper.py"

COMES_NEXT = f"{ZOMBIES}::test_row_08_a_zombie_is_refused_though_its_number_comes_next"
LONG_CALL = f"{ZOMBIES}::test_row_10_an_item_that_holds_the_interpreter_keeps_its_lease"
NOT_SENT = f"{POINTS}::test_row_05_an_item_whose_commit_was_not_sent_is_repeated"
STORED = f"{POINTS}::test_row_06_an_item_whose_commit_is_stored_is_not_repeated"
POISON = f"{KILLS}::test_row_13_a_job_that_kills_its_process_is_dead_after_four_starts"
CHILD = f"{KILLS}::test_row_04_a_killed_child_costs_a_moment[1]"
KILLED = f"{KILLS}::test_row_04_a_killed_worker_costs_its_lease[worker]"
LOST = f"{NETWORK}::test_row_21_a_lost_answer_has_one_effect"
FULL = f"{REDIS}::test_row_24_a_full_redis_holds_the_run_and_breaks_nothing"
STOPPED = f"{STOPS}::test_row_01_a_stopped_worker_ends_its_item_and_hands_the_run_on"
REFUSED = f"{SCRIPTS}::test_commit_is_refused_whole"
BACKOFF, CONNECTION = "tests/test_backoff.py", "tests/test_connection.py"
FAILOVER = "tests/faults/test_failover.py"
KEPT_MAPS, MAPPING = "tests/test_store_maps.py", "tests/test_mapping.py"


class Mutant(NamedTuple):
    """One way to break it: in a file of the package, this text becomes that one."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


LEAVES = "tests/faults/test_leaves.py"


MUTANTS = [
    Mutant(
        "what a dead worker held is given back after the back-off",
        "keeper.py",
        """                await self._steward.give_back(program.pid, code)
                if self._stopping:
                    return
""",
        """                if self._stopping:
                    return await self._steward.give_back(program.pid, code)
                await self._cut_short(1.0)
                await self._steward.give_back(program.pid, code)
""",
        ("tests/test_keeper.py::test_what_a_dead_worker_held_is_given_back_before_all_else",),
    ),
    Mutant(
        "a socket of the daemon that was removed is not made anew",
        "daemon.py",
        "                if self._gone(found.daemon_socket):\n",
        "                if False:\n",
        (f"{DAEMON}::test_sockets_that_were_removed_are_made_anew[daemon.sock]",),
    ),
    Mutant(
        "a socket of Redis that was removed is not made anew",
        "daemon.py",
        "                    self._redis.send_signal(signal.SIGTERM)\n",
        "",
        (f"{DAEMON}::test_sockets_that_were_removed_are_made_anew[redis.sock]",),
    ),
    Mutant(
        "clients do not follow the lock of the data",
        "embedded.py",
        "    return Places(found.runtime, data)\n",
        "    return own_places(settings)\n",
        (f"{DAEMON}::test_a_daemon_is_found_by_its_data_whatever_the_runtime_directory_is",),
    ),
    Mutant(
        "a worker stays where daemon and guard were killed at once",
        "worker.py",
        "        self.handle_sig(Signals.SIGHUP)\n",
        "",
        (f"{DAEMON}::test_what_outlives_daemon_and_guard_is_ended_by_down",),
    ),
    Mutant(
        "commits are not fenced",
        "scripts/commit.lua",
        "if not holds(ARGV[5]) then return answer('FENCED') end\n",
        "",
        (f"{COMES_NEXT}[commit]",),
    ),
    Mutant(
        "ends are not fenced",
        "scripts/finish.lua",
        "if not holds(ARGV[5]) then return answer(run.last_owner == ARGV[5] and 'AGAIN' or 'FENCED') end\n",
        "",
        (f"{COMES_NEXT}[finish]",),
    ),
    Mutant(
        "the same commit is done again",
        "scripts/commit.lua",
        "if new.c == run.c then return answer('AGAIN') end\nif num(new.c) ~= num(run.c) + 1 then",
        "if num(new.c) > num(run.c) + 1 then",
        (f"{LOST}[commit]",),
    ),
    Mutant(
        "commits may leave one out",
        "scripts/commit.lua",
        "if num(new.c) ~= num(run.c) + 1 then return answer('ORDER') end\n",
        "",
        (REFUSED,),
    ),
    Mutant(
        "an end may leave a commit out",
        "scripts/finish.lua",
        "if new.c ~= '' and num(new.c) ~= num(run.c) + 1 then return answer('ORDER') end\n",
        "",
        (f"{SCRIPTS}::test_finish_is_refused_whole",),
    ),
    Mutant(
        "the view is written apart from the cursor",
        "journal.py",
        "                self._heed(reply)\n                commit = self._gather()",
        "                self._heed(reply)\n"
        "                self._store._client.hset(self._store.keys.run(self._claim.run), 'view', commit.view)\n"
        "                commit = self._gather()",
        (STORED,),
    ),
    Mutant(
        "the view is written without the cursor",
        "scripts/_head.lua",
        "  for _, field in ipairs({'c', 'step', 'cursor', 'done', 'total'}) do put(field, new[field]) end\n",
        "  put('c', new.c)\n",
        (STORED,),
    ),
    Mutant(
        "a view that misses events is stored",
        "scripts/_head.lua",
        "local view_fits = new.n_seen == run.n ",
        "local view_fits = true",
        (f"{SCRIPTS}::test_commit_keeps_the_old_view_where_another_has_written",),
    ),
    Mutant(
        "a count of steps is believed",
        "scripts/_head.lua",
        "  if steps > MAX_ENDED or steps > 0 and not redis.call('HMGET', KEYS[1], 's:' .. int(steps))[1] then",
        "  if false then",
        (f"{GARBAGE}::test_a_run_that_counts_steps_it_has_not_keeps_what_it_has",),
    ),
    Mutant(
        "steps are forgotten before all is checked",
        "scripts/_head.lua",
        "  in_slices('HDEL', removed)\n",
        "  if #removed > 0 then redis.call('HDEL', KEYS[1], unpack(removed)) end\n",
        (f"{GARBAGE}::test_steps_are_forgotten_however_many_they_are",),
    ),
    Mutant(
        "anything that Lua reads is a number",
        "scripts/_head.lua",
        "  local number = #text <= 16 and text:find('^%d+$') and tonumber(text)\n",
        "  local number = tonumber(text)\n",
        (f"{GARBAGE}::test_a_garbled_argument_is_refused_or_taken_for_none",),
    ),
    Mutant(
        "what cannot be looked at is looked at again at once",
        "leases.py",
        "        at = self.clock.now() + _HOUR_MS\n",
        "        at = self.clock.now()\n",
        (f"{TENANTS}::test_a_run_that_cannot_be_looked_at_is_left_alone_for_an_hour",),
    ),
    Mutant(
        "one user's keys stop the sweep",
        "leases.py",
        "                    if not concerns_call(answer):\n",
        "                    if True:\n",
        (f"{TENANTS}::test_what_is_of_no_use_leaves_the_queue",),
    ),
    Mutant(
        "only the head of the queue is looked at",
        "worker.py",
        "        self._depth = self._depth + _DEEP if len(page) == _DEEP else self.queue_read_limit\n",
        "",
        (f"{TENANTS}::test_what_one_user_breaks_delays_no_other[runs_of_a_newer_version]",),
    ),
    Mutant(
        "a child that failed stays so",
        "enqueue.py",
        "        if child and reply.code ==",
        "        if not child and reply.code ==",
        (f"{FAMILIES}::test_a_parent_that_is_killed_while_it_opens_its_child_again_loses_nothing[before_send]",),
    ),
    Mutant(
        "a restart meets the children of before",
        "scripts/_head.lua",
        "  if num(run.attempt) > 0 then add('generation', 1) end\n",
        "",
        (f"{FAMILIES}::test_a_restart_begins_all_children_anew",),
    ),
    Mutant("the crash count never rises", "scripts/lapse.lua", "add('crashes', 1)", "add('crashes', 0)", (POISON,)),
    Mutant(
        "the beginning of a step counts as progress",
        "scripts/_head.lua",
        "if new.moved then put('crashes', '0') end",
        "put('crashes', '0')",
        (POISON,),
    ),
    Mutant(
        "progress does not take crashes back",
        "scripts/_head.lua",
        "if new.moved then put('crashes', '0') end",
        "",
        (KILLED,),
    ),
    Mutant(
        "the lease is never renewed",
        "scripts/renew.lua",
        "lease(ARGV[6])\n",
        "",
        (LONG_CALL,),
    ),
    Mutant(
        "a full Redis stops the renewals",
        "signs.py",
        "await self.renew()  # first",
        "await self.sign()\n                    await self.renew()  # first",
        (FULL,),
    ),
    Mutant(
        "an ended lease is not seen",
        "scripts/lapse.lua",
        "if ends > earliest and not impossible then",
        "if true then",
        (KILLED,),
    ),
    Mutant(
        "the reader starts at the stream's end",
        "stream.py",
        "self._keys.events(one.view.run): one.last_id for one",
        'self._keys.events(one.view.run): "$" for one',
        (f"{EARLY}::test_row_29_what_comes_before_the_first_read_is_shown",),
    ),
    Mutant(
        "an end that is sent again is refused",
        "scripts/finish.lua",
        "run.last_owner == ARGV[5] and 'AGAIN' or 'FENCED'",
        "'FENCED'",
        (f"{LOST}[finish]",),
    ),
    Mutant(
        "who lapses its own run again is refused",
        "scripts/lapse.lua",
        "run.last_owner == ARGV[5] and 'AGAIN' or 'FENCED'",
        "'FENCED'",
        (f"{SCRIPTS}::test_lapse_sent_again_changes_nothing", f"{SCRIPTS}::test_finish_sent_again_changes_nothing"),
    ),
    Mutant(
        "nobody hears that the run is to be cancelled",
        "scripts/_head.lua",
        "run.at, run.control, run.fence",
        "run.at, '', run.fence",
        (f"{WORKER}::test_a_running_body_is_cancelled",),
    ),
    Mutant(
        "an end does not heed a cancel",
        "scripts/finish.lua",
        "elseif run.control == 'cancel' or run.control == 'now' then",
        "elseif false then",
        (f"{SCRIPTS}::test_finish_ends_the_attempt",),
    ),
    Mutant(
        "a held run can be claimed",
        "scripts/claim.lua",
        "if run.owner ~= '' then return answer('HELD') end\n",
        "",
        (f"{SCRIPTS}::test_claim_refuses",),
    ),
    Mutant(
        "an attempt can be claimed twice",
        "scripts/claim.lua",
        "if num(ARGV[6]) ~= num(run.attempt) + 1 then return answer('ATTEMPT') end\n",
        "",
        (f"{SCRIPTS}::test_claim_refuses",),
    ),
    Mutant(
        "a run is claimed that is another than was told",
        "scripts/claim.lua",
        "~= ARGV[i + 1] then return answer('OTHER') end",
        "~= ARGV[i + 1] then break end",
        (f"{SCRIPTS}::test_claim_refuses_a_run_that_is_another_than_was_told",),
    ),
    Mutant(
        "a run of which was told wrong is forgotten",
        "attempts.py",
        'reply.code in ("GONE", "OTHER"):',
        "False:",
        (f"{WORKER}::test_a_wake_up_that_tells_wrong_begins_nothing_else",),
    ),
    Mutant(
        "the fence does not rise",
        "scripts/claim.lua",
        "put('fence', int(math.max(num(run.fence) + 1, now)))",
        "put('fence', '1')",
        (NOT_SENT,),
    ),
    Mutant("events are numbered with holes", "scripts/_head.lua", "add('n', 1)", "add('n', 2)", (STORED,)),
    Mutant(
        "a commit that Redis does not answer is given up",
        "journal.py",
        "with backoff:\n            return call()",
        "if backoff:\n            return call()",
        (FULL,),
    ),
    Mutant(
        "a worker does not give back what its child died over",
        "attempts.py",
        '"child_died",\n                fate',
        '"worker_died",\n                fate',
        (CHILD,),
    ),
    Mutant(
        "a drain kills at once",
        "attempts.py",
        'self._pool.stop(owner, "stopping")',
        "self._pool.kill(owner)",
        (STOPPED,),
    ),
    Mutant(
        "an entry that was looked at too early is gone",
        "attempts.py",
        "        return _candidate(id, fields)\n\n    async def _warn",
        "        return None\n\n    async def _warn",
        (f"{EARLY}::test_row_21_a_look_that_comes_too_early_loses_no_run",),
    ),
    Mutant(
        "a loop waits for the ticker to say that it is time",
        "journal.py",
        "return self.is_due(now - TICK, _SHARE)",
        "return False",
        (f"{RUNNER}::test_a_loop_commits_by_the_clock_where_the_ticker_gets_no_turn",),
    ),
    Mutant(
        "a map waits for the ticker to say that it is time",
        "mapped.py",
        "self._step.flag or self._run.is_due(time.monotonic(), SHARE)",
        "self._step.flag",
        (f"{MAPPING}::test_a_map_commits_when_that_is_due_though_no_flag_is_raised",),
    ),
    Mutant(
        "one slow commit stretches the pauses after it",
        "journal.py",
        "sorted(self._trips)[2]",
        "sorted(self._trips)[-1]",
        (f"{RUNNER}::test_commits_come_less_often_where_most_of_them_take_long",),
    ),
    Mutant(
        "a resumed loop leaves an item out",
        "resuming.py",
        "islice(sequence, done, None)",
        "islice(sequence, done + 1, None)",
        (NOT_SENT,),
    ),
    Mutant(
        "an item counts as done before its work",
        "steps.py",
        "return self.place.standing(done)",
        "return self.place.standing(done + 1)",
        (STORED,),
    ),
    Mutant(
        "results of a map are not kept",
        "scripts/_head.lua",
        "  keep_results(new)\n",
        "",
        (f"{KEPT_MAPS}::test_results_are_stored_with_the_commit",),
    ),
    Mutant(
        "results of a map outlive their run",
        "scripts/_head.lua",
        "    each_map('PEXPIRE', ARGV[4])\n",
        "",
        (f"{KEPT_MAPS}::test_results_expire_with_the_run",),
    ),
    Mutant(
        "results of a map end though their run is opened again",
        "scripts/reopen.lua",
        "each_map('PERSIST')\n",
        "",
        (f"{KEPT_MAPS}::test_a_run_that_is_opened_again_has_its_results",),
    ),
    Mutant(
        "a restart leaves the results of maps",
        "scripts/_head.lua",
        "    if num(k) < from then kept[#kept + 1] = k else redis.call('DEL', map_key(k)) end\n",
        "    kept[#kept + 1] = k\n",
        (f"{KEPT_MAPS}::test_a_restart_drops_results",),
    ),
    Mutant(
        "a map that begins anew keeps another step's results",
        "scripts/_head.lua",
        "        redis.call('DEL', key)\n",
        "",
        (f"{KEPT_MAPS}::test_a_map_that_begins_anew_forgets_what_was_there",),
    ),
    Mutant(
        "a map takes the results of another step",
        "mapped.py",
        'if stored.get("name") != self._step.name:',
        'if "name" not in stored:',
        (f"{MAPPING}::test_another_steps_results_are_not_taken",),
    ),
    Mutant(
        "a map begins all its items at once",
        "mapped.py",
        "if self._next is None or self._next[0] >= self._low + AHEAD:",
        "if self._next is None:",
        (f"{MAPPING}::test_one_slow_item_makes_none_of_many_fast_ones_repeat",),
    ),
    Mutant(
        "the mark of a map passes items that are not done",
        "mapped.py",
        "while low in self._values:",
        "while low in self._beyond:",
        (f"{MAPPING}::test_an_attempt_does_those_items_that_are_not_kept",),
    ),
    Mutant(
        "a loop with keys goes on with the item that is done",
        "resuming.py",
        "        if key(item) == step.stored.value:\n            return source\n",
        "        if key(item) == step.stored.value:\n            return iter([item, *source])\n",
        ("tests/test_marks.py::test_a_loop_with_keys_goes_on_behind_the_key_of_the_last_item_done",),
    ),
    Mutant(
        "a body that reaches no checkpoint outlives its timeout",
        "childhandle.py",
        '        if running.overdue and not running.ended.done():\n            self.kill("killed")\n',
        "        pass\n",
        ("tests/test_worker_limits.py::test_a_timeout_after_progress_goes_on_at_the_cursor",),
    ),
    Mutant(
        "errors tell their secrets",
        "shown.py",
        "    return plain.masked(text, events.reporter.hides)\n",
        "    return text\n",
        ("tests/test_secrets.py::test_row_58_a_secret_is_nowhere",),
    ),
    Mutant(
        "a run of a newer version is taken",
        "attempts.py",
        """            if (whole(fields["v"]) or 0) > SCHEMA:""",
        """            if False:""",
        (f"{WORKER}::test_an_entry_of_a_newer_nbjobs_is_left_alone",),
    ),
    Mutant(
        "what an older release has stored is read otherwise",
        "codec.py",
        """    "$tuple": lambda values: tuple(_many(values)),""",
        """    "$tuple": lambda values: list(_many(values)),""",
        ("tests/test_golden.py::test_row_39_a_half_done_run_of_a_release_is_gone_on_with[0.1.0-with_values]",),
    ),
    Mutant(
        "a cursor of an older release is begun anew",
        "resuming.py",
        "        if key(item) == step.stored.value:\n            return source\n",
        "        if [key(item)] == step.stored.value:\n            return source\n",
        ("tests/test_golden.py::test_row_39_a_half_done_run_of_a_release_is_gone_on_with[0.1.0-by_key]",),
    ),
    Mutant(
        "a stranger's kind of run ends the worker",
        "attempts.py",
        """        kind="async" if fields["kind"] == "async" else "sync",\n""",
        """        kind=fields["kind"] or "sync",\n""",
        ("tests/test_pickles.py::test_row_57_a_pickle_in_any_field_of_a_run",),
    ),
    Mutant(
        "events are stamped by the machine's clock",
        "journal.py",
        "        return time.monotonic_ns() + self._origin\n",
        "        return time.time_ns()\n",
        ("tests/faults/test_clocks.py::test_row_32_a_clock_that_is_set_in_the_middle_changes_nothing",),
    ),
    Mutant(
        "what waits of printed lines is not bounded in bytes",
        "logbook.py",
        "        self.fit(_RUN_BYTES)\n",
        "",
        ("tests/test_logbook.py::test_the_backlog_while_redis_is_away_is_bounded_in_bytes",),
    ),
    Mutant(
        "a flood of lines is cut without an allowance",
        "lines.py",
        "if not count or not (self._allowance.take(count) or all):",
        "if not count:",
        ("tests/test_output.py::test_a_flood_is_cut_within_its_allowance_and_counted",),
    ),
    Mutant(
        "a stop of the body's own is taken for ours",
        "endings.py",
        "(facts.asked and isinstance(error, _STOPS))",
        "isinstance(error, _STOPS)",
        (f"{ENDINGS}::test_a_stop_that_nobody_asked_for_is_an_error",),
    ),
    Mutant(
        "a release without progress is not counted",
        "scripts/finish.lua",
        "  add('fruitless', 1)\n",
        "  add('fruitless', 0)\n",
        (f"{SCRIPTS}::test_a_release_without_progress_waits_longer_each_time",),
    ),
    Mutant(
        "progress does not take releases back",
        "scripts/_head.lua",
        "  if new.moved and num(run.fruitless) > 0 then put('fruitless', '0') end\n",
        "",
        (f"{SCRIPTS}::test_what_its_owner_decides_begins_the_count_anew",),
    ),
    Mutant(
        "texts are cut by characters",
        "shown.py",
        "    if len(_json(part)) - 2 <= limit:\n",
        "    if len(part) <= limit:\n",
        (f"{ENDINGS}::test_a_text_is_cut_by_its_bytes",),
    ),
    Mutant(
        "a failure to describe an error reaches the child",
        "endings.py",
        "with contextlib.suppress(BaseException):",
        "with contextlib.suppress(Exception):",
        (f"{ENDINGS}::test_an_error_that_refuses_to_be_told_is_told_all_the_same",),
    ),
    Mutant(
        "an error's own text may end the process",
        "shown.py",
        "    except BaseException as failure:  # of the user's class",
        "    except Exception as failure:  # of the user's class",
        (f"{ENDINGS}::test_an_error_that_refuses_to_be_told_is_told_all_the_same",),
    ),
    Mutant(
        "texts are masked before they are cut",
        "shown.py",
        "cut(masked(cut(text, 2 * limit)), limit)",
        "cut(masked(text), limit)",
        (f"{ENDINGS}::test_a_long_error_is_cut_before_it_is_masked",),
    ),
    Mutant(
        "the end hangs on the last commit",
        "journal.py",
        "            except Exception:  # of what the body has put there: its items, their total\n",
        "            except ZeroDivisionError:\n",
        (f"{ENDS}::test_what_a_body_puts_into_its_last_commit_refuses_no_end",),
    ),
    Mutant(
        "names of events are not cleaned",
        "journal.py",
        "event.name if event.name.isprintable() else",
        "event.name if event.name else",
        (f"{ENDS}::test_the_name_of_an_event_refuses_no_commit",),
    ),
    Mutant(
        "the death of a nursery is nobody's crash",
        "suspects.py",
        "return self._deaths.get(run, 0) >= _BLAME",
        "return False",
        (f"{ATTEMPTS}::test_runs_that_were_there_twice_when_a_nursery_died_go_one_at_a_time",),
    ),
    Mutant(
        "a commit reads the count twice",
        "journal.py",
        'written = (step.name if step is not None else "", reading[1], reading[0])',
        'written = (step.name, step.value, step.done) if step is not None else ("", None, 0)',
        (f"{RUNNER}::test_an_item_that_ends_while_another_thread_commits_is_committed_next",),
    ),
    Mutant(
        "a worker takes the adapter of its environment",
        "worker.py",
        'if settings.adapter != "arq":',
        'if settings.adapter == "no such":',
        (f"{ENDS}::test_a_worker_sleeps_waits_whatever_its_environment_says_of_the_adapter",),
    ),
    Mutant(
        "an error of Redis that nobody knows ends a service",
        "outages.py",
        "FAILURES = (RedisUnavailable, RedisNotPrepared, RedisError, OSError)",
        "FAILURES = (RedisUnavailable, RedisNotPrepared, ConnectionError, TimeoutError, OSError)",
        (f"{BACKOFF}::test_a_service_waits_out_whatever_redis_answers",),
    ),
    Mutant(
        "a call that Redis has something against is repeated for ever",
        "backoff.py",
        'return meaning.concerns != "call"',
        "return True",
        (f"{BACKOFF}::test_one_call_is_not_repeated_where_redis_has_something_against_it",),
    ),
    Mutant(
        "a replica is asked for ever on the same connection",
        "redis_connections.py",
        "if meaning is not None and meaning.anew and not is_old(self):",
        "if meaning is not None and not meaning.anew:",
        (
            f"{CONNECTION}::test_what_says_that_another_server_is_meant_renews_all_connections",
            f"{FAILOVER}::test_a_run_goes_on_where_its_address_leads_to_another_primary",
        ),
    ),
    Mutant(
        "who only reads goes on with a replica",
        "stream.py",
        "if not connection.is_primary(self._client):",
        "if self._client is None:",
        (f"{FAILOVER}::test_who_only_reads_notices_that_a_replica_answers",),
    ),
    Mutant(
        "a dead connection for wake-ups is listened to",
        "signs.py",
        'raise TimeoutError(f"no sign for {2 * _LISTEN:g} s")',
        "return",
        (f"{FAILOVER}::test_a_dead_connection_for_wake_ups_is_noticed",),
    ),
    Mutant(
        "a connection that has not chosen its database is used",
        "redis_connections.py",
        "except BaseException:  # redis-py leaves",
        "except ZeroDivisionError:  # redis-py leaves",
        (f"{CONNECTION}::test_a_connection_whose_login_was_refused_is_not_used",),
    ),
    Mutant(
        "a timer that a body has left goes on",
        "upkeep.py",
        "self._rang = stop_timers() or self._rang",
        "pass",
        (f"{LEAVES}::test_what_a_body_leaves_in_its_process_meets_no_other_run",),
    ),
    Mutant(
        "a process runs bodies of any user",
        "pool.py",
        'if child.usable and child.user in (user, "")]',
        "if child.usable]",
        (f"{LEAVES}::test_a_process_runs_the_bodies_of_one_user",),
    ),
    Mutant(
        "a context outlives its body",
        "runner.py",
        "contextvars.copy_context().run(self._run_body, *prepared)",
        "self._run_body(*prepared)",
        (f"{LEAVES}::test_a_value_of_a_context_variable_ends_with_its_run",),
    ),
    Mutant(
        "a look that raises ends the ticker",
        "ticker.py",
        "except BaseException:  # a body's code",
        "except KeyError:  # a body's code",
        ("tests/test_ticker.py",),
    ),
    Mutant(
        "a fork finds the locks of other threads held",
        "forks.py",
        "made._at_fork_reinit()  # as",
        "pass  # as",
        (f"{LEAVES}::test_a_fork_of_a_body_finds_no_lock_held",),
    ),
    Mutant(
        "a jump of the clock is not noticed",
        "clock.py",
        "elif abs(self._ahead - before) > self._tolerance:",
        "elif False:",
        ("tests/test_clock.py::test_after_a_jump_both_times_are_possible",),
    ),
    Mutant(
        "a lease is over as soon as it is so by Redis",
        "scripts/lapse.lua",
        "if ends > earliest and",
        "if ends > now and",
        (f"{JUMPS}::test_a_lease_is_over_when_it_is_so_by_both_bounds",),
    ),
    Mutant(
        "a lease of before the clock was set back lasts for hours",
        "scripts/lapse.lua",
        "if ends > earliest and not impossible then",
        "if ends > earliest then",
        (f"{JUMPS}::test_a_lease_that_no_claim_could_give_is_over",),
    ),
    Mutant(
        "a wait of before the clock was set back lasts for hours",
        "scripts/lapse.lua",
        "if wait > 0 and at > latest + wait then",
        "if false then",
        (f"{JUMPS}::test_a_wait_begins_again_where_the_clock_was_set_back",),
    ),
    Mutant(
        "a sweeper takes what its own worker holds",
        "leases.py",
        "self._renewal(held) if holds(held.owner) else self._look(held, bounds)",
        "self._look(held, bounds)",
        (f"{SWEEPER}::test_what_a_worker_holds_itself_is_renewed",),
    ),
    Mutant(
        "each worker of a fleet sweeps",
        "sweeper.py",
        "if name == self._name:\n            await",
        "if True:\n            await",
        (f"{SWEEPER}::test_a_fleet_sweeps_once",),
    ),
    Mutant(
        "a lock of before the clock was set back lasts for hours",
        "sweeper.py",
        "if name == self._name or not 0 <= left <= 2 * ms:",
        "if name == self._name:",
        (f"{SWEEPER}::test_a_lock_that_would_last_for_hours_is_put_right",),
    ),
    Mutant(
        "keys of a user who has left never end",
        "tidying.py",
        "            pipe.pexpire(key, ms)\n",
        "            pass\n",
        ("tests/test_tidying.py::test_nothing_is_left_of_a_user_whose_runs_have_expired",),
    ),
    Mutant(
        "what was to end of a user who comes back does",
        "scripts/_head.lua",
        "    for i = 4, 5 do redis.call('PERSIST', KEYS[i]) end\n",
        "",
        ("tests/test_tidying.py::test_a_user_who_comes_back_is_kept",),
    ),
]


class Verdict(NamedTuple):
    """What became of a mutant: ``killed``, or what is wrong with it or with the tests."""

    word: str
    detail: str
    seconds: float


def copy(folder: Path) -> None:
    """Copy the package and its tests."""
    for name in ("nbjobs", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)


def apply(mutant: Mutant, folder: Path) -> bool:
    """Replace the text; False where it is not there exactly once."""
    path = folder / "nbjobs" / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        return False
    path.write_text(text.replace(mutant.old, mutant.new))
    return True


def run(folder: Path, tests: tuple[str, ...], *, limit: float, **variables: str) -> tuple[int | None, str]:
    """Run tests in a copy, up to the first that fails; return pytest's code (None: not in time) and its output."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--timeout=90", *tests]
    with (folder / "output").open("w+") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait(10)
            code = None
        output.seek(0)
        return code, output.read()


def judge(mutant: Mutant) -> Verdict:
    """Make the mutant and see whether its tests notice."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nbjobs-mutant-") as name:
        folder = Path(name)
        copy(folder)
        if not apply(mutant, folder):
            return Verdict("OUT OF DATE", f"its text is not in {mutant.file} once: write it anew", 0)
        code, output = run(folder, mutant.tests, limit=LIMIT, FAULT_PATIENCE=PATIENCE)
    took = time.monotonic() - began
    failed = [line.partition(" - ")[0].rpartition("::")[2] for line in output.splitlines() if _tells_failure(line)]
    if code == 1 and failed:
        return Verdict("killed", f"by {failed[0]}", took)
    if code is None:
        return Verdict("killed", f"by time: its tests were not done within {LIMIT} s", took)
    if code == 0:
        return Verdict("SURVIVED", f"{', '.join(mutant.tests)} passed all the same", took)
    return Verdict("NOT TESTED", f"pytest ended with {code}: {output[-2000:]}", took)


def _tells_failure(line: str) -> bool:
    return line.startswith(("FAILED ", "ERROR "))


def check_baseline(tests: tuple[str, ...]) -> Verdict:
    """Run tests in a copy that nothing was done to."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nbjobs-baseline-") as name:
        folder = Path(name)
        copy(folder)
        code, output = run(folder, tests, limit=4 * LIMIT)
    word = "passes" if code == 0 else "FAILS"
    return Verdict(word, output[-3000:] if code else f"{len(tests)} tests", time.monotonic() - began)


def main(words: list[str]) -> int:
    """Judge the mutants whose names hold one of the words; return 0 where all are killed."""
    began = time.monotonic()
    mutants = [one for one in MUTANTS if not words or any(word in one.name for word in words)]
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        halves = [pool.submit(check_baseline, tuple(half)) for half in (tests[::2], tests[1::2]) if half]
        judged = [(mutant, pool.submit(judge, mutant)) for mutant in mutants]
        wrong = 0
        for name, future in [("no mutant", half) for half in halves] + [(one.name, done) for one, done in judged]:
            verdict = future.result()
            wrong += verdict.word not in ("killed", "passes")
            print(f"{verdict.word:11} {name} ({verdict.seconds:.0f} s): {verdict.detail}", flush=True)
    took = time.monotonic() - began
    print(f"mutants: {len(mutants)} made, {wrong} results are wrong, {took:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
