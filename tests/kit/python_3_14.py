"""`config-manager` on a Python that is, for trio-asyncio, what 3.14 is: one, or an earlier one from which is taken
what 3.14 took away, and strict where that is.
"""

from __future__ import annotations

import sys

_LIKE_3_14 = """
import asyncio, asyncio.events as events, asyncio.tasks as tasks, sys, warnings
from _asyncio import _get_running_loop

# gone
for name in ("AbstractChildWatcher", "get_child_watcher", "set_child_watcher"):
    delattr(asyncio, name)
# renamed
events._BaseDefaultEventLoopPolicy = events.BaseDefaultEventLoopPolicy
del events.BaseDefaultEventLoopPolicy

# deprecated: asked for by a name of the package
def deprecated(name, does):
    def warns(*given):
        warnings.warn(f"{name} is deprecated", DeprecationWarning, stacklevel=2)
        return does(*given)
    return warns

class Package(type(asyncio)):
    def __getattr__(self, name):
        if name in ("DefaultEventLoopPolicy", "AbstractEventLoopPolicy"):
            warnings.warn(f"asyncio.{name} is deprecated", DeprecationWarning, stacklevel=2)
            return vars(self)["_" + name]
        raise AttributeError(f"module 'asyncio' has no attribute {name!r}")

for name in ("DefaultEventLoopPolicy", "AbstractEventLoopPolicy"):
    vars(asyncio)["_" + name] = vars(asyncio).pop(name)
asyncio.__class__ = Package
for name in ("get_event_loop_policy", "set_event_loop_policy"):
    warns = deprecated(name, getattr(events, name))
    setattr(events, name, warns)
    setattr(asyncio, name, warns)

# a task enters only the loop that C knows as the running one; 3.14 says so in C
enter = tasks._enter_task
def enter_the_running_loop(loop, task):
    if _get_running_loop() is not loop:
        raise RuntimeError(f"loop {loop!r} is not the running loop")
    enter(loop, task)
tasks._enter_task = enter_the_running_loop
tasks.Task = asyncio.Task = tasks._PyTask
"""
_MAIN = """
sys.argv[0] = "config-manager"
from config_manager.api.main import main
main()
"""
_BEGIN = _LIKE_3_14 if sys.version_info < (3, 14) else "import sys"
COMMAND = (sys.executable, "-W", "error", "-c", f"{_BEGIN}\n{_MAIN}")
PLAIN_IMPORT = (sys.executable, "-c", f"{_BEGIN}\nimport trio_asyncio")
