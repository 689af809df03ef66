"""One module per resource: parse the request, make one call, render the result. Rules of the engine are in `cluster`."""
