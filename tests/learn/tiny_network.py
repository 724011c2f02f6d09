"""Backbones small enough to train in a test; named as ``tiny_network:<attribute>``."""

import torch
from torch import nn


class TinyNetwork(nn.Module):
    image_size = 16
    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, 12),
        )

    def forward(self, x):
        return self.layers(x)


def not_a_network():
    return 3


class GivesMaps(nn.Module):
    image_size = 16

    def forward(self, x):
        return torch.relu(x)
