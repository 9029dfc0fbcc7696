"""The only door to the API server: a client that moves JSON, and a watch that survives what servers do."""
