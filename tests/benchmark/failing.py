"""Benchmark a method that raises and one whose process is killed beside an honest one: python failing.py m.csv OUT."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from loligo import methods
from loligo.benchmark import Request, run
from loligo.methods.contract import ALONE, Reduce
from loligo.methods.gaussian import Gaussian


class Broken(Gaussian):
    """Fail in training."""

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Fail."""
        raise RuntimeError("the plan\nwas bad")


class Killed(Gaussian):
    """Lose its process, as where memory runs out."""

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Die."""
        os.kill(os.getpid(), signal.SIGKILL)


for _name, _kind in (("broken", Broken), ("killed", Killed)):
    methods.METHODS[_name] = methods.Entry(_kind.__name__, "fails")
    sys.modules[f"loligo.methods.{_name}"] = sys.modules[__name__]

if __name__ == "__main__":
    given, out = f"one={sys.argv[1]}", Path(sys.argv[2])
    found = run(Request(("killed", "broken", "gaussian"), (given,), out, preset="tiny", workers=2), print)
    print(found.failed, "of", found.cells)
