"""Evaluation: benchmarks, their scores with intervals, and tables of them."""
