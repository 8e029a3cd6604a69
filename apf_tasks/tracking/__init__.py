"""MLflow: the connection, runs, the outbox, the registry, the champion, past runs."""
