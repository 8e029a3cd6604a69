"""Models in use: registration, the code that MLflow serves, predictions for a file, the server."""
