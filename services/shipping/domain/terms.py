"""What might surprise a customer, in plain words. An order that did not show these is refused."""

from __future__ import annotations

from dataclasses import dataclass

# Changes with the texts: an order says which of them were shown. A test remembers the texts of each version.
VERSION = "2026-1"


@dataclass(frozen=True, slots=True)
class TermsHighlight:
    """One thing that might surprise."""

    code: str
    text: str


HIGHLIGHTS = (
    TermsHighlight(
        "HELD_UNTIL",
        "We hold these goods for you until the time shown. Order later, and somebody else may have taken the last one.",
    ),
    TermsHighlight(
        "DATE_AT_CUT_OFF",
        "The delivery date holds if you order before the cut-off shown. After it, everything moves by a business day.",
    ),
    TermsHighlight(
        "CANCEL_UNTIL_DISPATCH",
        "You can cancel until the first parcel has left our house. After that you can still send it back for 365 days.",
    ),
    TermsHighlight(
        "PAYMENT_VOIDED",
        "If the goods are gone before your order is confirmed, there is no order and you pay nothing.",
    ),
)
