"""Runs migrations on the connection that `infra.database.migrate` opened."""

from alembic import context

import infra.artifacts.tables  # noqa: F401 - registers its tables
import infra.database.conversation_tables  # noqa: F401 - registers its tables
import infra.database.fine_tuning_tables  # noqa: F401 - registers its tables
import infra.database.interaction_tables  # noqa: F401 - registers its tables
import infra.database.money  # noqa: F401 - registers its tables
import infra.database.monitoring_tables  # noqa: F401 - registers its tables
import infra.database.prediction_tables  # noqa: F401 - registers its tables
import infra.database.response_tables  # noqa: F401 - registers its tables
import infra.expectations.tables  # noqa: F401 - registers its tables
import infra.jobs.tables  # noqa: F401 - registers its tables
import infra.pipelines.tables  # noqa: F401 - registers its tables
import infra.tracking.tables  # noqa: F401 - registers its tables
from infra.database.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transaction_per_migration=False,
)
context.run_migrations()
