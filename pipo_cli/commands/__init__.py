"""One file a command group. What costs time to import is imported inside the commands."""
