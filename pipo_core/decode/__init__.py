"""Decoding: one file per method (`regular`, `mtp`, `eagle`, `pair`), over shared sequence caches and sampling.

A method's ``prefill`` starts sequences and its ``step`` advances all running ones; sequences can join and leave its
state. Nothing here knows of requests, text or budgets.
"""
