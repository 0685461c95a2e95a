"""Offline. A published checkpoint becomes ours, once: streamed, resumable, every tensor accounted for. Serves nothing."""
