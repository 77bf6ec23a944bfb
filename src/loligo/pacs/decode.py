"""Decode the images of a study in a child process with bounds of memory and time.

A file that makes a decoder crash, hang or take all memory ends the child alone, which is started anew. What it decodes
lies in a folder as entries of the image cache; of itself it returns names and reasons in JSON.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import signal
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from loligo import io
from loligo.data import cache, manifest
from loligo.data.dataset import AllRejected, no_rejections
from loligo.data.decode import reason
from loligo.data.preprocessing import Preprocessing

_ANSWER = 1 << 24  # bytes of an answer, at most
_START = 120.0  # seconds that a child may take to begin, on a slow machine


class Hostile(ValueError):
    """The files of a study ended the decoder."""


class Found(NamedTuple):
    """What of a study can be scored."""

    paths: tuple[str, ...]
    """An image each, or one file of each series."""
    reasons: tuple[str, ...]
    """Why the others cannot."""


class Decoder:
    """A child that decodes, kept alive between studies."""

    def __init__(self, preprocessing: Preprocessing, seconds: float, memory: int) -> None:
        self.preprocessing, self.seconds, self.memory = preprocessing, seconds, memory
        self._child: Any = None
        self._pipe: Connection | None = None

    def __call__(self, paths: Sequence[Path], folder: Path) -> Found:
        """Decode files into the cache in ``folder``.

        Raises `Hostile` where the child ended, or took longer than ``seconds``; OSError where the disk is full.
        """
        pipe = self._started()
        try:
            pipe.send_bytes(json.dumps([*map(str, paths), str(folder)]).encode())
            if not pipe.poll(self.seconds):
                raise Hostile(f"its decoding took longer than {self.seconds:g} s")
            answer = json.loads(pipe.recv_bytes(_ANSWER))
        except (EOFError, ConnectionError):
            self._child.join(5)
            code = self._child.exitcode
            self.close()
            raise Hostile(f"its decoding ended the decoder (exit status {code}), as a damaged file may do") from None
        except (OSError, ValueError):
            self.close()
            raise
        if "full" in answer:
            raise OSError(f"what is decoded cannot be written: {answer['full']}")
        return Found(tuple(answer["paths"]), tuple(answer["reasons"]))

    def close(self) -> None:
        """End the child."""
        if self._pipe is not None:
            self._pipe.close()  # which ends it, unless it hangs
        if self._child is not None:
            self._child.join(1)
            self._child.kill()
            self._child.join()
            self._child.close()
        self._child = self._pipe = None

    def _started(self) -> Connection:
        if self._pipe is not None and self._child.is_alive():
            return self._pipe
        self.close()
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        arguments = (other, self.preprocessing, self.memory, self.seconds)
        self._child = context.Process(target=_serve, args=arguments, daemon=True)
        self._child.start()
        other.close()
        if not self._pipe.poll(_START):
            self.close()
            raise OSError("the decoder does not start")
        self._pipe.recv_bytes(_ANSWER)
        return self._pipe


def _serve(pipe: Connection, preprocessing: Preprocessing, memory: int, seconds: float) -> None:
    """Answer until the other end is closed, which a worker's death does, too."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to a whole group of processes; the worker decides
        signal.signal(number, signal.SIG_IGN)
    logging.disable(logging.CRITICAL)
    _bound_memory(memory << 20)
    pipe.send_bytes(b"{}")
    with suppress(EOFError, ConnectionError):
        while True:
            *paths, folder = json.loads(pipe.recv_bytes())
            _bound_time(seconds)
            pipe.send_bytes(json.dumps(_decoded([*map(Path, paths)], Path(folder), preprocessing)).encode())


def _decoded(paths: list[Path], folder: Path, preprocessing: Preprocessing) -> dict[str, Any]:
    """Decode what the run takes of some files."""
    try:
        kept, rejected = manifest.sift(paths)
        wanted = "volume" if preprocessing.spacing else "image"
        other = [str(path) for path in kept if io.kind(path) != wanted]
        rows = pd.DataFrame({"path": [str(path) for path in kept if str(path) not in other]})
        reasons = [*rejected["reason"], *(f"is no {wanted}, of which the run is" for _ in other)]
        data = cache.load(rows, preprocessing, folder=folder, progress=False) if len(rows) else None
        reasons += [*(data.rejected if data else no_rejections())["reason"]]
        return {"paths": [*data.rows["path"]] if data else [], "reasons": reasons}
    except AllRejected as error:
        return {"paths": [], "reasons": [*error.rejected["reason"]]}
    except ValueError as error:
        return {"paths": [], "reasons": [reason(error, str(paths[0]))]}
    except OSError as error:
        return {"full": error.__cause__.strerror if isinstance(error.__cause__, OSError) else type(error).__name__}


def _bound_memory(size: int) -> None:
    """Let this process take ``size`` bytes more than it has, where the system can do that."""
    with suppress(ImportError, OSError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + size,) * 2)


def _bound_time(seconds: float) -> None:
    """End this process when it computes for longer, even where its worker is gone."""
    with suppress(ImportError, OSError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime + 2 * seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
