"""Run a benchmark that is killed again and again, and one that is not.

python killed.py m.csv OUT
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from loligo.benchmark import Request, run, runner

runner.START = "fork"  # nothing is read of labels here: the methods are honest, and a fork begins at once


def forked(request: Request) -> int:
    if not (pid := os.fork()):
        run(request)
        os._exit(0)
    return pid


if __name__ == "__main__":
    given, out, kills, chance = (f"one={sys.argv[1]}",), Path(sys.argv[2]), 0, random.Random(0)
    asked = {"seeds": 2, "preset": "tiny", "settings": (("train.epochs", 4), ("train.batch_size", 8))}
    whole, torn = (Request(("ae", "gaussian"), given, out / name, **asked) for name in ("whole", "torn"))
    start = time.monotonic()
    os.waitpid(forked(whole), 0)
    usual = time.monotonic() - start
    for _ in range(10):
        pid = forked(torn)
        time.sleep(chance.uniform(0.02, 0.35) * usual)
        os.kill(pid, signal.SIGKILL)
        kills += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        time.sleep(0.3)
    os.waitpid(forked(torn), 0)
    print("kills", kills)
