"""Runs the job whose file is the only argument."""

import sys
from pathlib import Path

from pipo_core.train.worker.process import main

sys.exit(main(Path(sys.argv[1])))
