"""Say here what lives in this package and what never does."""
