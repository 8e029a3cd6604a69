"""Prefect: tasks, workers, settings, notifications, deployments."""
