"""`python -m dspark_ops` is the CLI."""

from __future__ import annotations

from dspark_ops.cli.app import main

main()
