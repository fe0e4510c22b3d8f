"""The command line: arguments in, tables and progress out. No algorithms, and no torch or pydantic at start-up."""
