"""No secret is left in what is kept of an answer, however the target encodes it."""

from __future__ import annotations

import base64
import html
import json
import quopri
import string
import time
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import pytest

from cluster.outbound.redaction import LOOK_AHEAD, REDACTED, redact

if TYPE_CHECKING:
    from collections.abc import Callable

LONG = 'sk/live+0123&4567"89%AB_cd-ef~ghIJKLmn/opQRst==uvWX' * 3
SECRETS = (
    "canary/one+two&three",
    'c4nary"5/6+7&8<9>',
    "a/b+",
    "p&q=",
    "100%deadbeef-cafe",
    "back\\slash\\n/x9",
    "gr\u00fcne/aus+k\u00f6ln",
    "a%2Fb%2Bc%26d99",
    "tok\u00e9n 12345678",
    "tab\tulator/99",
    "a\t/b",
    LONG,
)


def escaped(text: str) -> str:
    """As PHP writes JSON."""
    return json.dumps(text)[1:-1].replace("/", "\\/")


def every_percent(text: str) -> str:
    return "".join(f"%{b:02x}" for b in text.encode())


def every_entity(text: str) -> str:
    return "".join(f"&#{ord(c)};" for c in text)


def every_hex_entity(text: str) -> str:
    return "".join(f"&#x{ord(c):X};" for c in text)


def every_u(text: str) -> str:
    return "".join(f"\\u{ord(c):04x}" for c in text)


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def base32_of(text: str) -> str:
    return base64.b32encode(text.encode()).decode()


def url_safe_base64_of(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


ENCODERS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "json": lambda s: json.dumps(s)[1:-1],
    "json with slashes": escaped,
    "json in json": lambda s: escaped(escaped(s)),
    "json unicode": every_u,
    "percent": lambda s: quote(s, safe=""),
    "percent path": quote,
    "form": quote_plus,
    "all percent": every_percent,
    "percent twice": lambda s: quote(quote(s, safe=""), safe=""),
    "html": html.escape,
    "html decimal": every_entity,
    "html hexadecimal": every_hex_entity,
    "html twice": lambda s: html.escape(html.escape(s)),
    "html in percent": lambda s: quote(html.escape(s), safe=""),
    "percent in json": lambda s: escaped(quote(s, safe="/")),
    "base64": base64_of,
    "base64 behind 1": lambda s: base64_of("x" + s + "yz"),
    "base64 behind 2": lambda s: base64_of("xx" + s + "y"),
    "base64 behind 3": lambda s: base64_of("xxx" + s),
    "url-safe base64": url_safe_base64_of,
    "url-safe base64 behind 2": lambda s: url_safe_base64_of("me" + s + "#"),
    "base64 in json": lambda s: escaped(base64_of(s)),
    "base64 in percent": lambda s: quote(base64_of(s), safe=""),
    "json in base64": lambda s: base64_of(json.dumps({"key": escaped(s)})),
    "hexadecimal": lambda s: s.encode().hex(),
    "repr": repr,
    "html without semicolons": lambda s: every_entity(s).replace(";", ""),
    "html with zeros": lambda s: every_entity(s).replace("&#", "&#00"),
    "hexadecimal, byte by byte": lambda s: ", ".join(f"0x{b:02x}" for b in s.encode()),
    "octal": lambda s: "".join(f"\\{b:03o}" for b in s.encode()),
    "octal in json": lambda s: escaped("".join(f"\\{b:03o}" for b in s.encode())),
    "list of bytes": lambda s: str(list(s.encode())),
    "list of bytes without blanks": lambda s: json.dumps(list(s.encode()), separators=(",", ":")),
    "quoted-printable": lambda s: quopri.encodestring(s.encode(), quotetabs=True).decode(),
    "all quoted-printable": lambda s: "".join(f"={b:02X}" for b in s.encode()),
    "base32": base32_of,
    "base32 behind 3": lambda s: base32_of("xyz" + s + "z").rstrip("="),
    "base32 in json": lambda s: escaped(base32_of(s)),
    "utf-16 in hexadecimal": lambda s: s.encode("utf-16-le").hex(),
    "code points": lambda s: " ".join(f"U+{ord(c):04X}" for c in s),
}


