"""Settings: every wrong one is named, all together, and secrets are not quoted."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

import pytest

from cluster.core.errors import ConfigurationError
from config.settings import Settings, is_loopback, load_settings

NAMES = [
    "MONGODB_URI", "DB_NAME", "HOST", "PORT", "HORAE_NODES", "HORAE_DATA_DIR", "HORAE_API_KEYS", "HORAE_ALLOWED_NETWORKS",
    "HORAE_LEADER_LEASE_SECONDS", "HORAE_LOOKAHEAD_SECONDS", "HORAE_BATCH_LEASE_SECONDS", "HORAE_MAX_IN_FLIGHT",
    "HORAE_RETENTION_DAYS", "HORAE_LOG_FORMAT", "HORAE_METRICS_PORT", "HORAE_TRUSTED_PROXIES", "HORAE_MAX_CONNECTIONS",
    "HORAE_MAX_CONNECTIONS_PER_ADDRESS", "HORAE_EVENT_VIEWERS",
]  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_mail_domains_are_those_of_the_setting_or_of_the_sender() -> None:
    """Nothing set: no domain at all."""
    assert load_settings(None).allowed_mail_domains == ()
    mailing = {"smtp_host": "mail", "smtp_from": "Horae <horae@Example.com>"}
    assert load_settings(None, **mailing).allowed_mail_domains == ("example.com",)
    assert load_settings(None, **mailing, mail_domains=" A.example , b.example,").allowed_mail_domains == (
        "a.example",
        "b.example",
    )
    assert load_settings(None, **mailing, mail_domains="*").allowed_mail_domains == ("*",)


def test_the_defaults_run_an_embedded_database_on_loopback() -> None:
    """With an empty environment."""
    s = load_settings(env_file=None)
    assert (s.uri, s.db_name, s.host, s.port, s.nodes, s.data_dir) == (None, "horae", "127.0.0.1", 5000, 2, ".horae")
    assert (s.leader_lease_seconds, s.lookahead_seconds, s.batch_lease_seconds) == (6, 15, 10)
    assert (s.max_in_flight, s.retention_days, s.log_format) == (256, 7, "console")
    assert s.api_keys == ()
    assert s.allowed_networks == ()
    assert (s.trusted_proxies, s.metrics_port) == ((), None)
    assert (s.max_connections, s.max_connections_per_address) == (1000, 100)
    assert (s.event_viewers, s.viewer_limits) == (50, (50, 50))


def test_viewers_leave_half_of_the_connections_to_requests() -> None:
    """In all, and of one address."""
    few = load_settings(None, max_connections=40, max_connections_per_address=9, event_viewers=30)
    assert few.viewer_limits == (20, 4)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("MONGODB_URI", "localhost:27017", "mongodb://"),
        ("DB_NAME", "a.b", "DB_NAME"),
        ("PORT", "http", "PORT"),
        ("PORT", "70000", "PORT"),
        ("HORAE_NODES", "0", "HORAE_NODES"),
        ("HORAE_ALLOWED_NETWORKS", "10.0.0.0/33", "CIDR"),
        ("HORAE_TRUSTED_PROXIES", "proxy.example.com", "CIDR"),
        ("HORAE_TRUSTED_PROXIES", "10.0.0.1,0.0.0.0/0", "every address"),
        ("HORAE_METRICS_PORT", "0", "HORAE_METRICS_PORT"),
        ("HORAE_METRICS_PORT", "5000", "choose another port"),
        ("HORAE_MAX_CONNECTIONS", "1", "HORAE_MAX_CONNECTIONS"),
        ("HORAE_MAX_CONNECTIONS", "50", "HORAE_MAX_CONNECTIONS_PER_ADDRESS"),
        ("HORAE_MAX_CONNECTIONS_PER_ADDRESS", "0", "HORAE_MAX_CONNECTIONS_PER_ADDRESS"),
        ("HORAE_API_KEYS", "nobody", "name:key:scope"),
        ("HORAE_API_KEYS", "me:0123456789abcdef:owner", "name:key:scope"),
        ("HORAE_API_KEYS", "me:short:admin", "16 characters"),
        ("HORAE_API_KEYS", "me:0123456789abcdef:read,me:0123456789abcdef:read", "twice"),
        ("HOST", "0.0.0.0", "HORAE_API_KEYS"),
        ("HORAE_LEADER_LEASE_SECONDS", "1.5", "HORAE_LEADER_LEASE_SECONDS"),
        ("HORAE_LEADER_LEASE_SECONDS", "13", "HORAE_LOOKAHEAD_SECONDS"),
        ("HORAE_LOOKAHEAD_SECONDS", "8", "HORAE_LOOKAHEAD_SECONDS"),
        ("HORAE_BATCH_LEASE_SECONDS", "2", "HORAE_BATCH_LEASE_SECONDS"),
        ("HORAE_MAX_IN_FLIGHT", "1", "HORAE_MAX_IN_FLIGHT"),
        ("HORAE_RETENTION_DAYS", "-1", "HORAE_RETENTION_DAYS"),
        ("HORAE_LOG_FORMAT", "xml", "HORAE_LOG_FORMAT"),
        ("HORAE_MAIL_DOMAINS", "example.com,ops@example.org", "is not a domain"),
        ("HORAE_MAIL_DOMAINS", "*.example.com", "is not a domain"),
    ],
)
def test_an_invalid_setting_is_named_with_its_fix(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    """By its variable."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(env_file=None)
    assert any(words in p for p in caught.value.problems), caught.value.problems


