"""The `apf` command: a module per command, with what it prints. `main.main` is the entry point."""
