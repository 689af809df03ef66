"""A name for a command line: the program and what it works on, without options, which may hold passwords."""

from __future__ import annotations

import re

MAX_WORDS = 3
_SEPARATORS = re.compile(r"\|\||&&|[|;&(){}\n]")
_SENTENCES = re.compile(r"'[^']*\s[^']*'|\"[^\"]*\s[^\"]*\"")
"""Quoted texts with blanks, which name nothing."""
_REDIRECTIONS = re.compile(r"\s*\d?(?:>>?|<)\s*&?\S+")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_EXTENSION = re.compile(r"\.(?:sh|bash|py|pl|rb|php|js)\Z")
_NO_NAME = frozenset({"cd", "test", "[", "[[", "export", "source", ".", "set", "sleep", "umask", "true", ":"})
"""Commands that prepare for the one that matters."""
_WRAPPERS = frozenset({"sudo", "nice", "ionice", "env", "exec", "time", "nohup", "command", "chronic", "setsid"})


def command_name(command: str) -> str:
    """The name, such as `backup`, `php-artisan-schedule-run`; empty if the command names nothing."""
    for simple in _SEPARATORS.split(_REDIRECTIONS.sub(" ", _SENTENCES.sub(" ", command))):
        words = [w.strip("\"'`$") for w in simple.split()]
        while words and (_ASSIGNMENT.match(words[0]) or words[0] in _WRAPPERS):
            words = words[1:]
        if words and words[0] not in _NO_NAME and (name := _name(words)):
            return name
    return ""


def _name(words: list[str]) -> str:
    parts: list[str] = []
    after_option = False
    for word in words:
        if len(parts) == MAX_WORDS:
            break
        # The word behind an option may be its value, and a secret; a path or the name of a file is kept.
        telling = "/" in word or "." in word or not after_option
        if not word.startswith(("-", "+")) and telling and "://" not in word and "=" not in word and "@" not in word:
            part = re.sub(r"[^A-Za-z0-9_]+", "-", _EXTENSION.sub("", word.rstrip("/").rpartition("/")[2])).strip("-")
            if part:
                parts.append(part)
        after_option = word.startswith("-")
    return "-".join(parts)
