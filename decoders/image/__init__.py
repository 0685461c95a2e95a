"""Step 7. Picture codes to a picture; usable without the server."""
