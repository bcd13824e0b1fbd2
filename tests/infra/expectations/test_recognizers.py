"""What identifies a person is found and masked, and what only looks like it is left alone."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.expectations.check_digits import passes_luhn, passes_mod_97
from infra.expectations.recognizers import KINDS, find, mask
from infra.expectations.report import shown

FOUND = {
    "email": [
        "ada@example.org",
        "ada.lovelace+x@mail.sub-domain.example.co.uk",
        "jürgen@müller.example",
    ],
    "phone": [
        "+44 20 7946 0958",
        "+1 (555) 010-9999",
        "+491701234567",
        "(555) 010-9999",
        "555-010-9999",
        "020 7946 0958",
        "030/1234567",
        "01 23 45 67 89",
    ],
    "card": [
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "378282246310005",
        "6011111111111117",
        "5555555555554444",
        "3530111333300000",
    ],
    "iban": [
        "DE89370400440532013000",
        "DE89 3704 0044 0532 0130 00",
        "GB82 WEST 1234 5698 7654 32",
        "NO93 8601 1117 947",
        "FR14 2004 1010 0505 0001 3M02 606",
    ],
    "ip": ["192.168.1.17", "8.8.8.8", "2001:db8::8a2e:370:7334", "fe80::1ff:fe23:4567:890a"],
    "mac": ["01:23:45:67:89:ab", "01-23-45-67-89-AB"],
    "ssn": ["123-45-6789"],
    "secret": [
        "AKIAIOSFODNN7EXAMPLE",
        f"ghp_{'a1' * 18}",
        f"sk-{'x' * 24}",
        "-----BEGIN RSA PRIVATE KEY-----",
        f"eyJ{'a' * 20}.eyJ{'b' * 30}.{'c' * 20}",
    ],
}
INNOCENT = [
    "Version 1.2.3.4.5 of 3.2.1",
    "at 12:30:45 on 2024-01-31T12:30:45",
    "std::vector<int> and a::b",
    "listening on 127.0.0.1 and ::1",
    "4111 1111 1111 1112",
    "0000000000000000",
    "DE89370400440532013001",
    "XX89370400440532013000",
    "999.1.1.1",
    "name@localhost",
    "@handle and a@b",
    "000-12-3456 and 666-12-3456",
    "1234567890123456789012345678901234567890",
    "3.14159265358979323846",
    "1,000,000 rows in 2024-2025",
    "order 2024-000123",
    "",
]


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind in FOUND for text in FOUND[kind]])
def test_each_kind_is_found_whole_and_masked(kind: str, text: str) -> None:
    inside = f"Ask {text}, or not."
    assert [(hit.kind, inside[hit.start : hit.end]) for hit in find(inside, [kind])] == [
        (kind, text)
    ]
    masked = mask(inside)
    assert text not in masked
    assert masked.startswith("Ask <")
    assert masked.endswith(">, or not.")


def test_every_kind_has_an_example() -> None:
    assert set(FOUND) == set(KINDS)


@pytest.mark.parametrize("text", INNOCENT)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert find(text) == []
    assert mask(text) == text


def test_number_before_or_after_a_card_does_not_hide_it() -> None:
    assert mask("1234 4111 1111 1111 1111") == "1234 <card>"
    assert mask("4111 1111 1111 1111 12") == "<card> 12"
    assert mask("DE89 3704 0044 0532 0130 00 ABC") == "<iban> ABC"


@given(st.integers(0, 10**15 - 1))
@settings(deadline=None)
def test_luhn_has_one_check_digit(number: int) -> None:
    digits = f"{number:015}"
    assert sum(passes_luhn(f"{digits}{last}") for last in range(10)) == 1


@given(st.from_regex(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,26}", fullmatch=True), st.data())
@settings(deadline=None)
def test_a_changed_digit_of_an_account_number_is_noticed(text: str, data: st.DataObject) -> None:
    rest = text[4:] + text[:2]
    check = 98 - int("".join(str(int(letter, 36)) for letter in f"{rest}00")) % 97
    iban = f"{text[:2]}{check:02}{text[4:]}"
    assert passes_mod_97(iban)
    place = data.draw(st.integers(4, len(iban) - 1))
    other = data.draw(st.sampled_from("0123456789").filter(lambda digit: digit != iban[place]))
    if iban[place].isdigit():
        assert not passes_mod_97(f"{iban[:place]}{other}{iban[place + 1 :]}")


@given(st.text(alphabet="aA1.:@-+ ()_/eyJ4", max_size=200))
@settings(max_examples=200, deadline=None)
def test_nothing_is_found_in_what_was_masked(text: str) -> None:
    hits = find(text)
    assert all(0 <= hit.start < hit.end <= len(text) for hit in hits)
    assert (mask(text) == text) is not bool(hits)


@pytest.mark.parametrize(
    "unit", ["a", "1", "1 ", "a@", "a.", "@a.", "1.", "1:", "a:", "::", "-", "0-", "+1", "(1",
             "sk-", "eyJ", "-eyJ", "AKIA", "DE89 ", "A1", "4 ", "ghp_", "a@a.", "01 "]
)  # fmt: skip
def test_hostile_text_takes_time_in_proportion_to_its_length(unit: str) -> None:
    started = time.perf_counter()
    find(unit * (20_000 // len(unit)))
    assert time.perf_counter() - started < 3


def test_report_keeps_short_masked_values() -> None:
    assert shown("mail ada@example.org " + "x" * 500) == f"mail <email> {'x' * 186}…"
    assert shown(4111111111111111) == "<card>"
    assert shown([{"content": "call +44 20 7946 0958"}]) == "[{'content': 'call <phone>'}]"
    assert shown(b"abc") == "3 bytes"
    assert shown(float("nan")) == "nan"
    assert [shown(value) for value in (None, True, 1, 1.5)] == [None, True, 1, 1.5]
