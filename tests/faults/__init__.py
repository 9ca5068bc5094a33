"""The fault matrix: rows of what goes wrong, with real processes and a real Redis.

A row is a number of the matrix of faults that nbjobs is built against; tests carry it as a marker and in their name.
Each test breaks something on purpose, lets the run end, and has `checker` look at three witnesses: a *ledger* file to
which every item of a job appends itself, what Redis was asked and did (*recorder*), and what a follower saw
(*transcript*).

What must hold (the tests name these):

- I1 nothing is lost: each item is in the ledger, each numbered event can be read.
- I2 few repeats: after a crash at most the item in flight and those of the last 100 ms; none otherwise, and never a
  step that ended.
- I3 the events of a run are numbered 1..M, without hole or duplicate, in both streams.
- I4 fence, commit number and event number never fall; an end is an end.
- I5 each commit is written once, by who holds the run.
- I6 the run goes on in time. The settings here are short: lease 2.5 s, renew 0.4 s, sweep 0.5 s. The time after the
  death of a worker is lease + sweep + arq's poll (0.5 s) + the start of a child: 3.5 s and the machine's slowness here,
  22 s with the defaults. The time after a child's death or a SIGTERM depends on none of them: 2 s.
- I7 who follows the run sees n = 1..M in order, or looks at the run anew; what is seen last is the run as it ended.
"""
