"""The command line: one module per group of commands."""

from routerr1.cli.app import app, main

__all__ = ["app", "main"]
