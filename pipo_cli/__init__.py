"""The terminal: arguments in, tables and progress out. No algorithm, and no torch or pydantic at start-up."""
