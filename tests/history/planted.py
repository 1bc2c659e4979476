"""Plants seven defects, one after the other, and shows that the checker catches each.

Most are planted in the functions of the store in Postgres, so that production code knows nothing of them; two need a
server of their own, built from a copy of the tree with a patch. A run without a defect shows that the form itself finds
nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from cluster import REPOSITORY
from forms import BRIEF
from main import judge, spell

PLANTED = Path(__file__).parent / "planted"
DEFECTS = [
    "ack_before_commit",
    "bare_sequence",
    "dedup_off",
    "fence_off",
    "lag_dropped",
    "epoch_ignored",
    "dropped_chunks",
]
NONE = "none"


def built(defect: str, binary: Path) -> Path:
    """Return the server of a defect: the given one, or one built from a patched copy of the tree."""
    patch = PLANTED / f"{defect}.patch"
    if not patch.exists():
        return binary
    copy = REPOSITORY / "target" / "history" / defect
    shutil.rmtree(copy, ignore_errors=True)
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    for name in filter(None, tracked.stdout.split("\0")):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, copy / name, follow_symlinks=False)
    with patch.open() as text:
        subprocess.run(["patch", "--strip=1", "--batch"], cwd=copy, check=True, stdin=text)
    # Under a name of its own, so that it never takes the place of the real one.
    program = f"tapefeed-server-{defect}"
    with (copy / "server" / "Cargo.toml").open("a") as manifest:
        manifest.write(f'\n[[bin]]\nname = "{program}"\npath = "src/main.rs"\n')
    command = ["cargo", "build", "--quiet", "--package", "tapefeed-server", "--bin", program]
    subprocess.run([*command, "--target-dir", str(REPOSITORY / "target")], cwd=copy, check=True)
    return REPOSITORY / "target" / "debug" / program


def sql(defect: str) -> list[str]:
    """Return what changes the store."""
    script = PLANTED / f"{defect}.sql"
    if not script.exists():
        return []
    return [(PLANTED / "rewritten.sql").read_text() + script.read_text()]


def main() -> int:
    """Run all defects, or the named ones."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("defects", nargs="*", metavar="DEFECT", help=", ".join([NONE, *DEFECTS]))
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    chosen = given.defects or [NONE, *DEFECTS]
    if unknown := set(chosen) - {NONE, *DEFECTS}:
        arguments.error(f"no such defect: {', '.join(sorted(unknown))}")
    real = Path(os.environ["TAPEFEED_SERVER_BINARY"])
    summary, right = [], True
    for defect in chosen:
        judged = judge(BRIEF, given.seed, built(defect, real), sql(defect))
        counts = {kind: count for kind, count in judged.findings.counts().items() if count}
        expected = judged.is_right() if defect == NONE else bool(counts)
        print(f"\n== {defect}\n{spell(judged.figures)}", flush=True)
        verdict = ("nothing is wrong" if defect == NONE else "caught") if expected else "NOT AS IT SHOULD BE"
        summary.append(f"{defect:18} {verdict}: {', '.join(f'{kind} {count}' for kind, count in counts.items())}")
        right &= expected
        if expected:
            shutil.rmtree(judged.folder)
        else:
            summary.append(f"{'':18} the record and the servers' logs are in {judged.keep(defect)}")
    print("\n" + "\n".join(summary))
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
