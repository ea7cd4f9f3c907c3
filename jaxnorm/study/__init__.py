"""The study: one network, many normalizations, all else equal. It uses the layers as any user would."""
