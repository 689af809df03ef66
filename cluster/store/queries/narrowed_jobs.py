"""How a list finds the jobs that meet its conditions: those of one condition that few jobs meet, or all in the list's order.

Whether few jobs meet a condition is counted in its index, up to a bound, and taken for true for some seconds: it decides how a
page is found, and not what is on it. Among the jobs with a tag or with a word, an index
has them in the order of their names, and of their creation; the other conditions are then looked at in each job.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster.store.mongo.operation import operation
from cluster.store.queries.job_filter import selective

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database, Document
    from cluster.store.queries.job_filter import JobFilter

FEW = 1500
"""So many jobs are read and sorted by MongoDB within some 10 ms."""
MANY = 10_000
"""So many are read and sorted within some 40 ms: where a walk in order has found too few jobs that match."""
COUNTED_MS = 10_000
"""How long a count is taken for true: the pages of one walk, and the lists of several people, do not count again."""
COUNTS_KEPT = 1000
WORDS_COUNTED = 4
"""Of so many words of a search it is counted how many jobs have them."""
MOST_WORDS = 4
"""A prefix of a search is walked if no more words than this begin with it."""
APART = 1_000_000
"""No list has so many jobs. A limit between two conditions makes MongoDB take the index of the first one."""
ALONE = ("failing", "by_failing", "by_host")
"""Only one condition can be answered by these indexes. So no limit is needed, and MongoDB matches jobs as they are stored."""
BY_TAG, BY_WORD = "by_tag_and_age", "by_word_and_age"
WALKS = {
    BY_TAG: {"createdAt": BY_TAG, "notActive": BY_TAG, "name": "by_tag_and_name"},
    BY_WORD: {"createdAt": BY_WORD, "notActive": BY_WORD, "name": "by_word_and_name"},
}
"""The indexes that have an order among the jobs that meet a condition, by the index that the condition is counted in."""


_counts: dict[str, tuple[int, bool]] = {}
"""When it was counted, and whether no more jobs met the condition, by the database, the condition and the bound."""


@dataclass(frozen=True, slots=True)
class Narrowing:
    """A condition and the index that answers it (None: two do). `of`: the condition of the filter that it stands for, if it
    is another one.
    """

    index: str | None
    condition: Document
    of: Document | None = None


async def narrowest(db: Database, f: JobFilter, now_ms: int) -> Narrowing | None:
    """A condition that is known to be met by few jobs. None: there is none. Raises `StoreError`."""
    for narrowing in _promising(f):
        if await meets(db, narrowing, FEW, now_ms):
            return narrowing
    return None


async def sortable(db: Database, f: JobFilter, now_ms: int) -> Narrowing | None:
    """A condition that is met by no more jobs than may be sorted, if walks have found too few. None: there is none."""
    for narrowing in _promising(f):
        if await meets(db, narrowing, MANY, now_ms):
            return narrowing
    return None


async def ways(db: Database, f: JobFilter, order: str) -> list[Narrowing]:
    """The conditions of a filter whose jobs an index has in an order: those on tags, then those on words."""
    found = _promising(f)
    walks = [await walkable(db, n, order) for index in WALKS for n in found if n.index == index]
    return [way for way in walks if way is not None]


def _promising(f: JobFilter) -> list[Narrowing]:
    """Those of its conditions that are counted: of a search with many words the longest ones only, else it costs more than
    it saves.
    """
    found = selective(f)
    words = [n for n in found if n[0] == BY_WORD]
    return [Narrowing(*n) for n in found if n not in words[WORDS_COUNTED:]]


async def meets(db: Database, narrowing: Narrowing, most: int, now_ms: int) -> bool:
    """Whether no more than `most` jobs meet the condition, as of some seconds ago at most."""
    key = f"{db.api.name} {most} {narrowing.condition}"
    known = _counts.get(key)
    if known is not None and abs(now_ms - known[0]) <= COUNTED_MS:
        return known[1]
    are_few = await _are_at_most(db, narrowing, most)
    if len(_counts) >= COUNTS_KEPT:
        _counts.clear()
    _counts[key] = now_ms, are_few
    return are_few


async def _are_at_most(db: Database, narrowing: Narrowing, most: int) -> bool:
    if narrowing.index == BY_WORD:
        # Jobs with a prefix are counted by reading them, those with a word in the index alone: of a whole word they tell.
        word = {"words": narrowing.condition["words"]["$elemMatch"]["$gte"]}
        if await _count(db, Narrowing(BY_WORD, word), most + 1) > most:
            return False
    return await _count(db, narrowing, most + 1) <= most


async def _count(db: Database, narrowing: Narrowing, most: int) -> int:
    pipeline: list[Document] = [{"$match": narrowing.condition}, {"$limit": most}, {"$count": "jobs"}]
    with operation():
        found = await (await db.api["jobs"].aggregate(pipeline, **_hint(narrowing.index))).to_list()
    return int(found[0]["jobs"]) if found else 0


async def read(db: Database, narrowing: Narrowing, *stages: Document) -> list[Document]:
    """What these stages of a pipeline make of the jobs that meet the condition, in one answer of the database.

    The first stage says what else they must meet.
    """
    if narrowing.index in ALONE:
        both: Document = {"$and": [narrowing.condition, stages[0]["$match"]]}
        pipeline: list[Document] = [{"$match": both}, *stages[1:]]
    else:
        pipeline = [{"$match": narrowing.condition}, {"$limit": APART}, *stages]
    with operation():
        cursor = await db.api["jobs"].aggregate(pipeline, batchSize=APART, **_hint(narrowing.index))
        found: list[Document] = await cursor.to_list()
    return found


async def walkable(db: Database, narrowing: Narrowing, order: str) -> Narrowing | None:
    """The condition with the index that has an order among the jobs that meet it. None: no index has."""
    index = WALKS.get(narrowing.index or "", {}).get(order)
    if index is None or narrowing.index != BY_WORD:
        return None if index is None else Narrowing(index, narrowing.condition)
    words = await _words_that_begin(db, narrowing)
    return Narrowing(index, {"words": {"$in": words}}, narrowing.condition) if words else None


async def _words_that_begin(db: Database, narrowing: Narrowing) -> list[str]:
    """The words that begin with the prefix of a condition; none if they are more than `MOST_WORDS`."""
    bounds = narrowing.condition["words"]["$elemMatch"]
    first, end = bounds["$gte"], bounds["$lt"]
    words: list[str] = []
    while len(words) <= MOST_WORDS:
        with operation():
            query = {"words": {"$elemMatch": {"$gte": first, "$lt": end}}}
            d: Any = await db.api["jobs"].find_one(query, {"words": 1}, hint=narrowing.index)
        if d is None:
            return words
        words.append(min(word for word in d["words"] if first <= word < end))
        first = words[-1] + "\0"
    return []


def _hint(index: str | None) -> Document:
    return {} if index is None else {"hint": index}
