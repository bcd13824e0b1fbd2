"""Brings a database to the current schema, once, also when several processes start together."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from infra.database.engine import Database
from infra.errors import InvalidConfiguration

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK = 0x7261_6773  # "rags": held while migrating, so that one process does it and the others wait


def upgrade(database: Database) -> None:
    """Apply the migrations that are missing, all in one transaction.

    Raises:
        InvalidConfiguration: the database was written by a newer release.
    """
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    head = ScriptDirectory.from_config(config).get_current_head()
    with database.read() as connection:
        if MigrationContext.configure(connection).get_current_revision() == head:
            return
    with database.write(lock=LOCK) as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise InvalidConfiguration(
                f"The database was written by another release of Ragstone ({error}); upgrade first"
            ) from error
