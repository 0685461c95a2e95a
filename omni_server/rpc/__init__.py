"""Steps 1 and 8. The gRPC door. Protobuf is known here and nowhere else."""

from __future__ import annotations

from omni_server.rpc.server import RpcServer

__all__ = ["RpcServer"]
