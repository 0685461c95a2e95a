"""Step 7. Speech units to sound; usable without the server."""
