"""The tables of the queue, and SQLite made durable."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sql

STATES = ("received", "waiting", "working", "sending", "done", "dead")
"""Of a study, in order."""
META = sql.MetaData()


def _number(name: str, default: str = "0") -> sql.Column[int]:
    return sql.Column(name, sql.Integer, nullable=False, server_default=default)


def _time(name: str) -> sql.Column[float]:
    """Return a column of seconds since 1970."""
    return sql.Column(name, sql.Double, nullable=False, server_default="0")


def _text(name: str) -> sql.Column[str]:
    return sql.Column(name, sql.Text, nullable=False, server_default="")


STUDIES = sql.Table(
    "studies",
    META,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("key", sql.String(64), unique=True, nullable=False),
    sql.Column("state", sql.String(16), nullable=False),
    _time("due"),  # before which nothing happens to it
    _number("version", "1"),
    _number("attempts"),  # failures of its own
    _number("put_off"),  # failures of any cause
    _text("worker"),
    _time("lease"),  # when it ends
    _text("results"),  # folder that holds them
    _text("commitment"),  # Transaction UID that was asked for
    _text("reason"),
    _time("arrived"),  # the last instance
    _time("finished"),
    sql.Column("kept", sql.Boolean, nullable=False, server_default=sql.true()),
    sql.Index("by_state", "state", "due"),
    sql.Index("by_end", "kept", "state", "finished"),
)
INSTANCES = sql.Table(
    "instances",
    META,
    sql.Column("study", sql.Integer, sql.ForeignKey("studies.id"), primary_key=True),
    sql.Column("key", sql.String(64), primary_key=True),
    sql.Column("digest", sql.String(64), nullable=False),
)
MEASURES = sql.Table(
    "measures",
    META,
    sql.Column("number", sql.Integer, primary_key=True, autoincrement=False),  # from 1 on, without gaps
    sql.Column("study", sql.Integer, sql.ForeignKey("studies.id"), unique=True, nullable=False),
    sql.Column("model", sql.String(64), nullable=False),
    sql.Column("measured", sql.Text, nullable=False),  # JSON of `monitoring.MEASURES`
)
FACTS = sql.Table(
    "facts", META, sql.Column("name", sql.String(128), primary_key=True), sql.Column("value", sql.Text, nullable=False)
)


def opened(url: str) -> sql.Engine:
    """Open the database at a URL, and make its tables where they are missing."""
    engine = sql.create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    if engine.dialect.name == "sqlite":
        sql.event.listen(engine, "connect", _durable)
        sql.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    META.create_all(engine)
    return engine


def _durable(connection: Any, record: object) -> None:
    """Make SQLite wait for others, and force every commit to the disk."""
    connection.isolation_level = None  # SQLAlchemy's begin is what begins
    for pragma in ("busy_timeout=60000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
