"""Chaos: hours of bad weather in minutes, on real processes, and a count of what it cost.

``make chaos`` runs it (``python -m tests.chaos``): on the embedded default, and on a Redis of one's own with workers
behind proxies. Runs of every kind are started all the time; meanwhile processes are killed, stopped and deployed
anew, connections cut and parted, answers lost, Redis killed. In rounds of some seconds the weather calms down, every
run must have ended, and the invariants of `tests.faults` are checked for each. What must be zero is: lost, finished
steps run twice, holes, left-over processes, and whatever else broke an invariant. Each such finding names its run,
and the seed with which to do the same again.
"""
