"""Import a file of trades, and say how far it is.

python examples/import_file.py http://127.0.0.1:50051 trades.csv
"""

import sys

import tapefeed


def progress(told: tapefeed.ImportProgress) -> None:
    print(f"{told.sent_bytes} of {told.size_bytes} bytes sent")


def main(server: str, path: str) -> None:
    with tapefeed.Client(server) as client:
        done = client.import_file(path, progress=progress)
        run = done.run
        print(f"{run.state}: {run.tick_count} ticks, {run.reject_count} lines rejected, known before: {done.duplicate}")
        for line in run.first_rejects:
            print(f"line {line.line_number}: {line.message}")


if __name__ == "__main__":
    main(*sys.argv[1:])
