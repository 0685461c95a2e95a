"""`python -m omni_server`, the same as `omni-server`."""

from omni_server.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
