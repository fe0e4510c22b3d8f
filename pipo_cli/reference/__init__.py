"""The pages of docs/ that are generated from the code: every command, and every key of every recipe.

`python -m pipo_cli.reference` (`make docs`) writes them; a test compares them with the code.
"""
