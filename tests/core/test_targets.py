"""Which URLs and addresses a job may target."""

from __future__ import annotations

import ipaddress
import socket

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from cluster.core.targets import InvalidTarget, address_allowed, check_target, inet_aton, parse_target

DENIED = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "168.63.129.16",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1",
    "192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255",
    "240.0.0.1", "255.255.255.255",
    "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::8.8.8.8",
    "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:7f00:1::", "2001:2::1",
    "2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::1", "2002:808:808::1", "3fff::1", "5f00::1", "fc00::1",
    "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "4000::1", "8000::1",
]  # fmt: skip
PUBLIC = ["1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.32.0.1", "192.0.1.1", "192.167.1.1", "198.20.0.1",
          "223.255.255.255", "2606:4700:4700::1111", "2001:4860:4860::8888", "2a00::1", "::ffff:8.8.8.8"]  # fmt: skip


@pytest.mark.parametrize("address", DENIED)
def test_denied(address: str) -> None:
    """Everything that is not the public internet is denied, tunnels to it and forms of it included."""
    assert not address_allowed(ipaddress.ip_address(address), ())


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    """The public internet is allowed, up to the edges of what is denied."""
    assert address_allowed(ipaddress.ip_address(address), ())


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_no_less_strict_than_python(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """What Python's own tables call private, reserved, multicast or not global is denied here as well."""
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is None and (not address.is_global or address.is_multicast or address.is_reserved):
        assert not address_allowed(address, ())


def test_allowed_networks() -> None:
    """Allowed networks open what they hold, its mapped form included, and nothing else."""
    networks = (ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00::/8"))
    for address, is_allowed in {
        "10.1.2.3": True, "::ffff:10.1.2.3": True, "10.2.0.1": False, "fd00::1": True, "fc00::1": False,
        "64:ff9b::a01:203": False, "8.8.8.8": True,
    }.items():  # fmt: skip
        assert address_allowed(ipaddress.ip_address(address), networks) is is_allowed, address
    assert not address_allowed(ipaddress.ip_address("fe80::1%eth0"), (ipaddress.ip_network("fe80::/10"),))


@pytest.mark.parametrize(
    ("networks", "address", "is_allowed"),
    [
        ("64:ff9b::/96", "64:ff9b::8.8.8.8", True),
        ("64:ff9b::/96", "64:ff9b::10.0.0.1", False),
        ("64:ff9b::/96", "64:ff9b::169.254.169.254", False),
        ("64:ff9b::/96 10.0.0.0/8", "64:ff9b::10.0.0.1", True),
        ("10.0.0.0/8", "64:ff9b::10.0.0.1", False),
        ("::/0", "::ffff:10.0.0.1", False),
        ("::/0", "::ffff:8.8.8.8", True),
        ("::/0", "64:ff9b::127.0.0.1", False),
        ("::/0", "fc00::1", True),
    ],
)
def test_what_is_inside_is_judged_too(networks: str, address: str, is_allowed: bool) -> None:
    """Whoever allows NAT64, or all of IPv6, has not allowed the IPv4 addresses that hide in it."""
    found = tuple(ipaddress.ip_network(n) for n in networks.split())
    assert address_allowed(ipaddress.ip_address(address), found) is is_allowed


@pytest.mark.parametrize(
    ("url", "host_port"),
    [
        ("https://API.Example.com/webhook", "api.example.com:443"),
        ("http://a.example:8080/x?y=%20z", "a.example:8080"),
        ("http://a.example:/", "a.example:80"),
        ("http://localhost", "localhost:80"),
        ("http://under_score.example/", "under_score.example:80"),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example:443"),
        ("http://8.8.8.8/", "8.8.8.8:80"),
        ("http://[2606:4700:0:0::1111]:81/", "[2606:4700::1111]:81"),
        ("http://a.example/@b", "a.example:80"),
        ("http://a1.2b/", "a1.2b:80"),
    ],
)
def test_good_urls(url: str, host_port: str) -> None:
    """Well-formed URLs, and the name that lanes go by: lower case, always with its port."""
    assert check_target(url, ()).host_port == host_port


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "1 to 2048"),
        ("https://a.example/" + "x" * 2048, "1 to 2048"),
        ("ftp://a.example/", "http"),
        ("file:///etc/passwd", "http"),
        ("a.example/x", "http"),
        ("//a.example/", "http"),
        ("http:a.example", "contain a host"),
        ("http:///x", "contain a host"),
        ("http://:80/", "contain a host"),
        ("http://a..example/", "contain a host"),
        ("http://-a.example/", "contain a host"),
        ("http://%6cocalhost/", "contain a host"),
        ("http://%31%32%37.0.0.1/", "ends in a number"),
        ("http://" + "a" * 64 + ".example/", "contain a host"),
        ("http://user@a.example/", "user"),
        ("http://user:pass@a.example/", "user"),
        ("http://@a.example/", "user"),
        ("http://8.8.8.8@127.0.0.1/", "user"),
        ("http://a.example/#x", "fragment"),
        ("http://a.example#@127.0.0.1/", "fragment"),
        ("http://a.example:0/", "port"),
        ("http://a.example:65536/", "URL"),
        ("http://a.example:x/", "URL"),
        ("http://a.example:80:90/", "URL"),
        ("http://a.example\\@127.0.0.1/", "ASCII"),
        ("http://a.example/ x", "ASCII"),
        ("http://a.example/\r\nX-A: b", "ASCII"),
        ("http://bücher.example/", "punycode"),
        ("http://１２７.0.0.1/", "ASCII"),
        ("http://127。0。0。1/", "ASCII"),
        ("http://①②⑦.0.0.1/", "ASCII"),
        ("http://[::1]evil.example/", "IPv6"),
        ("http://x[::1]/", "IPv6"),
        ("http://[fe80::1%25eth0]/", "IPv6|URL"),
        ("http://[::1", "URL"),
        ("http://[v1.x]/", "IPv6|URL"),
        ("http://[1.2.3.4]/", "IPv6|URL"),
    ],
)
def test_bad_urls(url: str, words: str) -> None:
    """What no job may target, with a sentence that says why."""
    with pytest.raises(InvalidTarget, match=words):
        parse_target(url)


