"""DeepPose (Toshev & Szegedy, CVPR 2014): pose by a cascade of CNN regressors."""

__version__ = "0.1.0"
