"""Evaluation: benchmarks, what their answers say about accuracy, and the tables of it."""
