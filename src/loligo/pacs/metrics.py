"""What Prometheus reads: studies by state, and how long they took. All of it comes from the queue, so that it lasts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from loligo.pacs.alarm import Alarm
from loligo.pacs.config import library
from loligo.pacs.store import Store

BOUNDS = (1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0)
"""Of the histogram, in seconds from the last instance of a study until its results are in the PACS."""


class Studies:
    """Collects the numbers when they are asked for."""

    def __init__(self, store: Store, alarm: Alarm) -> None:
        self.store, self.alarm = store, alarm

    def collect(self) -> Iterator[Any]:
        """Yield each metric."""
        core = library("prometheus_client.core")
        counts, not_scored = self.store.counts(), self.store.not_scored()
        by_state = core.GaugeMetricFamily("loligo_studies", "studies in the queue by state", labels=["state"])
        for state, count in counts.items():
            by_state.add_metric([state], count)
        yield by_state
        yield core.GaugeMetricFamily("loligo_studies_scored", "studies done with results", counts["done"] - not_scored)
        yield core.GaugeMetricFamily("loligo_studies_not_scored", "studies done without results", not_scored)
        within, total = self.store.seconds(BOUNDS)
        buckets = [
            *((f"{bound:g}", count) for bound, count in zip(BOUNDS, within, strict=True)),
            ("+Inf", counts["done"]),
        ]
        yield core.HistogramMetricFamily(
            "loligo_study_seconds", "from the last instance until the end", buckets=buckets, sum_value=total
        )
        yield from self._drift(core)

    def _drift(self, core: Any) -> Iterator[Any]:
        """Yield the metrics of the drift alarm."""
        drift = self.alarm.update().drift
        studies, gauge = self.alarm.studies, core.GaugeMetricFamily
        yield gauge("loligo_drift_studies", "studies that the drift alarm has seen", studies)
        raised = gauge("loligo_drift_alarm", "whether a measure of the studies has changed", labels=["measure"])
        capital = gauge("loligo_drift_log_capital", "evidence of a change, natural logarithm", labels=["measure"])
        for name, stream in drift.streams.items() if drift else ():
            raised.add_metric([name], name in drift.alarms if drift else 0)
            capital.add_metric([name], stream.wealth)
        yield from (raised, capital)


def start(store: Store, alarm: Alarm, port: int) -> Any:
    """Serve /metrics on 127.0.0.1; return the server, which has ``shutdown``. OSError where the port is taken."""
    prometheus = library("prometheus_client")
    registry = prometheus.CollectorRegistry()
    registry.register(Studies(store, alarm))
    server, _ = prometheus.start_http_server(port, addr="127.0.0.1", registry=registry)
    return server
