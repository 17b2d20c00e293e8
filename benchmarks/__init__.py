"""How fast it is: one file a question, each measured beside what it is compared with, in one run.

`python -m benchmarks.NAME` prints the answer. Turns are interleaved, so that a busy machine slows
both sides, and the ratio is taken within each turn.
"""
