"""Recipes: one file for each strict schema, YAML with positions, the catalog of short names, the table of methods.

Nothing here imports torch. `catalog` and `locate` import no pydantic either, so the command line starts fast.
"""
