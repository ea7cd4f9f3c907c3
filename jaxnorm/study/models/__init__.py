"""The networks that are trained: residual networks that take their normalization and convolution as arguments."""

from jaxnorm.study.models.resnet import ConvBuilder, NormBuilder, ResNet, ResNet14

__all__ = ["ConvBuilder", "NormBuilder", "ResNet", "ResNet14"]
