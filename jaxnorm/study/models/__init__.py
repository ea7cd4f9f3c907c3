"""What is trained: residual networks that are given a normalization to build with and know none by name."""

from jaxnorm.study.models.resnet import NormBuilder, ResNet, ResNet14

__all__ = ["NormBuilder", "ResNet", "ResNet14"]
