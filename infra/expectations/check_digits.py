"""Tells a real card, account or network address from digits that look like one."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

_ISSUER = re.compile(
    r"4|5[0-9]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)|3[47]|3(?:0[0-5]|[689])|35(?:2[89]|[3-8])|6"
)
_IBAN_LENGTHS: Mapping[str, int] = {
    **dict.fromkeys(("NO",), 15),
    **dict.fromkeys(("BE",), 16),
    **dict.fromkeys(("DK", "FI", "FO", "GL", "NL", "SD"), 18),
    **dict.fromkeys(("MK", "SI"), 19),
    **dict.fromkeys(("AT", "BA", "EE", "KZ", "LT", "LU", "XK", "MN"), 20),
    **dict.fromkeys(("CH", "HR", "LI", "LV"), 21),
    **dict.fromkeys(("BG", "BH", "CR", "DE", "GB", "GE", "IE", "ME", "RS", "VA"), 22),
    **dict.fromkeys(("AE", "GI", "IL", "IQ", "OM", "SO", "TL"), 23),
    **dict.fromkeys(("AD", "CZ", "ES", "MD", "PK", "RO", "SA", "SE", "SK", "TN", "VG"), 24),
    **dict.fromkeys(("LY", "PT", "ST"), 25),
    **dict.fromkeys(("IS", "TR"), 26),
    **dict.fromkeys(("BI", "DJ", "FR", "GR", "IT", "MC", "MR", "SM"), 27),
    **dict.fromkeys(("AL", "AZ", "BY", "CY", "DO", "GT", "HN", "HU", "LB", "NI", "PL", "SV"), 28),
    **dict.fromkeys(("BR", "EG", "PS", "QA", "UA"), 29),
    **dict.fromkeys(("JO", "KW", "MU", "YE"), 30),
    **dict.fromkeys(("MT", "SC"), 31),
    **dict.fromkeys(("LC",), 32),
    **dict.fromkeys(("RU",), 33),
}
"""Characters of an account number by country, from the IBAN registry of SWIFT."""


def passes_luhn(digits: str) -> bool:
    """Say whether the last digit checks the others, as on a payment card (ISO/IEC 7812-1)."""
    total = 0
    for place, letter in enumerate(reversed(digits)):
        value = int(letter) * (1 + place % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


def passes_mod_97(iban: str) -> bool:
    """Say whether the check digits of an account number without spaces are right (ISO 13616)."""
    return int("".join(str(int(letter, 36)) for letter in iban[4:] + iban[:4])) % 97 == 1


def card(text: str) -> int:
    """Return the length of the longest beginning that is a card's number."""
    for end in range(len(text), 12, -1):
        if text[end - 1].isdigit() and not text[end : end + 1].isdigit():
            digits = re.sub(r"\D", "", text[:end])
            if len(digits) < 13:
                return 0
            if _ISSUER.match(digits) and len(set(digits)) > 1 and passes_luhn(digits):
                return end
    return 0


def iban(text: str) -> int:
    """Return the length of the account number that a text begins with, or 0."""
    length = _IBAN_LENGTHS.get(text[:2], 0)
    count = 0
    for end, letter in enumerate(text, start=1):
        count += letter != " "
        if length and count == length:
            whole = not text[end : end + 1].isalnum()
            return end if whole and passes_mod_97(text[:end].replace(" ", "")) else 0
    return 0


def address(text: str) -> int:
    """Return the length of a text that is an address of some machine, or 0."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return 0
    groups = [group for group in text.split(":") if group]
    short = found.version == 6 and (len(groups) < 3 or not any(map(str.isdigit, text)))
    return 0 if found.is_loopback or found.is_unspecified or short else len(text)
