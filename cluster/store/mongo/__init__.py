"""The driver: clients, deadlines, errors, documents to values and back, encryption, schema. No query of a collection."""
