"""Other numbers for the ones that name a machine: the same under one key everywhere, so that comparisons still hold.

Every mapping is one-to-one. A hardware address keeps its maker, and what is derived from it (a link-local address, a
GUID) follows it. A public network keeps its size and stays public; private addresses are left alone: they say nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import string
from ipaddress import AddressValueError, IPv4Address, IPv6Address

_HEX = "[0-9A-Fa-f]"
#: Everything that can be an address or a GUID, in one pattern, so that no replacement is replaced again.
ADDRESSES = re.compile(
    rf"(?<![\w:.-])(?P<mac>{_HEX}{{2}}(?P<mark>[:-]){_HEX}{{2}}(?:(?P=mark){_HEX}{{2}}){{4}})(?![\w:-])"
    rf"|(?<![\w:.])(?P<guid>{_HEX}{{4}}(?::{_HEX}{{4}}){{3}})(?![\w:])"
    rf"|(?<![\w:.])(?P<v6>(?:{_HEX}{{0,4}}:){{2,7}}{_HEX}{{0,4}})(?P<v6mask>/\d{{1,3}})?(?![\w:]|\.\d)"
    r"|(?<![\w.+~-])(?P<v4>\d{1,3}(?:\.\d{1,3}){3})(?P<v4mask>/\d{1,2})?(?![\w+~-]|\.\d)"
    rf"|(?<!{_HEX})(?P<bare>(?:0x)?(?:{_HEX}{{16}}|{_HEX}{{12}}))(?!{_HEX})"
)
# First octets that are public as a whole. Of the others a part is private or special.
_PLAIN = tuple(n for n in range(1, 224) if n not in (10, 100, 127, 169, 172, 192, 198, 203))
_EUI = 0xFFFE


class Pseudonyms:
    """The mappings under one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        octets = sorted(_PLAIN, key=lambda octet: self._draw("octet", octet))
        self._octets = dict(zip(_PLAIN, octets, strict=True))

    def mac(self, text: str) -> str:
        """A hardware address, in its own spelling; none, everybody and groups stay as they are."""
        digits = re.sub(r"[:-]", "", text)
        number = int(digits, 16)
        if number in (0, 0xFFFFFFFFFFFF) or (number >> 40) & 1:
            return text
        mapped = format(number & ~0xFFFFFF | self._low(number), "012x")
        mark = "-" if "-" in text else ":" if ":" in text else ""
        spelt = mark.join(mapped[i : i + 2] for i in range(0, 12, 2))
        return spelt.upper() if text.upper() == text and text.lower() != text else spelt

    def guid(self, text: str) -> str:
        """A GUID, in its own spelling: it is made of a hardware address, and follows that."""
        lead = "0x" if text.startswith("0x") else ""
        number = int(text.removeprefix("0x").replace(":", ""), 16)
        if number in (0, 0xFFFFFFFFFFFFFFFF):
            return text
        mapped = format(number & ~0xFFFFFF | self._low(number), "016x")
        return lead + (":".join(mapped[i : i + 4] for i in range(0, 16, 4)) if ":" in text else mapped)

    def ipv4(self, text: str, mask: str = "") -> str | None:
        """A public address, with its network's size kept; None when it is no public address."""
        address = _ipv4(text)
        if address is None or not _public4(address):
            return None
        return str(self._mapped4(address, _length(mask, 32)))

    def ipv6(self, text: str, mask: str = "") -> str | None:
        """An address of which the public prefix, or the hardware address in it, is mapped; None when it has neither."""
        try:
            address = IPv6Address(text)
        except (AddressValueError, ValueError):
            return None
        mapped = self._mapped6(address, _length(mask, 128))
        if mapped is None or mapped == address:
            return None
        spelt = mapped.exploded if len(text) == 39 else str(mapped)
        return spelt.upper() if text.upper() == text and text.lower() != text else spelt

    def like(self, text: str, salt: int = 0) -> str:
        """A serial number of the same shape: digits for digits, letters for letters."""
        stream = hashlib.shake_256(self._key + b"serial" + bytes([salt]) + text.encode("utf-8", "replace"))
        drawn = stream.digest(len(text))
        hexadecimal = re.fullmatch(rf"(?=.*[a-fA-F]){_HEX}{{16,}}", text.replace("-", "")) is not None
        found = []
        for char, draw in zip(text, drawn, strict=True):
            pool = string.digits if char in string.digits else "abcdef" if hexadecimal else string.ascii_lowercase
            mapped = pool[draw % len(pool)] if char.isascii() and char.isalnum() else char
            found.append(mapped.upper() if char.isupper() else mapped)
        return "".join(found)

    def _mapped4(self, address: IPv4Address, length: int) -> IPv4Address:
        number = self._step4(int(address))
        # A block that is public in part only: on until outside of its private part, which is still one-to-one.
        while not _public4(IPv4Address(number)):
            number = self._step4(number)
        return IPv4Address(_aligned(int(address), number, length, 32))

    def _step4(self, number: int) -> int:
        first = number >> 24
        return self._octets.get(first, first) << 24 | self._prefix(number, 32, 8, 24) << 8 | number & 0xFF

    def _mapped6(self, address: IPv6Address, length: int) -> IPv6Address | None:
        if address.ipv4_mapped is not None:
            inner = self._mapped4(address.ipv4_mapped, 32) if _public4(address.ipv4_mapped) else address.ipv4_mapped
            return IPv6Address((0xFFFF << 32) | int(inner))
        number = int(address)
        high, low = number >> 64, number & (2**64 - 1)
        public = high >> 61 == 1 and address.is_global
        hardware = (low >> 24) & 0xFFFF == _EUI
        if not public and not hardware:
            return None
        if public:
            high = (high >> 61 << 61) | self._prefix(number, 128, 3, 64)
        if hardware:
            low = low & ~0xFFFFFF | self._low(low)
        elif public and low >> 16:
            low = self._shuffled("interface", low, 64)
        return IPv6Address(_aligned(number, (high << 64) | low, length, 128))

    def _prefix(self, number: int, width: int, begin: int, end: int) -> int:
        """The bits from begin to end, mapped so that what was in one network is in one network."""
        found = 0
        for position in range(begin, end):
            before = number >> (width - position)
            bit = (number >> (width - 1 - position)) & 1
            found = found << 1 | (bit ^ (self._draw(f"bit{width}.{position}", before) & 1))
        return found

    def _low(self, number: int) -> int:
        return self._shuffled("hardware", number & 0xFFFFFF, 24)

    def _shuffled(self, what: str, number: int, bits: int) -> int:
        """A permutation of all numbers of so many bits (a Feistel network of four rounds)."""
        half = bits // 2
        mask = (1 << half) - 1
        left, right = number >> half, number & mask
        for turn in range(4):
            left, right = right, left ^ (self._draw(f"{what}.{turn}", right) & mask)
        return left << half | right

    def _draw(self, what: str, number: int) -> int:
        told = hmac.new(self._key, f"{what}/{number:x}".encode(), hashlib.sha256).digest()
        return int.from_bytes(told[:8], "big")


def hardware_in(text: str) -> set[str]:
    """The hardware addresses that are spelt out in a text, as twelve digits."""
    found = set()
    for match in ADDRESSES.finditer(text):
        if match["mac"]:
            found.add(re.sub(r"[:-]", "", match["mac"]).lower())
    return found - {"0" * 12, "f" * 12}


def _ipv4(text: str) -> IPv4Address | None:
    if any(len(part) > 1 and part.startswith("0") for part in text.split(".")):
        return None
    try:
        return IPv4Address(text)
    except (AddressValueError, ValueError):
        return None


def _public4(address: IPv4Address) -> bool:
    return address.is_global and not address.is_multicast


def _length(mask: str, width: int) -> int:
    number = int(mask[1:]) if mask else width
    return number if number <= width else width


def _aligned(was: int, now: int, length: int, width: int) -> int:
    """The address of a network stays one: what was without host bits has none afterwards."""
    host = (1 << (width - length)) - 1
    return now & ~host if length < width and not was & host else now
