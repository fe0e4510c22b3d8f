"""What a user may ask for: one strict schema a file, YAML with positions, the catalog of short names.

Imports no torch. `catalog` and `locate` import no pydantic either, so that the command line starts fast.
"""
