"""What a process is charged, gives back and is lent of one account, within a transaction."""

from __future__ import annotations

from dataclasses import dataclass

from service.gateway.accounts import Want

SHARE = 4
"""What is borrowed ahead: this part of what is left, divided by the processes that share it."""
AHEAD_CALLS = 4
"""Borrowing ahead is for budgets that carry many calls; the last ones are borrowed by need."""


@dataclass(slots=True)
class Row:
    """An account and this process's allowance of it, while a transaction works on them."""

    amount: int
    spent: int
    lent: int
    recalls: int
    granted: int
    answered: int
    others: int = 0
    """What living other processes hold."""
    sharers: int = 1
    has_account: bool = True
    has_allowance: bool = True
    borrowed: int = 0
    is_exhausted: bool = False

    @property
    def unlent(self) -> int:
        return self.amount - self.spent - self.lent

    def charge(self, amount: int) -> None:
        """Count what was spent; what exceeds the allowance was never lent."""
        covered = min(self.granted, amount)
        self.granted -= covered
        self.lent -= covered
        self.spent += amount

    def give_back(self, amount: int) -> None:
        self.granted -= amount
        self.lent -= amount
        self.answered = self.recalls

    def lend(self, want: Want) -> None:
        """Lend what is needed and a share of the rest, or, if that helps nobody, nothing."""
        unlent = max(0, self.unlent)
        ahead = max(0, unlent - want.total) // (SHARE * self.sharers)
        if ahead < AHEAD_CALLS * want.largest:
            ahead = 0
        if unlent >= want.smallest:
            self.borrowed = min(unlent, want.total + ahead)
            self.granted += self.borrowed
            self.lent += self.borrowed
        elif self.others:
            self.recalls += 1
            self.answered = self.recalls
        else:
            self.is_exhausted = self.granted <= 0
