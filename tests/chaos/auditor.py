"""The auditor: reads the five databases and the topics themselves, and says whether the shop kept its word.

`python -m tests.chaos.auditor` audits the shop that `make up` started. It only reads.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from deploy.local.__main__ import local_stack
from deploy.local.stack import Stack

from . import ledgers, stories
from .evidence import Evidence, NotAtRest, Told, gather
from .findings import Findings

# How long the shop may take to finish what it was asked, once nobody asks any more.
REST_SECONDS = 120.0


async def audit(stack: Stack, told: Told | None = None, seconds: float = REST_SECONDS) -> Findings:
    """Waits until the shop is at rest, then checks every rule. Raises `NotAtRest`."""
    async with gather(stack, told or Told(), seconds) as evidence:
        return await judge(evidence)


async def judge(evidence: Evidence) -> Findings:
    """Checks every rule against what was read."""
    findings = Findings()
    await stories.check(evidence, findings)
    await ledgers.check(evidence, findings)
    return findings


def main() -> int:
    """Returns 0 when every rule holds."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        findings = asyncio.run(audit(local_stack()))
    except NotAtRest as busy:
        print(f"the shop does not come to rest: {busy}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"the shop does not run (make up): {error}", file=sys.stderr)
        return 1
    print("\n".join(findings.lines()))
    return 1 if findings.problems else 0


if __name__ == "__main__":
    sys.exit(main())
