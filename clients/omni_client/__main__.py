"""`python -m omni_client`, the SDK's command line for an installation without the server's."""

from omni_client.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
