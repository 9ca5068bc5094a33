"""Golden histories: runs of each release, half done, which every later release must be able to go on with.

A folder for each release holds one file for each history: the run's hash and streams as Redis had them, and what is
left to do. ``tests/test_golden.py`` puts them into a Redis and lets a worker go on. ``python -m tests.golden.record``
records those of the release at hand; once it is out they are never recorded anew, nor are the jobs changed.

Code by value is left out: its run waits for a worker of the same minor version of Python, by design.
"""
