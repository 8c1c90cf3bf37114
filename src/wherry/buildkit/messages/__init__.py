"""BuildKit's messages."""
