"""Time zones whose clocks change in odd ways."""

from __future__ import annotations

# Whole days skipped, changes of half an hour and of three, at midnight, for Ramadan, and with winter as the exception.
ODD_ZONES = [
    "Pacific/Apia",
    "Pacific/Kiritimati",
    "Kwajalein",
    "Antarctica/Casey",
    "Antarctica/Troll",
    "Australia/Lord_Howe",
    "Asia/Ust-Nera",
    "Africa/Casablanca",
    "Asia/Gaza",
    "Asia/Beirut",
    "America/Sao_Paulo",
    "America/Havana",
    "Europe/Dublin",
    "Asia/Pyongyang",
]
