"""`vireid gallery serve`."""

from __future__ import annotations

import argparse


def register(nouns: argparse._SubParsersAction) -> None:
    """Add the verb."""
