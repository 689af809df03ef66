"""The words of a job that a search finds it by, and the words of a search. Both are cut from text in the same way.

A word is a run of letters, digits and the marks on them, without regard to case. A word of a search matches the words that
begin with it.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.core.job.definition import Definition

LONGEST_WORD = 64
"""Longer words are cut, in jobs and in searches alike."""
_WORD = re.compile(r"[^\W_]+")


def words_of(text: str) -> set[str]:
    """The words of a text in the form that is compared."""
    # Compatibility forms first (a wide A is an A), and once more because lower case may compose differently.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    words = _WORD.findall(folded) if folded.isascii() else _with_marks(folded)
    return {word[:LONGEST_WORD] for word in words}


def _with_marks(text: str) -> list[str]:
    """The words of a text that may have marks: vowel signs of Hindi or Thai, an accent that no single letter has."""
    spaced = "".join(c if c.isalnum() or unicodedata.category(c).startswith("M") else " " for c in text)
    return [word for word in spaced.split() if any(c.isalnum() for c in word)]


def job_words(job_id: str, definition: Definition) -> list[str]:
    """The words of a job's id, name, description, URL and tags, in order."""
    texts = (job_id, definition.name or "", definition.description or "", definition.url, *definition.tags)
    return sorted(words_of(" ".join(texts)))


def wanted_words(text: str) -> tuple[str, ...]:
    """The words of a search, the longest first. A word that another one begins with is left out: that one is stricter."""
    words = sorted(words_of(text), key=lambda w: (-len(w), w))
    return tuple(w for i, w in enumerate(words) if not any(longer.startswith(w) for longer in words[:i]))


def after_prefix(prefix: str) -> str:
    """A text behind every text that begins with `prefix`, in the order of code points."""
    return prefix + "\U0010ffff"
