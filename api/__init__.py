"""The REST API. A resource parses the request, makes one call and renders the result; rules of the engine are in `cluster`."""
