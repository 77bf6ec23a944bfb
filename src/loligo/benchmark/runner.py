"""Run methods x data sets x seeds, each cell in processes of its own; what is finished is never run again."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from multiprocessing.connection import wait
from typing import Any

from loligo.benchmark import hidden, work
from loligo.benchmark.cells import Cell, Plan, select
from loligo.benchmark.request import Job, Request, finished, reason
from loligo.evaluation import results
from loligo.files import write_json
from loligo.runs.run import Run

START = "forkserver"
"""How a stage's process begins: without the memory of this one, where the labels are."""

_ASKING = threading.Lock()


def run(jobs: list[Job], request: Request, tell: Callable[[str], None] = print) -> None:
    """Run those of a request's cells that are not finished. ``tell`` gets the progress.

    A cell that fails leaves its reason in failed.json and is tried again by the next call; others go on.
    """
    left: list[Job] = []
    for job in jobs:
        if job.plan and finished(job.plan, "corruptions" in request.robustness):
            shutil.rmtree(job.plan.folder / "raw" / "maps", ignore_errors=True)  # a kill may have left some
        elif job.plan:
            left.append(job)
    workers = max(1, min(request.workers or _cores(), len(left)))
    tell(f"{len(jobs)} cells, {len(jobs) - len(left)} finished or impossible, {workers} at once on one thread each")
    started, known = time.monotonic(), _known_seconds(jobs)
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    context: Any = multiprocessing.get_context(START)
    if START == "forkserver":
        context.set_forkserver_preload(["loligo.benchmark.work", "lightning_fabric"])  # once, not in each cell
    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(_run, job, request, context): job for job in left}
        try:
            for count, future in enumerate(as_completed(futures), 1):
                job, (said, seconds) = futures[future], future.result()
                known[job.cell.dataset, job.cell.method] = seconds
                waiting = [futures[f].cell for f in futures if not f.done()]
                eta = f"; about {_minutes(_estimate(waiting, known, workers))} left" if waiting else ""
                tell(f"[{count}/{len(left)}] {job.cell.name}: {said}, {_minutes(seconds)}{eta}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.kill()
            raise
    tell(f"ran for {_minutes(time.monotonic() - started)}")


_DIED = {-9: "killed, perhaps for want of memory", -11: "a segmentation fault"}
_BEGAN = "a script that runs a benchmark does so under if __name__ == '__main__'; else see log.txt of the cell"


def _run(job: Job, request: Request, context: Any) -> tuple[str, float]:
    """Bring a cell to its end; return what came of it, and the seconds."""
    assert job.plan is not None
    begun = time.monotonic()
    try:
        said = _bring(job, job.plan, request, context, begun)
    except (ValueError, OSError) as error:
        write_json({"stage": "evaluate", "reason": str(error)}, job.plan.folder / "failed.json")
        said = f"failed: {error}"
    return said, time.monotonic() - begun


def _bring(job: Job, made: Plan, request: Request, context: Any, begun: float) -> str:
    """Train and score a cell, then show its labels and evaluate it; return what came of it."""
    made.folder.mkdir(parents=True, exist_ok=True)
    (made.folder / "failed.json").unlink(missing_ok=True)
    hidden.conceal(made)
    rows = select(made.cell, job.data.rows)
    labelled = rows.loc[rows["split"] == "validation", "label"].dropna().nunique() == 2
    corruptions = "corruptions" in request.robustness and not made.cell.curve
    masks = not made.cell.curve and bool((rows.loc[rows["split"] == "test", "mask"] != "").any())
    closed = (str(request.out.absolute()), *job.data.closed)
    stages = ((work.train, hidden.for_training, (labelled,)), (work.score, hidden.for_scoring, (corruptions, masks)))
    for function, see, options in stages:
        given = (function, made, see(job, made), closed, *options)
        ended = exitcode(context, work.stage, given)
        if ended and not (made.folder / "failed.json").exists():
            died = f"its process ended with {ended}: {_DIED.get(ended, _BEGAN)}"
            write_json({"stage": function.__name__, "reason": died}, made.folder / "failed.json")
        if ended:
            return f"failed: {reason(made)}"
    found, finish = hidden.reveal(job, made), made.folder / "cell.json"
    before = json.loads(finish.read_text(encoding="utf-8")) if finish.exists() else {}  # then corruptions are new
    epochs = Run.load(made.folder / "run").train.epochs if made.budget else None
    record = {
        "name": made.cell.name,
        "seconds": round(before.get("seconds", 0) + time.monotonic() - begun, 1),
        "command": request.command(made.cell, job.data.given, epochs),
        "commit": before.get("commit", results.commit()),
        "data_hash": made.data_hash,
        "code": made.code,
        "pixel": before.get("pixel") or found.get("pixel", {}),
    }
    shutil.rmtree(made.folder / "images", ignore_errors=True)
    write_json(record, finish, indent=2)  # where it stands, the cell is finished
    shutil.rmtree(made.folder / "raw" / "maps", ignore_errors=True)  # large, and measured
    return f"AUC {found['clean']['auc']:.3f}"


def exitcode(context: Any, function: Callable[..., None], given: tuple[Any, ...]) -> int:
    """Call ``function`` in a process of its own; return the code with which that ended.

    Starting a process also asks after those of other threads, and a forkserver tells each code once: who asks beside
    another reads nothing, which Python makes 255. So one thread asks at a time.
    """
    process = context.Process(target=function, args=given, daemon=True)
    with _ASKING:
        process.start()
    wait([process.sentinel])
    with _ASKING:
        process.join()
    return int(process.exitcode)


def _known_seconds(jobs: list[Job]) -> dict[tuple[str, str], float]:
    """Return the seconds of finished cells by data set and method."""
    paths = {(j.cell.dataset, j.cell.method): j.plan.folder / "cell.json" for j in jobs if j.plan}
    return {key: float(json.loads(p.read_text(encoding="utf-8"))["seconds"]) for key, p in paths.items() if p.exists()}


def _estimate(waiting: list[Cell], known: dict[tuple[str, str], float], workers: int) -> float:
    """Estimate the seconds that are left: by cells of the same method and data set, else by the mean of all known."""
    mean = sum(known.values()) / len(known)
    return sum(known.get((cell.dataset, cell.method), mean) for cell in waiting) / min(workers, len(waiting))


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{math.ceil(seconds / 60)} min"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
