"""Decoding: one file a method (`regular`, `pair`), over shared row caches and sampling.

Contract: a method has a state for the running rows, ``prefill`` that starts rows, ``step`` that advances all of them by
one slot, and states that rows can join and leave. Nothing here knows of requests, text or budgets.
"""
