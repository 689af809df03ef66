"""Reads that span collections, each bounded: for the API, `explain`, `verify`, commands and limits. Nothing writes here."""
