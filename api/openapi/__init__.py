"""The API reference: `/openapi.json` and the page `/docs`. No request is served or validated from here."""