def test_all_invalid_settings_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one message."""
    for name, value in (("PORT", "x"), ("HORAE_NODES", "-1"), ("HORAE_LOG_FORMAT", "xml"), ("MONGODB_URI", "x")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(env_file=None)
    assert len(caught.value.problems) == 4


def test_secrets_are_never_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in an error nor when the settings are printed."""
    monkeypatch.setenv("HORAE_API_KEYS", "me:canary-canary-canary:owner")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(env_file=None)
    assert "canary" not in str(caught.value)
    monkeypatch.setenv("HORAE_API_KEYS", "me:canary-canary-canary:admin")
    monkeypatch.setenv("MONGODB_URI", "mongodb://user:canary@db/")
    assert "canary" not in repr(load_settings(env_file=None))


def test_lists_of_keys_and_networks_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Separated by commas; a key may contain colons."""
    monkeypatch.setenv("HORAE_API_KEYS", "ci:0123456789:abcdef:write, ops:fedcba9876543210:admin")
    monkeypatch.setenv("HORAE_ALLOWED_NETWORKS", "127.0.0.0/8, fd00::/8")
    monkeypatch.setenv("HOST", "0.0.0.0")
    s = load_settings(env_file=None)
    assert [(k.name, k.key.get_secret_value(), k.scope) for k in s.api_keys] == [
        ("ci", "0123456789:abcdef", "write"),
        ("ops", "fedcba9876543210", "admin"),
    ]
    assert s.allowed_networks == (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("fd00::/8"))


@pytest.mark.parametrize(("host", "local"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("db", False)])  # fmt: skip
def test_only_loopback_addresses_need_no_keys(host: str, local: bool) -> None:
    """An address that other machines can reach is none."""
    assert is_loopback(host) is local


def test_any_setting_can_be_read_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As containers receive their secrets; without the end of the line."""
    (tmp_path / "uri").write_text("mongodb://u:hidden@db/\n")
    (tmp_path / "keys").write_text("me:0123456789abcdef:admin\n")
    monkeypatch.setenv("MONGODB_URI_FILE", str(tmp_path / "uri"))
    monkeypatch.setenv("HORAE_API_KEYS_FILE", str(tmp_path / "keys"))
    s = load_settings(env_file=None)
    assert s.uri == "mongodb://u:hidden@db/"
    assert [k.name for k in s.api_keys] == ["me"]


def test_problems_with_files_are_reported_with_all_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A missing file, a setting that is set twice, invalid content; the content is not quoted."""
    (tmp_path / "keys").write_text("me:hidden:admin")
    monkeypatch.setenv("MONGODB_URI_FILE", str(tmp_path / "missing"))
    monkeypatch.setenv("HORAE_API_KEYS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("PORT", "5000")
    monkeypatch.setenv("PORT_FILE", str(tmp_path / "keys"))
    with pytest.raises(ConfigurationError) as caught:
        load_settings(env_file=None)
    text = "\n".join(caught.value.problems)
    for words in ("MONGODB_URI_FILE: ", "No such file", "PORT and PORT_FILE are both set", "shorter than 16"):
        assert words in text
    assert "hidden" not in text


def test_the_readme_lists_every_setting() -> None:
    """config/README.md has a row for each setting, and no others."""
    text = (Path(__file__).parents[2] / "config" / "README.md").read_text()
    listed = re.findall(r"^\| `([A-Z_]+)` \|", text, re.MULTILINE)
    assert sorted(listed) == sorted(str(f.validation_alias) for f in Settings.model_fields.values())
