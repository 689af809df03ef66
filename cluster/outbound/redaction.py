"""Cutting secrets out of answers: a target may repeat what it was sent, as it came or encoded.

The excerpt is compared with each secret in two forms, and not with a list of encodings, because targets mix and nest
them. Escapes are undone first (percent, backslashes, HTML), up to three times; then case does not count, and for secrets
with eight letters and digits or more nothing else counts but these. So backslashes, line breaks and UTF-16 make no
difference. Base64, base32 and hexadecimal forms of the secret are looked for in the same way, and so is what stands
there as numbers of bytes, as octal escapes, as quoted-printable or in a dump. The parts of a secret count as it does.
"""

from __future__ import annotations

import base64
import binascii
import re
import string
from dataclasses import dataclass
from functools import cached_property, lru_cache
from html.entities import html5
from typing import TYPE_CHECKING

from cluster.outbound.dumps import columns, hexadecimal
from cluster.outbound.secret_parts import parts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cluster.outbound.dumps import Listed

    _Places = tuple[Sequence[int], Sequence[int]]

MIN_SECRET_CHARS = 4
"""Shorter secrets are not redacted: they would turn up by chance."""
REDACTED = b"(secret)"
LOOK_AHEAD = 512
"""So many bytes behind those that are shown are read too, because a secret may begin before their end."""
MIN_COMPACT = 8
MIN_BASE64 = 4
CHUNK = 24
"""Of a longer secret every part of so many letters and digits is looked for, so a part of it is found as well."""
MANY_CHUNKS = 64
"""To look for a few of them one by one is faster than to look up every place of the content."""
ROUNDS = 3
BASE64_ROUNDS = 2

_LETTERS_AND_DIGITS = frozenset((string.ascii_letters + string.digits).encode())
_OTHERS = bytes(b for b in range(256) if b not in _LETTERS_AND_DIGITS)
_IGNORED = b"\\\0"
_LETTERS_OF_ESCAPES = bytes.maketrans(b"\b\t\n\f\r", b"btnfr")
"""`\\t` and the like: what is left of them without their backslash."""
_FOLD = bytes(b" "[0] if b == b"+"[0] else b for b in range(256))
_ESCAPE = re.compile(
    rb"%(?:25)*(?:[uU]([0-9A-Fa-f]{4})|([0-9A-Fa-f]{2}))"
    rb"|(?<!\\)\\++(?:[uU](?:([0-9A-Fa-f]{4})|\{([0-9A-Fa-f]{1,6})\})|[xX]([0-9A-Fa-f]{2}))"
    rb"|&(?:[Aa][Mm][Pp];)*(?:(?:#0*+([0-9]{1,7}+)|#[xX]0*+([0-9A-Fa-f]{1,6}+));?"
    rb"|([A-Za-z][A-Za-z0-9]{1,30});)"
)
_OTHER_ESCAPES = (
    re.compile(rb"=(?:\r?\n|([0-9A-Fa-f]{2}))"),  # quoted-printable, and encoded words of mail
    re.compile(rb"(?<!\\)\\++([0-7]{3})"),  # octal
    re.compile(rb"(?:0[xX]|[uU]\+0{2,4})([0-9A-Fa-f]{2})(?![0-9A-Za-z])[, ]*+"),
)
"""Each by itself: to undo them where they are none would hide a secret that has escapes of other kinds."""
_NUMBERS = re.compile(rb"(?<![0-9.])(?:[0-9]{1,3}[,\s]\s*+){3,}+(?:[0-9]{1,3}+)?")
_NUMBER = re.compile(rb"[0-9]+")
_BASE64_RUN = re.compile(rb"[A-Za-z0-9+/_-]{8,}")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


@dataclass(frozen=True, slots=True)
class _Needles:
    """The forms of some secrets: `plain` ones count with their punctuation, the others by letters and digits alone."""

    plain: tuple[bytes, ...]
    compact: tuple[bytes, ...]
    chunks: frozenset[bytes]
    """Parts of `CHUNK` bytes of longer compact forms."""
    beginnings: frozenset[bytes]
    """Of compact forms, to be found where the content breaks off."""


