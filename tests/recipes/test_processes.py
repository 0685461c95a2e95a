"""Two processes that train as one."""

import multiprocessing
import os
from multiprocessing.connection import Connection

import torch


def learn(number: int, port: str, tell: Connection) -> None:
    """One process of two: a gradient of its own, and another clock."""
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    from recipes.processes import agreed, join, share_gradients

    assert join() == number
    heard, unheard = torch.zeros(2, requires_grad=True), torch.zeros(1, requires_grad=True)
    heard.grad = torch.tensor([1.0, 3.0]) * (1 + number)
    if number:
        unheard.grad = torch.ones(1)
    share_gradients([heard, unheard])
    assert unheard.grad is not None
    tell.send((heard.grad.tolist(), unheard.grad.tolist(), agreed(10.0 + number)))


def test_two_processes_go_on_with_the_mean_of_their_gradients_and_one_clock() -> None:
    """Catches processes that drift apart: sums for means, a parameter only one has a gradient for, budgets that end twice."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(2)]
    workers = [context.Process(target=learn, args=(number, port, pipe[1])) for number, pipe in enumerate(pipes)]
    for worker in workers:
        worker.start()
    told = [pipe[0].recv() if pipe[0].poll(120) else None for pipe in pipes]
    for worker in workers:
        worker.join(60)
    assert told == [([1.5, 4.5], [0.5], 10.0)] * 2
