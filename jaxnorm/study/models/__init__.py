"""The networks that are trained: residual networks that take their normalization and convolution as arguments."""

from jaxnorm.study.models.resnet import ConvBuilder, NormBuilder, ResNet, ResNet14

__all__ = ["ConvBuilder", "NormBuilder", "ResNet", "ResNet14"]

MODELS = {"resnet": "residual network of 6n+2 layers for small images; ResNet-14 by default"}
"""What each network is, by its id."""
