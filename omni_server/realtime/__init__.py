"""Steps 1 and 8. The realtime door: OpenAI's live wire over a WebSocket, mapped onto the session of every live door."""

from omni_server.realtime.door import realtime_router

__all__ = ["realtime_router"]