def left(secret: str) -> list[str]:
    """The parts of a secret that must not be seen: whole if it is short, else any eight characters of it."""
    return [secret] if len(secret) < 12 else [secret[i : i + 8] for i in range(len(secret) - 7)]


def leaks(form: str, secret: str, core: str) -> str | None:
    """What is wrong with the redacted answer of a target that repeats this form. `core`: without signs at its ends."""
    said = redact(f'before: "{form}", after.'.encode(), (secret, "another-secret-1"))
    if REDACTED not in said:
        return "nothing was cut"
    if not said.startswith(b'before: "') or not said.endswith(b", after."):
        return f"too much was cut: {said!r}"
    if any(part.encode() in said for each in (core, core.upper(), core.lower()) for part in left(each)):
        return f"too little was cut: {said!r}"
    return None


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_secret_is_cut_however_it_is_encoded(encoder: str) -> None:
    """Also in upper or lower case; what stands around it is kept."""
    found = {}
    for secret in SECRETS:
        form, core = ENCODERS[encoder](secret), ENCODERS[encoder](secret.strip(string.punctuation))
        for each in {form, form.upper(), form.lower()} if encoder != "json in base64" else {form}:
            wrong = leaks(each, secret, core)
            if wrong is not None:
                found[secret, each] = wrong
    assert found == {}


@pytest.mark.parametrize("secret", [s for s in SECRETS if len(s) >= 12])
def test_base64_in_lines_hides_no_secret(secret: str) -> None:
    """Wherever the secret stands in a longer text, and wherever the lines break."""
    for before in range(50, 60):
        whole = base64.b64encode(b"x" * before + secret.encode() + b"y" * 50).decode()
        inside = whole[-(-before * 8 // 6) + 1 : (before + len(secret.encode())) * 8 // 6]
        said = redact("\n".join(whole[i : i + 19] for i in range(0, len(whole), 19)).encode(), (secret,))
        joined = said.replace(b"\n", b"").decode()
        assert REDACTED.decode() in joined
        assert [part for part in left(inside) if part in joined] == []


@pytest.mark.parametrize("encoder", ["plain", "utf-16-le", "utf-16-be", "latin-1"])
@pytest.mark.parametrize("secret", ["gr\u00fcne/aus+k\u00f6ln", "canary/one+two&three"])
def test_other_character_sets_hide_no_secret(encoder: str, secret: str) -> None:
    """Bytes that are shown as replacement characters stand between the others."""
    said = redact(f"<{secret}>".encode("utf-8" if encoder == "plain" else encoder), (secret,))
    assert REDACTED in said
    assert len(said) < len(REDACTED) + 8


def hexdump(raw: bytes) -> str:
    """As `hexdump -C`."""
    rows = [(i, raw[i : i + 16]) for i in range(0, len(raw), 16)]
    return "\n".join(f"{i:08x}  {r[:8].hex(' '):23}  {r[8:].hex(' '):23}  |{printable(r)}|" for i, r in rows)


def xxd(raw: bytes) -> str:
    """As `xxd`."""
    rows = [(i, raw[i : i + 16]) for i in range(0, len(raw), 16)]
    return "\n".join(f"{i:08x}: {r.hex(' ', -2):39}  {printable(r)}" for i, r in rows)


def printable(raw: bytes) -> str:
    return "".join(chr(b) if 0x20 <= b < 0x7F else "." for b in raw)


@pytest.mark.parametrize(
    "dump", [hexdump, xxd, lambda raw: raw.hex(":"), lambda raw: json.dumps({"dump": hexdump(raw)})]
)
@pytest.mark.parametrize("secret", ["c4nary-One2two3three4four", "sk_live_51H8xYzAbCdEfGhIjKlMnOpQrStUv"])
def test_no_dump_shows_a_secret(dump: Callable[[bytes], str], secret: str) -> None:
    """Neither its columns of digits nor that of text, wherever the lines break."""
    for before in range(16):
        said = redact(dump(b"x" * before + b"authorization: " + secret.encode() + b" ok").encode(), (secret,)).decode()
        assert "(secret)" in said
        digits = "".join(c for c in said.lower() if c in "0123456789abcdef")
        assert not [part for part in left(secret) if part in said or part.encode().hex() in digits]


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ("Bearer c4nary-One2two", "c4nary-One2two"),
        ("Token token=c4nary-One2two", "c4nary-One2two"),
        ("ApiKey c4nary-One2two", quote("c4nary/One2two").replace("/", "-")),
        ("Basic " + base64.b64encode(b"operator:c4nary-One2").decode(), "operator:c4nary-One2"),
        ("basic " + base64.b64encode(b"operator:pw%1").decode().rstrip("="), "pw%1"),
        ("Basic " + base64.b64encode(b"operator:c4nary-One2").decode(), html.escape("c4nary-One2")),
        ("theme=dark; session=c4nary-One2two; lang=de", "c4nary-One2two"),
        ("session=c4naryOne2two;theme=dark", base64_of("c4naryOne2two")),
        ("Digest username=u, response='c4naryOne2two99'", "c4naryOne2two99"),
        ("operator:c4nary-One2two", "c4nary-One2two"),
    ],
)
def test_a_part_that_is_a_secret_itself_is_cut(secret: str, said: str) -> None:
    """Targets repeat the token without its scheme, the password that they decoded, one of the values."""
    kept = redact(f"invalid credential <{said}>, sorry".encode(), (secret,)).decode()
    assert kept.startswith("invalid credential <(secret)")
    assert len(kept) <= len("invalid credential <(secret)w==>, sorry")


