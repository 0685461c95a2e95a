"""Step 7. The way out: codes in, plain values out. Imports nothing of omni_server; usable alone."""
