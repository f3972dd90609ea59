"""timm models as classifiers of uint8 images: names, layers, weights."""
