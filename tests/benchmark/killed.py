"""Run a benchmark that is killed again and again, and one that is not.

python killed.py m.csv OUT
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from loligo.benchmark import Request, run, runner, work

START, staged = runner.START, work.stage
runner.START = "fork"  # a fork begins at once, and these methods are honest


def stage(*given: Any) -> None:
    """Do a stage and end; Python cannot shut down threads in a fork that a thread began."""
    staged(*given)
    os._exit(0)


work.stage = stage


def forked(request: Request, *, shipped: bool = False) -> int:
    """Begin a run in a process of its own; its cells begin as users' do where ``shipped``."""
    if not (pid := os.fork()):
        os.setpgid(0, 0)
        if shipped:
            runner.START, work.stage = START, staged
        run(request)
        os._exit(0)
    return pid


def bury(group: int) -> None:
    """Wait for a killed run's stages; two that were forked at once hold each other's pipe and wait for each other."""
    with contextlib.suppress(ProcessLookupError):
        for _ in range(30):
            os.killpg(group, 0)
            time.sleep(0.1)
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    given, out, kills, chance = (f"one={sys.argv[1]}",), Path(sys.argv[2]), 0, random.Random(0)
    asked = {"seeds": 2, "preset": "tiny", "settings": (("train.epochs", 4), ("train.batch_size", 8))}
    whole, torn = (Request(("ae", "gaussian"), given, out / name, **asked) for name in ("whole", "torn"))
    start = time.monotonic()
    os.waitpid(forked(whole), 0)
    usual = time.monotonic() - start
    for i in range(10):  # nine early ones: in sum their seconds are less than a run
        pid = forked(torn, shipped=i == 9)
        time.sleep(4 + usual * chance.random() if i == 9 else chance.uniform(0.02, 0.12) * usual)
        os.kill(pid, signal.SIGKILL)
        kills += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        bury(pid)
    os.waitpid(forked(torn), 0)
    print("kills", kills)
