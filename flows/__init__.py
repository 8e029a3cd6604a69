"""What Prefect deploys, and the `apf` command."""
