"""The original paper's network in PyTorch, as a PyTorch user writes it: compared in benchmarks, an oracle in tests."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional


class BatchInstanceNorm2d(nn.Module):
    """rho * x_batch + (1 - rho) * x_instance, scaled and shifted; PyTorch has no such layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.batchnorm = nn.BatchNorm2d(channels, affine=False)
        self.rho = nn.Parameter(torch.ones(channels))
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rho = self.rho[:, None, None]
        y = rho * self.batchnorm(x) + (1 - rho) * functional.instance_norm(x, eps=1e-5)
        return y * self.gamma[:, None, None] + self.beta[:, None, None]


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "flax_bn": nn.BatchNorm2d,
    "none": lambda _: nn.Identity(),
    "bn": nn.BatchNorm2d,
    "in": lambda channels: nn.InstanceNorm2d(channels, affine=True),
    "bin": BatchInstanceNorm2d,
    "ln": lambda channels: nn.GroupNorm(1, channels),
    "gn": lambda channels: nn.GroupNorm(channels // 4, channels),
}


class Block(nn.Module):
    """Two convolutions and a shortcut, which comes first in the state dict, as in the original paper's code."""

    def __init__(self, norm: Callable[[int], nn.Module], before: int, after: int, stride: int) -> None:
        super().__init__()
        self.shortcut = nn.Sequential()
        if before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride), norm(after))
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1)
        self.bn1 = norm(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1)
        self.bn2 = norm(after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """6n+2 layers under the names of the original paper's code; `norm` builds a layer for so many channels."""

    def __init__(self, norm: Callable[[int], nn.Module], num_blocks: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1)
        self.bn1 = norm(16)
        for letter, before, after in (("A", 16, 16), ("B", 16, 32), ("C", 32, 64)):
            entry = Block(norm, before, after, after // before)
            blocks = [entry, *(Block(norm, after, after, 1) for _ in range(num_blocks - 1))]
            setattr(self, f"blocks_{letter}", nn.Sequential(*blocks))
        self.fc = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.blocks_C(self.blocks_B(self.blocks_A(x)))
        return self.fc(x.mean((2, 3)))
