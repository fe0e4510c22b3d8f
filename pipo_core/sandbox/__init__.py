"""Runs a Python program that nobody has read, cut off from files, network and other processes.

`Sandbox` is the whole use of it; `check_sandbox` says whether this machine can isolate at all. In words:
`docs/sandbox.md`.
"""

from pipo_core.sandbox.box import Sandbox
from pipo_core.sandbox.isolation import check_sandbox
from pipo_core.sandbox.limits import Limits, Outcome, Reason
from pipo_core.sandbox.running import SandboxFailure

__all__ = ["Limits", "Outcome", "Reason", "Sandbox", "SandboxFailure", "check_sandbox"]
