"""Brings a database to the current schema, once, also when several processes start together."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from infra.database.engine import Database
from infra.errors import InvalidConfiguration

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK = 0x7261_6773  # "rags": held while migrating, so that one process does it and the others wait


def upgrade(database: Database) -> None:
    """Apply the migrations that are missing, all in one transaction.

    Raises:
        InvalidConfiguration: the database was written by a newer release.
    """
    with database.read() as connection:
        if _revision(connection) == head():
            return
    # Every command comes by here, and hardly any of them has to load this.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with database.write(lock=LOCK) as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise InvalidConfiguration(
                f"The database was written by another release of Ragstone ({error}); upgrade first"
            ) from error


def head() -> str:
    """Return the revision of the current schema: that of the last file, which begins with it."""
    versions = [name for name in os.listdir(MIGRATIONS / "versions") if name.endswith(".py")]
    return max(versions).partition("_")[0]


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found
