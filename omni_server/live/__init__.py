"""Steps 1 and 8. OpenAI's Live wire over a WebSocket, mapped onto the session of every live door."""

from omni_server.live.door import live_router

__all__ = ["live_router"]
