"""Stages in order: which are finished, resumed or run again, and the report at the end."""
