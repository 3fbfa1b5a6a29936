"""What is done to queries, keys and scores because of where their tokens stand: a file a kind, and their table."""