class _View:
    """The content with its escapes undone. Where its bytes came from is found out only if a secret is in it."""

    def __init__(self, content: bytes, find_places: Callable[[], _Places]) -> None:
        self.content = content
        self._find_places = find_places

    @cached_property
    def places(self) -> _Places:
        """Each byte `i` came from `places[0][i]` to before `places[1][i]` of what was received."""
        return self._find_places()

    def decoded(self) -> _View | None:
        """With one layer of escapes less. None if there are none."""
        return self._replaced((*match.span(), _value(match)) for match in _ESCAPE.finditer(self.content))

    def otherwise_decoded(self) -> Iterator[_View]:
        """With escapes less that are no escapes elsewhere."""
        for escape in _OTHER_ESCAPES:
            view = self._replaced((*match.span(), _byte(match)) for match in escape.finditer(self.content))
            if view is not None:
                yield view
        for listed in (_numbers(self.content), hexadecimal(self.content), columns(self.content)):
            if listed:
                yield self._of_listed(listed)

    def _of_listed(self, listed: Listed) -> _View:
        def places() -> _Places:
            starts, ends = self.places
            return [starts[begin] for begin, _, _ in listed], [ends[end - 1] for _, end, _ in listed]

        return _View(bytes(n for _, _, n in listed), places)

    def _replaced(self, found: Iterator[tuple[int, int, bytes | None]]) -> _View | None:
        pieces = [(begin, end, value) for begin, end, value in found if value is not None]
        if not pieces:
            return None
        made, at = bytearray(), 0
        for begin, end, value in pieces:
            made += self.content[at:begin] + value
            at = end
        return _View(bytes(made) + self.content[at:], lambda: self._places_with(pieces))

    def _places_with(self, pieces: Sequence[tuple[int, int, bytes]]) -> _Places:
        """The places of the content with some pieces of it replaced."""
        old_starts, old_ends = self.places
        starts, ends, at = list[int](), list[int](), 0
        for begin, end, value in pieces:
            starts += [*old_starts[at:begin], *[old_starts[begin]] * len(value)]
            ends += [*old_ends[at:begin], *[old_ends[end - 1]] * len(value)]
            at = end
        return [*starts, *old_starts[at:]], [*ends, *old_ends[at:]]


def _numbers(content: bytes) -> Listed:
    """The bytes that are listed by their numbers."""
    found = (
        (run.start() + n.start(), run.start() + n.end(), int(n[0]))
        for run in _NUMBERS.finditer(content)
        for n in _NUMBER.finditer(run[0])
    )
    return [n for n in found if n[2] < 256]


def redact(content: bytes, secrets: Sequence[str], shown: int | None = None) -> bytes:
    """The content with every secret replaced; `shown` limits how much of it is returned, and how long this takes."""
    needles = _needles(tuple(secrets))
    if not needles.plain and not needles.compact and not needles.chunks:
        return content if shown is None else content[:shown]
    end = len(content)
    if shown is not None and end > shown + LOOK_AHEAD:
        content, end = content[: shown + LOOK_AHEAD], shown
    made, at = bytearray(), 0
    for begin, behind in sorted(_spans(content, needles)):
        if begin >= end:
            break
        if begin >= at:
            made += content[at:begin] + REDACTED
        at = max(at, behind)
    return bytes(made + content[at:end])


def _spans(content: bytes, needles: _Needles) -> Iterator[tuple[int, int]]:
    """From where to where secrets are in the content; spans may overlap."""
    view: _View | None = _whole(content)
    for layer in range(ROUNDS + 1):
        if view is None:
            return
        yield from _spans_in(view, needles)
        for other in view.otherwise_decoded() if layer < BASE64_ROUNDS else ():
            yield from _spans_in(other, needles)
        for skipped in range(4) if layer < BASE64_ROUNDS else ():
            inner: _View | None = _without_base64(view, skipped)
            for _ in range(BASE64_ROUNDS):
                if inner is not None:
                    yield from _spans_in(inner, needles)
                    inner = inner.decoded()
        view = view.decoded()


def _whole(content: bytes) -> _View:
    """The content as it was received."""
    return _View(content, lambda: (range(len(content)), range(1, len(content) + 1)))


def _spans_in(view: _View, needles: _Needles) -> Iterator[tuple[int, int]]:
    for begin, behind in _found(view.content, needles):
        starts, ends = view.places
        yield starts[begin], ends[behind - 1]