@pytest.mark.parametrize("secret", ["Bearer x", "Basic !!!", "Basic Zg==", "a=b; c=d", "=", ":", " ", "Basic w7=8"])
def test_short_and_odd_parts_are_no_secrets(secret: str) -> None:
    """They would turn up by chance."""
    text = b"Bearer of bad news: a=b, c=d, Basic knowledge"
    assert redact(text, (secret,)) == text


def test_a_part_of_a_secret_is_cut_as_well() -> None:
    """A target that repeats the beginning, or whose answer breaks off within it; and an excerpt that ends within it."""
    assert redact(b"unknown key " + LONG[:60].encode() + b"...", (LONG,)).count(LONG[:12].encode()) == 0
    assert redact(b"unknown key canary/one+t", ("canary/one+two&three",)) == b"unknown key " + REDACTED
    secret = "canary/one+two&three"
    for length in range(10, len(secret)):
        assert redact(secret[:length].encode(), (secret,)).strip(b"+&") == REDACTED, "an answer of nothing else"
    for shown in range(1990, 2048):
        content = b"." * 2000 + quote(secret, safe="").encode() + b"." * 2000
        said = redact(content, (secret,), shown)
        assert said in (b"." * min(shown, 2000), b"." * 2000 + REDACTED, b"." * 2000 + REDACTED + said[2008:])
        assert b"canary" not in said
        assert len(said) <= shown + len(REDACTED)


def test_what_is_no_secret_is_kept() -> None:
    """Short secrets, other texts, and texts that look like escapes."""
    text = b'{"state": "100% of 4711 &amp; \\u00e9 %zz &nope; are well", "b64": "aGVsbG8gd29ybGQsIGhvdyBhcmUgeW91"}'
    assert redact(text, ()) == text
    assert redact(text, ("abc", "canary/one+two&three", LONG)) == text
    assert redact(text, (), 10) == text[:10]


@pytest.mark.parametrize(
    "piece", [b"%25", b"%2525252F", b"\\", b"\\u0041", b"&amp;", b"&#65;", b"QUJD", b"A", b"\0", b"%41\\x41&#x41;"]
)
def test_no_answer_makes_it_slow(piece: bytes) -> None:
    """64 KiB of the worst with long secrets take some milliseconds, because only what may be shown is looked at."""
    secrets = tuple(f"{i}{LONG * 20}" for i in range(20))
    content = piece * (64 * 1024 // len(piece))
    redact(content, secrets, 2048)
    started = time.process_time()
    redact(content, secrets, 2048)
    assert time.process_time() - started < 0.1
    assert LOOK_AHEAD < 2048
