"""What operators run on a live database: migration, key rotation, health. Safe to interrupt and repeat; not for engine steps."""
