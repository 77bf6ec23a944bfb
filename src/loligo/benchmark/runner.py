"""Run methods x data sets x seeds, each cell in a process of its own; what is finished is never run again."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from loligo.benchmark import labels, work
from loligo.benchmark.cells import VERSION, Cell, Plan, seen_in_scoring, seen_in_training, select
from loligo.benchmark.request import Job, Request, finished
from loligo.files import sweep, write_json
from loligo.progress import span
from loligo.runs.run import Run
from loligo.training.cost import commit

DIED = (
    "its process ended abruptly, perhaps killed for want of memory (its log.txt may say more); "
    "a script that runs a benchmark does so under if __name__ == '__main__'"
)


def run(jobs: list[Job], request: Request, tell: Callable[[str], None]) -> None:
    """Run those of a request's cells that are not finished. ``tell`` gets the progress.

    A cell that fails leaves its reason in failed.json and is tried again by the next call; others go on.
    """
    left: list[Job] = []
    for job in jobs:
        if job.plan and finished(job.plan, "corruptions" in request.robustness):
            labels.remove_maps(job.plan)  # a kill may have left some
        elif job.plan:
            left.append(job)
    workers = max(1, min(request.workers or _cores(), len(left)))
    tell(f"{len(jobs)} cells, {len(jobs) - len(left)} finished or impossible, {workers} at once on one thread each")
    started, known, context = time.monotonic(), _known_seconds(jobs), _context()
    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(_run, job, request, context): job for job in left}
        try:
            for count, future in enumerate(as_completed(futures), 1):
                job, (said, seconds) = futures[future], future.result()
                known[job.cell.dataset, job.cell.method] = seconds
                waiting = [futures[f].cell for f in futures if not f.done()]
                eta = f"; about {span(_estimate(waiting, known, workers))} left" if waiting else ""
                tell(f"[{count}/{len(left)}] {job.cell.name}: {said}, {span(seconds)}{eta}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.kill()
            raise
    tell(f"ran for {span(time.monotonic() - started)}")


def _context() -> Any:
    """Return how a cell's process begins: without the memory of this one, its imports made once where that can be."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["loligo.benchmark.work"])
    return context


def _run(job: Job, request: Request, context: Any) -> tuple[str, float]:
    """Bring a cell to its end; return what came of it, and the seconds."""
    assert job.plan is not None
    begun, plan = time.monotonic(), job.plan
    plan.folder.mkdir(parents=True, exist_ok=True)
    sweep(plan.folder, "**/.*", 0.0)
    failed = plan.folder / "failed.json"
    failed.unlink(missing_ok=True)
    try:
        reason = _worked(job, plan, request, context)
        said = reason or _measured(job, plan, request, begun)
    except (ValueError, OSError) as error:
        reason = f"evaluate: {error}"
    if reason:
        write_json({"reason": reason}, failed)
        said = f"failed: {reason}"
    return said, time.monotonic() - begun


def _worked(job: Job, plan: Plan, request: Request, context: Any) -> str:
    """Train and score a cell in a process that is given no label; return why it failed, or nothing.

    Each cell has an executor of its own: one whose worker dies takes no other work.
    """
    rows = select(plan.cell, job.data.rows)
    wanted = work.Wanted(
        epochs=rows.loc[rows["split"] == "validation", "label"].dropna().nunique() == 2,
        corruptions="corruptions" in request.robustness and not plan.cell.curve,
        maps=not plan.cell.curve and bool((rows.loc[rows["split"] == "test", "mask"] != "").any()),
    )
    try:
        with ProcessPoolExecutor(1, context, work.begin) as pool:
            return pool.submit(work.do, plan, seen_in_training(rows), seen_in_scoring(rows), wanted).result()
    except BrokenProcessPool:
        return DIED


def _measured(job: Job, plan: Plan, request: Request, begun: float) -> str:
    """Join a cell's labels, measure its scores and finish it; return its AUC."""
    finish = plan.folder / "cell.json"
    before = json.loads(finish.read_text(encoding="utf-8")) if finish.exists() else {}  # then corruptions are new
    found = plan.scoring.read_metrics() if before else None
    found = found or labels.join(job, plan)
    epochs = Run.load(plan.run).train.epochs if plan.budget else None
    record = {
        "name": plan.cell.name,
        "seconds": round(before.get("seconds", 0) + time.monotonic() - begun, 1),
        "command": request.command(plan.cell, job.data.given, epochs),
        "commit": before.get("commit", commit()),
        "data_hash": plan.data_hash,
        "version": VERSION,
    }
    write_json(record, finish, indent=2)  # where it stands, the cell is finished
    labels.remove_maps(plan)
    return f"AUC {found['clean']['auc']:.3f}"


def _known_seconds(jobs: list[Job]) -> dict[tuple[str, str], float]:
    """Return the seconds of finished cells by data set and method."""
    paths = {(j.cell.dataset, j.cell.method): j.plan.folder / "cell.json" for j in jobs if j.plan}
    return {key: float(json.loads(p.read_text(encoding="utf-8"))["seconds"]) for key, p in paths.items() if p.exists()}


def _estimate(waiting: list[Cell], known: dict[tuple[str, str], float], workers: int) -> float:
    """Estimate the seconds that are left: by cells of the same method and data set, else by the mean of all known."""
    mean = sum(known.values()) / len(known)
    return sum(known.get((cell.dataset, cell.method), mean) for cell in waiting) / min(workers, len(waiting))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
