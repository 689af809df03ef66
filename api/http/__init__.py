"""What every request passes: parsing, authentication, rate limits, idempotency, errors. Nothing here knows a resource."""
