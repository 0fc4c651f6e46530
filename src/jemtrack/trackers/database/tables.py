"""The tables of the SQL tracker; nothing in them is one database's own."""

from sqlalchemy import Column, DateTime, Double, ForeignKey, Integer, MetaData, String, Table, Text

metadata = MetaData()

run = Table(
    "run",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("status", String(16), nullable=False),  # running, or how it ended
    Column("started", DateTime(timezone=True), nullable=False),
    Column("ended", DateTime(timezone=True)),
)


def _of_run(*, key: bool = False) -> Column[str]:
    return Column("run_id", String(64), ForeignKey(run.c.id), primary_key=key, nullable=False)


session = Table(
    "session",
    metadata,
    Column("id", String(64), primary_key=True),
    _of_run(key=True),
    Column("started", DateTime(timezone=True), nullable=False),
    Column("step", Integer, nullable=False),  # it began after this one
)

parameter = Table(
    "parameter",
    metadata,
    _of_run(key=True),
    Column("name", String(255), primary_key=True),
    Column("value", Text, nullable=False),
)

metric = Table(
    "metric",
    metadata,
    _of_run(key=True),
    Column("level", String(16), primary_key=True),  # batch, measured, epoch or run
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("name", String(255), primary_key=True),
    Column("value", Double),  # NULL: not finite
)

artifact = Table(
    "artifact",
    metadata,
    _of_run(key=True),
    Column("path", String(1024), primary_key=True),
    Column("kind", String(64), nullable=False),
    Column("saved", DateTime(timezone=True), nullable=False),
)
