"""Which addresses alerts may be mailed to: the operator names their domains, so that no key mails strangers in his name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

ANY_DOMAIN = ("*",)
MAIL_DOMAIN = re.compile(r"\*|[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*\Z")


def domain_of(address: str) -> str:
    """The domain of `a@b` or `Name <a@b>`, in lower case."""
    return address.rpartition("@")[2].rstrip(">").lower()


def is_allowed_address(address: str, domains: Collection[str]) -> bool:
    """Whether the domain of the address is one of these, exactly. `*` stands for any."""
    return "*" in domains or domain_of(address) in domains
