"""Claims as tests on tracked results: each reproduced, contradicted, undecided or not run.

`claim` says what a claims file may hold, `file` reads it, `place` finds what it names among the
results, `compare` compares two arms, `formula` evaluates what needs no training, `judge` gives the
verdicts and `tell` writes them down.
"""
