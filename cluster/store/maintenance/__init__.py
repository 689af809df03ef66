"""What operators run on a live database: migration, key rotation, health. All of it may be interrupted and repeated."""
