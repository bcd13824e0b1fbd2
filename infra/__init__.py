"""The ground every folder stands on: settings, errors, database, files, plug-ins, logs."""