@pytest.mark.parametrize(
    "host",
    [
        "2130706433", "0x7f000001", "0x7F.1", "0177.0.0.1", "017700000001", "127.1", "127.0.1", "127.0.0.1.",
        "0x7f.0x0.0x0.0x1", "00000177.0.0.1", "127.0.0x1", "0", "0x", "3232235777", "0300.0250.1.1", "010.0.0.1",
        "127.000.000.001", "256.1.1.1", "1.2.3.4.5", "127.0.0.999", "foo.127", "foo.0x7f", "4294967296", "08.8.8.8",
        "1.0x", "99999999999999999999",
    ],
)  # fmt: skip
def test_odd_spellings(host: str) -> None:
    """An address in any but its plain spelling is refused, public or not; so is a name that ends in a number."""
    for networks in ((), (ipaddress.ip_network("0.0.0.0/0"),)):
        with pytest.raises(InvalidTarget, match=r"another spelling of|ends in a number"):
            check_target(f"http://{host}/", networks)


@pytest.mark.parametrize("address", [a for a in DENIED if ":" not in a])
def test_literal_addresses_are_checked(address: str) -> None:
    """A literal address that is denied is refused at creation, and the message names the setting that allows it."""
    with pytest.raises(InvalidTarget, match="HORAE_ALLOWED_NETWORKS"):
        check_target(f"http://{address}/", ())
    assert check_target(f"http://{address}/", (ipaddress.ip_network(address),)).address is not None


@given(
    st.lists(
        st.one_of(
            st.integers(0, 2**33).map(str), st.integers(0, 2**33).map(hex), st.integers(0, 300).map("0{:o}".format)
        ),
        min_size=1,
        max_size=5,
    )
)
def test_reads_numbers_as_the_c_library(labels: list[str]) -> None:
    """Every spelling is read as `inet_aton` of the C library reads it."""
    host = ".".join(labels)
    try:
        theirs = ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        theirs = None
    assert inet_aton(host) == theirs


HOSTS = st.one_of(
    st.from_regex(r"[a-z0-9_][a-z0-9._-]{0,40}", fullmatch=True),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map("[{}]".format),
    st.from_regex(r"[0-9a-fx.:\[\]@%-]{1,20}", fullmatch=True),
)
TAILS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7F), max_size=30)


@given(st.sampled_from(["http", "https"]), HOSTS, st.sampled_from(["", ":80", ":8443", ":"]), TAILS)
def test_all_readers_agree(scheme: str, host: str, port: str, tail: str) -> None:
    """A URL that is accepted here names the same host and port to httpx and to yarl, which make the request."""
    url = f"{scheme}://{host}{port}/{tail}"
    try:
        target = parse_target(url)
    except InvalidTarget:
        return
    at = httpx.URL(url)
    assert at.host == target.host_port.rpartition(":")[0].strip("[]") or target.address is not None
    for found in (at.host, URL(str(at), encoded=True).host):
        if target.address is not None:
            assert ipaddress.ip_address(str(found)) == target.address
        else:
            assert found == target.host_port.rpartition(":")[0]
    number = at.port or {"http": 80, "https": 443}[scheme]
    assert target.host_port.endswith(f":{number}")
