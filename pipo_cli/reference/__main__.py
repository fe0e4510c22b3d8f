"""`python -m pipo_cli.reference` writes the generated pages of docs/."""

import sys

from pipo_cli.reference.pages import DOCS, PAGES, page
from pipo_cli.session import say
from pipo_core.errors import MissingInputError
from pipo_core.files import write_atomic

try:
    for name in PAGES:
        text = page(name)
        changed = (DOCS / name).read_text(encoding="utf-8") != text
        if changed:
            write_atomic(DOCS / name, text)
        say(f"docs/{name}: {'written' if changed else 'unchanged'}")
except MissingInputError as error:
    sys.exit(f"{error.message}\n  try: {error.hint}")
