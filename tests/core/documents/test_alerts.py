"""Alert rules and channels as documents: each fault has its path and a sentence."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from cluster.core.documents.alerts import AlertSpec, ChannelSpec
from cluster.core.documents.job_json import faults_of


@pytest.mark.parametrize(
    ("wrong", "path", "words"),
    [
        ({}, "channels", "required"),
        ({"channels": "ops"}, "channels", "array"),
        ({"channels": ["a b"]}, "channels.0", "characters"),
        ({"channels": ["a", "a"]}, "channels", "twice"),
        ({"channels": ["a"]}, "", "no rule"),
        ({"channels": [], "onDead": True}, "", "no channel"),
        ({"channels": ["a"], "afterFailures": 0}, "afterFailures", "at least 1"),
        ({"channels": ["a"], "afterFailures": True}, "afterFailures", "number"),
        ({"channels": ["a"], "remindAfterSeconds": 5, "onDead": True}, "remindAfterSeconds", "at least 60"),
        ({"channels": ["a"], "onDaed": True}, "onDaed", "unknown"),
    ],
)
def test_each_fault_of_alert_rules_has_its_path_and_a_sentence(wrong: dict[str, object], path: str, words: str) -> None:
    """Each fault has its path and says how to correct it."""
    with pytest.raises(ValidationError) as caught:
        AlertSpec.model_validate(wrong)
    assert any(f.path == path and words in f.message for f in faults_of(caught.value)), faults_of(caught.value)


def test_mail_goes_to_allowed_domains_alone() -> None:
    """Exactly these domains, in any case; each other address is named by its place."""
    context = {"can_mail": True, "mail_domains": ("example.com", "example.org")}
    ChannelSpec.model_validate(
        {"type": "email", "to": ["a@example.com", "o'neil+ops/x.y@EXAMPLE.org"]}, context=context
    )
    wrong = ["a@example.com", "a@evil.example", "a@sub.example.com", "a@example.com.evil.example", "a@xexample.com"]
    with pytest.raises(ValidationError) as caught:
        ChannelSpec.model_validate({"type": "email", "to": wrong}, context=context)
    faults = faults_of(caught.value)
    assert [f.path for f in faults] == ["to.1", "to.2", "to.3", "to.4"]
    assert all("example.com, example.org" in f.message and "HORAE_MAIL_DOMAINS" in f.message for f in faults)
    ChannelSpec.model_validate({"type": "email", "to": wrong}, context={**context, "mail_domains": ("*",)})


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"type": "pager"}, '"webhook"'),
        ({"type": "webhook"}, "must have url"),
        ({"type": "email", "url": "https://api.example.com/"}, "must have to"),
        ({"type": "email", "to": ["nobody"]}, "mail address"),
        ({"type": "email", "to": ["a@b\r\nBcc: c@d"]}, "mail address"),
        # Mail servers read these as an address of another domain, and relay for the operator's machines.
        ({"type": "email", "to": ["stranger%evil.example@example.com"]}, "mail address"),
        ({"type": "email", "to": ["evil.example!stranger@example.com"]}, "mail address"),
        # And these as a command, a file, an option, and as no address at all.
        ({"type": "email", "to": ["|cmd@example.com"]}, "mail address"),
        ({"type": "email", "to": ["/var/mail/x@example.com"]}, "mail address"),
        ({"type": "email", "to": ["-f@example.com"]}, "mail address"),
        ({"type": "email", "to": ["a..b@example.com"]}, "mail address"),
        ({"type": "email", "to": [".a@example.com"]}, "mail address"),
        ({"type": "email", "to": ["a.@example.com"]}, "mail address"),
        ({"type": "email", "to": [f"{'a' * 65}@example.com"]}, "mail address"),
        ({"type": "slack", "url": "http://127.0.0.1/x"}, "127.0.0.1"),
        (
            {"type": "slack", "url": "https://api.example.com/", "signingSecret": "whsec_" + "QUJD" * 8},
            "only requests to a webhook",
        ),
    ],
)
def test_each_fault_of_a_channel_has_a_sentence(wrong: dict[str, object], words: str) -> None:
    """Also the faults of channels, private addresses among them."""
    with pytest.raises(ValidationError) as caught:
        ChannelSpec.model_validate(wrong, context={"networks": (), "can_encrypt": True, "can_mail": True})
    assert any(words in f.message for f in faults_of(caught.value)), faults_of(caught.value)
