"""One module per command: read options, make one call to the API or the database, print. No engine logic is here."""
