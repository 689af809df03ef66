"""Which addresses alerts may be mailed to: the operator names their domains, so that no key mails strangers in his name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

ANY_DOMAIN = ("*",)
MAIL_DOMAIN = re.compile(r"\*|[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*\Z")


# Without % and !: mail servers read `a%b@c` and `b!a@c` as `a@b`, and so mail would leave the allowed domains. Without |, and
# with / and - only behind another character: some hand `|a@c` to a command, `/a@c` to a file, and `-a@c` as an option.
_ADDRESS = re.compile(
    r"(?=[^@]{1,64}@)[A-Za-z0-9#$&'*+=^_`{}~][A-Za-z0-9#$&'*+/=^_`{}~-]*(\.[A-Za-z0-9#$&'*+/=^_`{}~-]+)*"
    r"@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*\Z"
)


def is_mail_address(text: str) -> bool:
    """Whether it is an address, and none that a mail server may take for something else."""
    return _ADDRESS.match(text) is not None


def domain_of(address: str) -> str:
    """The domain of `a@b` or `Name <a@b>`, in lower case."""
    return address.rpartition("@")[2].rstrip(">").lower()


def is_allowed_address(address: str, domains: Collection[str]) -> bool:
    """Whether the domain of the address is one of these, exactly. `*` stands for any."""
    return "*" in domains or domain_of(address) in domains
