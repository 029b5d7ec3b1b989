"""Training by WORLD processes of one thread each that average their gradients: on 2 cores much faster than one process of
two threads. Every run of as many steps gives the same weights; a run that was stopped goes on from its last checkpoint."""
import math
import os
import socket
import time

import numpy as np
import torch
import torch.distributed as dist

WORLD, SAVE_EVERY = 2, 250


def spawn(function, *arguments):
    """function(rank, *arguments) in each of WORLD processes."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(start, (port, function, arguments), nprocs=WORLD)


def start(rank, port, function, arguments):
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORLD)
    function(rank, *arguments)
    dist.barrier()


def bfloat16(wanted=True):
    """Mixed precision: a fifth to a third faster for the VAE on CPUs with AVX512-BF16, slower for the UNet."""
    return torch.autocast("cpu", torch.bfloat16, enabled=wanted)


def average(parameters, figures):
    """The mean over the processes: of the gradients in place, of the list of figures as the result."""
    flat = torch.cat([p.grad.flatten() if p.grad is not None else torch.zeros(p.numel()) for p in parameters]
                     + [torch.tensor(figures)])
    dist.all_reduce(flat)
    flat /= WORLD
    *gradients, figures = flat.split([p.numel() for p in parameters] + [len(figures)])
    for p, g in zip(parameters, gradients):
        p.grad = g.view_as(p)
    return figures.tolist()


def train(rank, parameters, loss_of, steps, rate, checkpoint, decay=0.998, save=None):
    """AdamW, cosine rate, gradients clipped at norm 1. loss_of(progress 0..1) is one batch's loss. At the end the parameters are
    their exponential mean. `checkpoint` is a file; `save()` is called by rank 0 with the mean in the parameters at each."""
    name = os.path.basename(checkpoint).split(".")[0]
    optimiser = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.99), weight_decay=1e-3)
    mean, first, seen, begin = [p.detach().clone() for p in parameters], 0, [], time.process_time()
    if os.path.exists(checkpoint):
        state = torch.load(checkpoint)
        for p, m, now, then in zip(parameters, mean, state["parameters"], state["mean"]):
            p.data.copy_(now)
            m.copy_(then)
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
        torch.manual_seed(1000 * first + rank)
    dist.barrier()

    def swap():
        for p, m in zip(parameters, mean):
            p.data, m.data = m.data, p.data

    for step in range(first, steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 50) * max(0.01, 0.5 * (1 + math.cos(math.pi * step / steps)))
        loss = loss_of(step / steps)
        optimiser.zero_grad()
        loss.backward()
        seen += average(parameters, [loss.item()])
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        torch._foreach_lerp_(mean, [p.detach() for p in parameters], 1 - min(decay, (1 + step) / (10 + step)))
        done = step + 1
        if rank == 0 and (done % SAVE_EVERY == 0 or done == steps):
            print(f"{name} {done} of {steps}: loss {np.mean(seen[-SAVE_EVERY:]):.4f}, {time.process_time() - begin:.0f} s CPU "
                  f"in each process, {time.strftime('%H:%M:%S')}", flush=True)
            torch.save(dict(parameters=parameters, mean=mean, optimiser=optimiser.state_dict(), step=done), checkpoint + ".part")
            os.replace(checkpoint + ".part", checkpoint)
            if save:
                swap()
                save()
                swap()
    swap()
