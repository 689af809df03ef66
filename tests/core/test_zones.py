"""Time zones: every change of offset, from the locked data."""

from __future__ import annotations

import struct
from importlib.resources import files

import pytest

from cluster.core import zones
from cluster.core.zones import OffsetChange

NAMES = sorted(zones.zone_names())


DAY = 86_400


def recorded(name: str) -> list[OffsetChange]:
    """The changes that a zone's data file names, read by hand (RFC 8536, second block), from 1970 on."""
    data = (files("tzdata") / "zoneinfo" / name).read_bytes()
    _, _, leaps, times, types, letters = struct.unpack(">6l", data[20:44])
    at = 44 + times * 5 + types * 6 + letters + leaps * 8 + sum(struct.unpack(">2l", data[20:28]))
    times, types = struct.unpack(">6l", data[at + 20 : at + 44])[3:5]
    at += 44
    instants = struct.unpack(f">{times}q", data[at : at + 8 * times])
    kinds = data[at + 8 * times : at + 9 * times]
    at += 9 * times
    offsets = [struct.unpack(">l", data[at + 6 * n : at + 6 * n + 4])[0] for n in range(types)]
    found = []
    before = offsets[0]
    for instant, kind in zip(instants, kinds, strict=True):
        if offsets[kind] != before and instant > 0:
            found.append(OffsetChange(instant, before, offsets[kind]))
        before = offsets[kind]
    return found


@pytest.mark.long
def test_every_change_is_found() -> None:
    """The search misses none of the changes in the data of all zones, and none is closer to the next than six days."""
    count = 0
    for name in NAMES:
        known = recorded(name)
        at = 0
        for change in known:
            assert zones.next_change(name, at, change.at) == change, name
            assert zones.last_change(name, change.at, 1) == change, name
            assert change.at - at > 6 * DAY or at == 0, name
            at = change.at
        count += len(known)
    assert count > 10_000


def test_zones_come_from_the_locked_data() -> None:
    """Names that only some machines have are refused, so that nodes cannot disagree."""
    assert {"UTC", "Europe/Berlin", "US/Eastern"} <= zones.zone_names()
    for name in ("localtime", "posixrules", "right/Europe/Berlin", "posix/UTC", "Factory", "utc"):
        assert name not in zones.zone_names()
