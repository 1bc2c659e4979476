"""The checker: a pure function of a recorded history.

It knows what was sent and what was acknowledged, and what readers were told. The log is what the first replica tells
from its beginning at the end; every stream, every acknowledgement and the log of every other replica is then held
against it, and every answer against the trades that follow from it by its corrections.
"""

from __future__ import annotations

from answers import Past
from findings import Findings
from log import Log
from record import History
from streams import Stream


def check(history: History) -> Findings:
    """Count everything in a history that breaks a promise."""
    findings = Findings()
    log = Log(history)
    log.check_epochs(findings)
    log.check_batches(findings)
    past = Past(log, findings)
    for replica, listing in enumerate(history.listings):
        past.check_listing(replica, listing)
    for subscription in (*history.logs, *history.subscriptions):
        Stream(subscription, log, findings).check()
    for answer in history.answers:
        past.check(answer)
    return findings
