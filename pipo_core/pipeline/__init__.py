"""Stages in order: what is done, what goes on, what must run again, and the report at the end."""