def _without_base64(view: _View, skipped: int) -> _View | None:
    """What every run of base64 in it stands for, one behind the other; each byte is for the whole run it came from.

    `skipped`: a run may begin with so many characters that belong to something else. None: there is no run.
    """
    made, runs = bytearray(), list[tuple[int, int, int]]()
    for run in _BASE64_RUN.finditer(view.content):
        part = run[0][skipped:].translate(_URL_SAFE)
        decoded = binascii.a2b_base64(part[: len(part) // 4 * 4])
        made += decoded
        runs.append((*run.span(), len(decoded)))

    def places() -> _Places:
        old_starts, old_ends = view.places
        starts, ends = list[int](), list[int]()
        for begin, end, size in runs:
            starts += [old_starts[begin]] * size
            ends += [old_ends[end - 1]] * size
        return starts, ends

    return _View(bytes(made), places) if made else None


def _found(content: bytes, needles: _Needles) -> Iterator[tuple[int, int]]:
    text = content.lower().translate(_FOLD, _IGNORED)
    hits = [(i, i + len(n)) for n in needles.plain for i in _all(text, n)]
    if hits:
        places = [i for i, b in enumerate(content) if b not in _IGNORED]
        yield from ((places[i], places[j - 1] + 1) for i, j in hits)
    text = content.lower().translate(None, _OTHERS)
    hits = [(i, i + len(n)) for n in needles.compact for i in _all(text, n)]
    hits += _chunks_in(text, needles.chunks)
    longest = min(CHUNK - 1, len(text))
    hits += [(len(text) - n, len(text)) for n in range(MIN_COMPACT, longest + 1) if text[-n:] in needles.beginnings]
    if hits:
        places = [i for i, b in enumerate(content) if b in _LETTERS_AND_DIGITS]
        yield from ((places[i], places[j - 1] + 1) for i, j in _joined(hits))


def _chunks_in(text: bytes, chunks: frozenset[bytes]) -> list[tuple[int, int]]:
    if len(chunks) > MANY_CHUNKS:
        return [(i, i + CHUNK) for i in range(len(text) - CHUNK + 1) if text[i : i + CHUNK] in chunks]
    return [(i, i + CHUNK) for chunk in chunks for i in _all(text, chunk, 1)]


def _joined(hits: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Parts that follow each other as one, with the signs between them."""
    begin, behind = -1, -1
    for i, j in sorted(hits):
        if i > behind:
            if behind > 0:
                yield begin, behind
            begin = i
        behind = max(behind, j)
    yield begin, behind


def _all(text: bytes, needle: bytes, step: int = 0) -> Iterator[int]:
    """Where the needle is in the text; the next one from so many bytes behind the last, or from its end."""
    at = text.find(needle)
    while at >= 0:
        yield at
        at = text.find(needle, at + (step or len(needle)))


def _value(match: re.Match[bytes]) -> bytes | None:
    """The bytes that an escape stands for. None if it stands for none."""
    percent_u, percent, backslash_u, braced, backslash_x, decimal, hexadecimal, name = match.groups()
    if percent or backslash_x:
        return bytes([int(percent or backslash_x, 16)])
    if name is not None:
        text = name.decode()
        known = html5.get(f"{text};") or html5.get(f"{text.lower()};")
        return None if known is None else known.encode()
    code = int(decimal) if decimal else int(percent_u or backslash_u or braced or hexadecimal, 16)
    return chr(code).encode("utf-8", "surrogatepass") if code <= 0x10FFFF else None


def _byte(match: re.Match[bytes]) -> bytes | None:
    """The byte that one of the other escapes stands for; none for a line break that is no part of the text."""
    if match.re is _OTHER_ESCAPES[1]:
        return bytes([int(match[1], 8) & 0xFF])
    return b"" if match[1] is None else bytes([int(match[1], 16)])


@lru_cache(maxsize=1024)
def _needles(secrets: tuple[str, ...]) -> _Needles:
    plain, compact = set[bytes](), set[bytes]()
    for secret in dict.fromkeys(part for each in secrets for part in parts_of(each)):
        if len(secret) < MIN_SECRET_CHARS:
            continue
        for raw in _bytes_of(secret):
            characters = raw.lower().translate(None, _OTHERS)
            if len(characters) >= MIN_COMPACT:
                compact.add(characters)
            else:
                plain.add(raw.lower().translate(_FOLD, _IGNORED))
            compact |= {raw.hex().encode(), *_base64_forms(raw), *_base32_forms(raw)}
    plain.discard(b"")
    chunks = {
        part
        for c in compact
        if len(c) > CHUNK
        for part in (*(c[i : i + CHUNK] for i in range(0, len(c) - CHUNK + 1, CHUNK)), c[-CHUNK:])
    }
    return _Needles(
        plain=tuple(plain),
        compact=tuple(c for c in compact if len(c) <= CHUNK),
        chunks=frozenset(chunks),
        beginnings=frozenset(c[:n] for c in compact for n in range(MIN_COMPACT, min(len(c), CHUNK))),
    )


def _bytes_of(secret: str) -> set[bytes]:
    """A secret as it may be sent and repeated: header values are Latin-1, most else is UTF-8.

    One that looks like an escape itself is also meant without it, because such escapes are undone in the content.
    """
    found = {secret.encode(), secret.encode("latin-1", "replace")}
    found |= {raw.translate(_LETTERS_OF_ESCAPES) for raw in found}
    for raw in tuple(found):
        view: _View | None = _whole(raw)
        for _ in range(ROUNDS):
            view = None if view is None else view.decoded()
            if view is not None and len(view.content) >= MIN_SECRET_CHARS:
                found.add(view.content)
    return found


def _base64_forms(raw: bytes) -> Iterator[bytes]:
    """What base64 makes of it behind 0, 1 or 2 other bytes: the characters that depend on nothing else, compared as all."""
    for before, skipped in ((0, 0), (1, 2), (2, 3)):
        encoded = base64.b64encode(bytes(before) + raw)[skipped : (before + len(raw)) * 8 // 6]
        characters = encoded.lower().translate(None, _OTHERS)
        if len(characters) >= MIN_BASE64:
            yield characters


def _base32_forms(raw: bytes) -> Iterator[bytes]:
    """The same of base32, behind 0 to 4 other bytes."""
    for before in range(5):
        encoded = base64.b32encode(bytes(before) + raw)[-(-before * 8 // 5) : (before + len(raw)) * 8 // 5]
        if len(encoded) >= MIN_BASE64:
            yield encoded.lower()
