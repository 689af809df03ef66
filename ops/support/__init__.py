"""What several commands share: API client, embedded MongoDB, output, ending with the parent. Nothing here is a command."""
