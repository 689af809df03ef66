"""The REST API: parse, one call, render. No rule of the engine lives here."""
