"""A run in a SQL database; tables and statements work on SQLite, PostgreSQL and others."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    Double,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    and_,
    bindparam,
    create_engine,
    delete,
    insert,
    make_url,
    or_,
    select,
    update,
)
from sqlalchemy.exc import ArgumentError
from sqlalchemy.schema import CreateTable

from jemtrack.errors import InputError
from jemtrack.events.events import RunStart, Status
from jemtrack.shared.plain import as_text, flat

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


_BUSY_SECONDS = 60.0  # to wait for another run that writes into the same SQLite file

# Level, step and name of a value; None is for one that is not finite.
Values = Mapping[tuple[str, int, str], float | None]


class SqlStore:
    """Writes the rows of one run; each method is a transaction.

    Raises:
        InputError: if `url` is no database that SQLAlchemy knows and has a driver for.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        self._run_id = ""

    def start(self, event: RunStart) -> None:
        """Create the tables if needed and the row of the run; delete what will come again."""
        self._run_id = event.run_id
        with self._engine.begin() as connection:
            for table in metadata.sorted_tables:
                connection.execute(CreateTable(table, if_not_exists=True))
        with self._engine.begin() as connection:
            self._start_run(connection, event)
            self._void(connection, event.step, event.epoch)
            self._replace_parameters(connection, event)
            began = {"id": event.session_id, "run_id": event.run_id, "step": event.step}
            connection.execute(insert(session), {**began, "started": _now()})

    def write(self, values: Values) -> None:
        """Write `values`, and replace what is there."""
        if not values:
            return
        keys = [{"of": level, "at": step, "called": name} for level, step, name in values]
        same = and_(
            metric.c.run_id == self._run_id,
            metric.c.level == bindparam("of"),
            metric.c.step == bindparam("at"),
            metric.c.name == bindparam("called"),
        )
        rows = [
            {"run_id": self._run_id, "level": level, "step": step, "name": name, "value": value}
            for (level, step, name), value in values.items()
        ]
        with self._engine.begin() as connection:
            connection.execute(delete(metric).where(same), keys)
            connection.execute(insert(metric), rows)

    def void(self, step: int, epoch: int) -> None:
        """Delete the values of later steps and epochs, and those of the run."""
        with self._engine.begin() as connection:
            self._void(connection, step, epoch)

    def add_artifact(self, path: Path, kind: str) -> None:
        """Note a file of the run."""
        mine = and_(artifact.c.run_id == self._run_id, artifact.c.path == str(path))
        row = {"run_id": self._run_id, "path": str(path), "kind": kind, "saved": _now()}
        with self._engine.begin() as connection:
            connection.execute(delete(artifact).where(mine))
            connection.execute(insert(artifact), row)

    def end(self, status: Status) -> None:
        """Note how the run ended."""
        values = {"status": str(status), "ended": _now()}
        with self._engine.begin() as connection:
            connection.execute(update(run).where(run.c.id == self._run_id).values(values))

    def close(self) -> None:
        """Disconnect."""
        self._engine.dispose()

    def _start_run(self, connection: Connection, event: RunStart) -> None:
        state = {"name": event.name, "status": "running", "ended": None}
        mine = run.c.id == self._run_id
        if connection.execute(select(run.c.id).where(mine)).first():
            connection.execute(update(run).where(mine).values(state))
        else:
            connection.execute(insert(run), {"id": self._run_id, "started": _now(), **state})

    def _replace_parameters(self, connection: Connection, event: RunStart) -> None:
        connection.execute(delete(parameter).where(parameter.c.run_id == self._run_id))
        rows = [
            {"run_id": self._run_id, "name": name, "value": as_text(value)}
            for name, value in flat(event.parameters).items()
        ]
        if rows:
            connection.execute(insert(parameter), rows)

    def _void(self, connection: Connection, step: int, epoch: int) -> None:
        later = or_(
            and_(metric.c.level.in_(["batch", "measured"]), metric.c.step > step),
            and_(metric.c.level == "epoch", metric.c.step > epoch),
            metric.c.level == "run",
        )
        connection.execute(delete(metric).where(metric.c.run_id == self._run_id, later))


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        sqlite = parsed.get_backend_name() == "sqlite"
        engine = create_engine(parsed, connect_args={"timeout": _BUSY_SECONDS} if sqlite else {})
    except (ArgumentError, ImportError) as error:
        raise InputError(
            f"SqlDatabase.url must be SQLAlchemy's URL of a database whose driver is installed, "
            f"such as sqlite:///runs.db, got {url!r}: {error}"
        ) from error
    if sqlite and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    return engine


def _now() -> datetime:
    return datetime.now(UTC)
