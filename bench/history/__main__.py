"""The peers of `bench/run history`: DuckDB, ClickHouse and rows in Postgres hold the ticks that Tapefeed holds.

Every question is asked of all in turn, round after round, in this process. The answers are compared, then the medians.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import frames
import peers
import questions
import scans
import tapefeed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--database")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    with tapefeed.Client(options.server) as client:
        databases = peers.Databases(client, options.folder, options.database)
        databases.print_sizes()
        questions.run(client, databases, options.quick)
        scans.run(options.server, client, databases, options.quick)
        frames.run(client, databases, options.quick)


if __name__ == "__main__":
    main()
